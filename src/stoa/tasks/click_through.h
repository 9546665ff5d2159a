#pragma once

#include <torch/nn/module.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "stoa/data/tabular/dataset.h"
#include "stoa/data/tabular/zipf.h"
#include "stoa/nn/description.h"
#include "stoa/nn/embedding_tables.h"
#include "stoa/train/task.h"

namespace stoa {

/// What a click-through model is built for.
struct ClickModelInput {
  std::int64_t fields = 26;    ///< categorical
  std::int64_t numerics = 13;  ///< numbers of a row
  std::int64_t dim = 10;       ///< of an embedding
};

/// What click-through prediction needs of a model: the part behind the embedding tables. Systems derive from
/// it.
class ClickModel : public torch::nn::Module {
 public:
  /// Logits [batch] from embeddings [batch, fields, dim], first-order weights [batch, fields] and numerics
  /// [batch, numerics], global bias included.
  virtual at::Tensor score(const nn::EmbeddingRows& rows, const at::Tensor& numerics) = 0;
  /// What the loss adds for weights outside the tables: l2 |k_lin|^2 and the fixed penalties of the model's
  /// own (cowclip.md 2.3). A scalar.
  virtual at::Tensor penalty(double l2) const = 0;
  virtual nn::ModelDescription describe() const = 0;
};

enum class TabularFormat {
  kPrepared,   ///< a folder made by `stoa data prepare`
  kMovieLens,  ///< raw files, prepared on the way
  kZipf,       ///< generated
};

/// The rows: the table [data].
struct TabularDataOptions {
  TabularFormat format = TabularFormat::kPrepared;
  std::string path;           ///< of prepared data; a relative one is also looked for below $STOA_DATA
  std::int64_t fields = 0;    ///< categorical fields; 0 takes what the data have
  std::int64_t numerics = 0;  ///< numbers of a row, where `fields` is set
  std::int64_t ids = 0;       ///< of all fields together, for sizes without data
  ZipfOptions zipf;

  void visit(FieldVisitor& v);
  void validate() const;
};

/// Larger batches at which `stoa train` trains the recipe too, once it is done: the table [comparison].
struct ComparisonOptions {
  std::vector<std::int64_t> factors;  ///< of the batch; none: nothing is compared
  std::vector<std::string> rules = {"none", "sqrt", "linear", "n2_lambda", "cowclip"};  ///< optim/scaling.h

  void visit(FieldVisitor& v);
  void validate() const;
};

/// Builds a model from options of its own type and the shape of the data.
using MakeClickModel = std::function<std::shared_ptr<ClickModel>(const ClickModelInput&)>;

/// The recipe part of one system under this task: [data], [embedding], [comparison] and [model].
class ClickThroughRecipe : public TaskRecipe {
 public:
  ClickThroughRecipe(VisitFields visit_model, std::function<void(const ClickModelInput&)> validate_model,
                     MakeClickModel make);
  void visit(FieldVisitor& v) override;
  void validate() const override;
  std::unique_ptr<Task> build(const BuildContext& context) override;

 private:
  TabularDataOptions data_;
  nn::EmbeddingOptions embedding_;
  ComparisonOptions comparison_;
  VisitFields visit_model_;
  std::function<void(const ClickModelInput&)> validate_model_;
  MakeClickModel make_;
};

/// One line of the catalog: click-through prediction by `Model`, a class derived from ClickModel with a
/// constructor (Options, ClickModelInput); Options has visit() and validate(ClickModelInput).
template <class Model, class Options>
CatalogEntry click_through(const std::string& name, const std::string& summary) {
  return {"click_through", name, summary, [] {
            auto options = std::make_shared<Options>();
            return std::make_unique<ClickThroughRecipe>(
                [options](FieldVisitor& v) { options->visit(v); },
                [options](const ClickModelInput& input) { options->validate(input); },
                [options](const ClickModelInput& input) { return std::make_shared<Model>(*options, input); });
          }};
}

}  // namespace stoa
