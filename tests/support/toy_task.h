#pragma once

#include <ATen/ATen.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/linear.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "stoa/base/config.h"
#include "stoa/base/errors.h"
#include "stoa/base/progress.h"
#include "stoa/base/random.h"
#include "stoa/data/loader.h"
#include "stoa/nn/parameters.h"
#include "stoa/ops/dropout.h"
#include "stoa/train/task.h"

namespace stoa::test {

/// Options of the toy: a regression y = f(x) of three inputs on made-up samples, learned by a network with
/// one hidden layer.
struct ToyOptions {
  std::int64_t samples = 40;
  bool weighted = false;     ///< samples weigh 1, 2, 3, 1, 2 ...; otherwise 1 each
  bool missing = false;      ///< the data are not there
  double activity_cost = 0;  ///< weight of the model's side loss, the mean square of its hidden units
  std::int64_t hidden = 5;
  double dropout = 0;
};

/// What tests do inside a run, at each loss and each evaluation.
struct ToyHooks {
  std::function<void(std::int64_t step)> on_loss = {};
  std::function<void()> on_evaluate = {};
  std::int64_t infinite_loss_at = -1;  ///< step whose loss is not finite
  std::int64_t bad_gradient_at = -1;   ///< step whose loss is finite, but not its gradient
};
inline ToyHooks toy_hooks;

class ToyModel : public torch::nn::Module {
 public:
  explicit ToyModel(const ToyOptions& options) : dropout_(options.dropout) {
    in = register_module("in", torch::nn::Linear(3, options.hidden));
    out = register_module("out", torch::nn::Linear(options.hidden, 1));
    mean = register_buffer("mean", at::zeros({options.hidden}));
    to(at::kDouble);
  }

  /// Hidden units [samples, hidden] and predictions [samples]; training draws dropout and moves the running
  /// mean.
  std::pair<at::Tensor, at::Tensor> forward(const at::Tensor& x) {
    const at::Tensor units = at::tanh(in->forward(x));
    if (is_training()) {
      const at::NoGradGuard no_gradients;
      mean.mul_(0.9).add_(units.mean(0), 0.1);
    }
    return {units, out->forward(ops::dropout(units, is_training() ? dropout_ : 0)).squeeze(1)};
  }

  torch::nn::Linear in = nullptr, out = nullptr;
  at::Tensor mean;

 private:
  double dropout_;
};

class ToyTask : public Task {
 public:
  explicit ToyTask(const ToyOptions& options)
      : options_(options), model_(std::make_shared<ToyModel>(options)) {
    RandomStream random(7);
    x_ = at::empty({options.samples, 3}, at::kDouble);
    for (std::int64_t i = 0; i < x_.numel(); ++i) x_.mutable_data_ptr<double>()[i] = random.uniform(-1, 1);
    y_ = at::sin(2 * x_.sum(1));
    weight_ = options.weighted ? 1.0 + at::arange(options.samples, at::kDouble).remainder(3)
                               : at::ones({options.samples}, at::kDouble);
  }

  ToyModel& model() override { return *model_; }
  nn::ModelDescription describe() override {
    return {{{"all", nn::count_parameters(*model_), 4 * options_.hidden, options_.hidden}}, "3"};
  }
  std::int64_t train_samples() const override { return options_.samples; }

  std::unique_ptr<BatchSource> train_batches(const BatchPlan& plan) override {
    return shuffled_batches(options_.samples, plan, [this](const std::vector<SampleKey>& keys) {
      std::vector<std::int64_t> indices;
      at::Tensor noise = at::empty({std::ssize(keys), 3}, at::kDouble);
      for (std::size_t i = 0; i < keys.size(); ++i) {
        indices.push_back(keys[i].index);
        RandomStream random(keys[i].seed);
        for (int j = 0; j < 3; ++j) noise.mutable_data_ptr<double>()[3 * i + j] = 0.01 * random.normal();
      }
      Batch batch = samples(at::tensor(indices));
      batch.tensors["x"] += noise;
      return batch;
    });
  }

  Batch samples(const at::Tensor& indices) const {
    return {{{"x", x_.index_select(0, indices)},
             {"y", y_.index_select(0, indices)},
             {"weight", weight_.index_select(0, indices)}},
            indices.size(0)};
  }

  double weight(const Batch& batch) const override { return batch["weight"].sum().item<double>(); }

