#pragma once

#include <torch/nn/module.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "stoa/data/image/options.h"
#include "stoa/nn/description.h"
#include "stoa/nn/layer_split.h"
#include "stoa/nn/outputs.h"
#include "stoa/train/task.h"

namespace stoa {

/// What an image classifier is built for.
struct ImageClassifierInput {
  std::int64_t channels = 3;
  std::int64_t image_size = 224;
  std::int64_t classes = 1000;
};

struct ImageClassifierOutput {
  at::Tensor logits;  ///< [batch, classes]
  nn::SideOutputs side;
  /// Where the layers are split over processes: how the others are reached, and in place of `logits` and
  /// `side`, where the last layers are elsewhere, a zero whose backward pass goes on from theirs.
  at::Tensor link = {};
  std::shared_ptr<const nn::LayerExchange> stages = nullptr;
};

/// What image classification needs of a model. Systems derive from it; it is all the task ever sees of them.
class ImageClassifier : public torch::nn::Module {
 public:
  /// images [batch, channels, size, size], normalised
  virtual ImageClassifierOutput classify(const at::Tensor& images) = 0;
  virtual nn::ModelDescription describe() const = 0;
  /// Pictures of what the model did, from its statistics averaged over the evaluation data.
  virtual std::vector<Exhibit> exhibits(const std::vector<nn::NamedTensor>& statistics) const {
    (void)statistics;
    return {};
  }
};

/// Options of the task itself: the table [task].
struct ImageClassificationOptions {
  double label_smoothing = 0;  ///< share of each target spread over all classes; also over mixed labels
  std::vector<std::string> class_names;  ///< for data sets whose files carry none

  void visit(FieldVisitor& v);
  void validate(std::int64_t classes) const;
};

/// Builds a classifier from options of its own type and the shape of the data.
using MakeImageClassifier = std::function<std::shared_ptr<ImageClassifier>(const ImageClassifierInput&)>;

/// The recipe part of one system under this task: [task], [data] and [model].
class ImageClassificationRecipe : public TaskRecipe {
 public:
  /// `visit_model` shows the model's own fields (the table [model]), `validate_model` checks them, `make`
  /// builds it.
  ImageClassificationRecipe(VisitFields visit_model,
                            std::function<void(const ImageClassifierInput&)> validate_model,
                            MakeImageClassifier make);
  void visit(FieldVisitor& v) override;
  void validate() const override;
  std::unique_ptr<Task> build(const BuildContext& context) override;

 private:
  ImageClassifierInput input() const;

  ImageClassificationOptions options_;
  ImageDataOptions data_;
  VisitFields visit_model_;
  std::function<void(const ImageClassifierInput&)> validate_model_;
  MakeImageClassifier make_;
};

/// One line of the catalog: image classification by `Model`, a class derived from ImageClassifier with a
/// constructor (Options, ImageClassifierInput); Options has visit() and validate(ImageClassifierInput).
template <class Model, class Options>
CatalogEntry image_classification(const std::string& name, const std::string& summary) {
  return {"image_classification", name, summary, [] {
            auto options = std::make_shared<Options>();
            return std::make_unique<ImageClassificationRecipe>(
                [options](FieldVisitor& v) { options->visit(v); },
                [options](const ImageClassifierInput& input) { options->validate(input); },
                [options](const ImageClassifierInput& input) {
                  return std::make_shared<Model>(*options, input);
                });
          }};
}

}  // namespace stoa
