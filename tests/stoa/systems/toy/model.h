#pragma once

#include "stoa/base/errors.h"
#include "stoa/nn/linear.h"
#include "stoa/tasks/image_classification.h"

namespace stoa::toy {

/// Options of the toy: the table [model] of a recipe.
struct ToyOptions {
  std::int64_t hidden = 32;  ///< width of the hidden layer

  void visit(FieldVisitor& v) { v.field("hidden", hidden, "width of the hidden layer"); }
  void validate(const ImageClassifierInput&) const {
    if (hidden < 1) throw ConfigError("`model.hidden` must be at least 1");
  }
};

/// All pixels through one hidden layer.
class Toy : public ImageClassifier {
 public:
  Toy(const ToyOptions& options, const ImageClassifierInput& input);
  ImageClassifierOutput classify(const at::Tensor& images) override;
  nn::ModelDescription describe() const override;

 private:
  nn::Linear in_, out_;
};

}  // namespace stoa::toy