  LossResult loss(const Batch& batch, const StepContext& context) override {
    if (toy_hooks.on_loss) toy_hooks.on_loss(context.step);
    const auto [units, prediction] = model_->forward(batch["x"]);
    const at::Tensor error = prediction - batch["y"], share = batch["weight"] / batch["weight"].sum();
    LossResult result;
    result.loss = (error.square() * share).sum();
    if (context.step == toy_hooks.infinite_loss_at) result.loss = result.loss / 0.0;
    if (context.step == toy_hooks.bad_gradient_at)
      result.loss = result.loss + (0 * model_->out->bias).abs().sqrt().sum();
    result.metrics = {{"absolute_error", (error.abs() * share).sum().detach()}};
    if (options_.activity_cost > 0)
      result.side.losses = {{"activity", options_.activity_cost * (units.square().mean(1) * share).sum()}};
    result.side.statistics = {{"units", (units.detach() * share.unsqueeze(1)).sum(0)}};
    return result;
  }

  Evaluation evaluate(const EvaluateOptions& options) override {
    if (toy_hooks.on_evaluate) toy_hooks.on_evaluate();
    if (options.progress) options.progress(options_.samples, options_.samples);
    const at::Tensor error = model_->forward(x_).second - y_;
    Evaluation evaluation;
    evaluation.metrics = {{"error", error.square().mean().item<double>()}};
    if (options.exhibits) evaluation.exhibits = {{"toy", "", TableExhibit{{"a"}, {{"1"}}}}};
    return evaluation;
  }
  std::string primary_metric() const override { return "error"; }
  bool higher_is_better() const override { return false; }

  std::vector<Prediction> predict(std::span<const std::string> inputs) override {
    return std::vector<Prediction>(inputs.size());
  }
  Batch example(std::int64_t count) override { return {{{"x", at::zeros({count, 3}, at::kDouble)}}, count}; }
  void infer(const Batch& batch) override { model_->forward(batch["x"]); }
  void save_examples(const std::filesystem::path&, std::int64_t) override {}
  Json metadata() const override { return {{"inputs", {"a", "b", "c"}}}; }

 private:
  ToyOptions options_;
  std::shared_ptr<ToyModel> model_;
  at::Tensor x_, y_, weight_;  // [samples, 3], [samples], [samples], fp64
};

class ToyRecipe : public TaskRecipe {
 public:
  void visit(FieldVisitor& v) override {
    v.enter("task", "what is learned");
    v.field("weighted", options_.weighted, "samples weigh differently");
    v.leave();
    v.enter("data", "what it is learned from");
    v.field("samples", options_.samples, "how many there are");
    v.field("missing", options_.missing, "the data are not there");
    v.leave();
    v.enter("model", "what learns it");
    v.field("hidden", options_.hidden, "units of the hidden layer");
    v.field("dropout", options_.dropout, "share of them that is dropped");
    v.field("activity_cost", options_.activity_cost, "weight of the side loss");
    v.leave();
  }
  void validate() const override {
    if (options_.hidden < 1) throw ConfigError("`model.hidden` must be at least 1");
  }
  std::unique_ptr<Task> build(const BuildContext& context) override {
    if (context.open_data && options_.missing) throw DataError("the data are not there");
    return std::make_unique<ToyTask>(options_);
  }

 private:
  ToyOptions options_;
};

inline const Catalog& toy_catalog() {
  const auto make = [] { return std::make_unique<ToyRecipe>(); };
  static const Catalog catalog = {{"toy_regression", "toy_net", "a toy", make},
                                  {"toy_regression", "other_net", "the same toy", make},
                                  {"toy_counting", "abacus", "the same toy", make}};
  return catalog;
}

/// A recipe of the toy, "toy.toml", with "a.b=c" set on top.
inline Config toy_config(const std::vector<std::string>& set = {}) {
  Config config = Config::from_text(R"(
[task]
name = "toy_regression"
[model]
name = "toy_net"
[optimizer]
name = "adamw"
lr = 0.01
[schedule]
name = "cosine"
[train]
steps = 12
batch_size = 8
workers = 0
log_every = 5
[runtime]
device = "cpu"
threads = 1
precision = "fp32"
)",
                                    "toy.toml");
  for (const std::string& assignment : set) config.set(assignment);
  return config;
}

/// Hooks for the length of a scope; keeps the program quiet meanwhile.
class ToyScope {
 public:
  ToyScope() { set_verbosity(Verbosity::kQuiet); }
  explicit ToyScope(ToyHooks hooks) : ToyScope() { toy_hooks = std::move(hooks); }
  ~ToyScope() { toy_hooks = {}; }
  ToyScope(const ToyScope&) = delete;
  ToyScope& operator=(const ToyScope&) = delete;
};

}  // namespace stoa::test
