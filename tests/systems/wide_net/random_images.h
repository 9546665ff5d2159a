#pragma once

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <memory>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "stoa/base/progress.h"
#include "stoa/systems/wide_net/model.h"
#include "stoa/train/checkpoint.h"
#include "stoa/train/events.h"
#include "stoa/train/trainer.h"
#include "support/processes.h"
#include "support/temp_dir.h"
#include "support/text_runs.h"

// WideNet and ViT-MoE trained by several processes, against one process, in double.
namespace stoa::wide_net {

namespace fs = std::filesystem;
using test::TempDir;

inline constexpr std::int64_t kSamples = 24, kClasses = 3;

/// Classes of random images, learned in double.
class RandomImages : public Task {
 public:
  explicit RandomImages(const WideNetOptions& options)
      : model_(std::make_shared<WideNetImpl>(options, ImageClassifierInput{1, 8, kClasses})) {
    model_->to(at::kDouble);
    auto generator = at::make_generator<at::CPUGeneratorImpl>(7);
    images_ = at::randn({kSamples, 1, 8, 8}, generator, at::kDouble);
    labels_ = at::arange(kSamples, at::kLong).remainder(kClasses);
  }

  torch::nn::Module& model() override { return *model_; }
  nn::ModelDescription describe() override { return model_->describe(); }
  std::int64_t train_samples() const override { return kSamples; }
  std::unique_ptr<BatchSource> train_batches(const BatchPlan& plan) override {
    return shuffled_batches(kSamples, plan, [this](const std::vector<SampleKey>& keys) {
      std::vector<std::int64_t> indices;
      for (const auto& key : keys) indices.push_back(key.index);
      const auto index = at::tensor(indices);
      return Batch{{{"x", images_.index_select(0, index)}, {"y", labels_.index_select(0, index)}},
                   index.size(0)};
    });
  }
  LossResult loss(const Batch& batch, const StepContext&) override {
    auto output = model_->classify(batch["x"]);
    LossResult result;
    result.loss = at::cross_entropy_loss(output.logits, batch["y"]);
    result.side = std::move(output.side);
    return result;
  }
  Evaluation evaluate(const EvaluateOptions&) override {
    Evaluation evaluation;
    const auto loss = at::cross_entropy_loss(model_->classify(images_).logits, labels_);
    evaluation.metrics = {{"error", loss.item<double>()}};
    return evaluation;
  }
  std::string primary_metric() const override { return "error"; }
  bool higher_is_better() const override { return false; }
  std::vector<Prediction> predict(std::span<const std::string>) override { return {}; }
  Batch example(std::int64_t count) override {
    return {{{"x", at::zeros({count, 1, 8, 8}, at::kDouble)}}, count};
  }
  void infer(const Batch& batch) override { model_->classify(batch["x"]); }
  void save_examples(const fs::path&, std::int64_t) override {}

 private:
  std::shared_ptr<WideNetImpl> model_;
  at::Tensor images_, labels_;
};

class RandomImagesRecipe : public TaskRecipe {
 public:
  void visit(FieldVisitor& v) override {
    v.enter("model", "what learns");
    options_.visit(v);
    v.leave();
  }
  void validate() const override { options_.validate({1, 8, kClasses}); }
  std::unique_ptr<Task> build(const BuildContext&) override {
    return std::make_unique<RandomImages>(options_);
  }

 private:
  WideNetOptions options_;
};

inline const Catalog& catalog() {
  static const Catalog catalog = {{"random_images", "wide_net", "WideNet on noise",
                                   [] { return std::make_unique<RandomImagesRecipe>(); }}};
  return catalog;
}

/// 20 updates of batches of 8 with all that a checkpoint must carry, tokens that are dropped, and everything
/// that draws random numbers.
inline constexpr const char* kRecipe = R"(
[task]
name = "random_images"
[model]
name = "wide_net"
patch = 4
dim = 8
depth = 3
heads = 2
mlp_dim = 10
dropout = 0.2
drop_path = 0.2
[model.router]
experts = 4
capacity_factor = 1.1
balance_weight = 0.3
z_weight = 0.1
[optimizer]
name = "adamw"
lr = 0.01
weight_decay = 0.1
[schedule]
name = "cosine"
[train]
steps = 20
batch_size = 8
workers = 0
log_every = 1
eval_every = 10
ema = 0.9
clip_norm = 0.5
[checkpoint]
every = 10
[runtime]
device = "cpu"
threads = 1
precision = "fp32"
)";

/// The gradient of a key's bias is rounding alone, which a smaller one would scale up.
inline const std::string kEps = "optimizer.eps=1e-5 ";

inline void start(const fs::path& out, const std::string& set) {
  set_verbosity(Verbosity::kQuiet);
  Config config = Config::from_text(kRecipe, "random_images.toml");
  for (const auto& assignment : test::words_of(set)) config.set(assignment);
  run_training({.recipe = config, .out = out, .resume = {}, .resume_step = {}}, catalog());
}

inline void resume(const fs::path& run, std::int64_t step) {
  set_verbosity(Verbosity::kQuiet);
  run_training({.recipe = {}, .out = {}, .resume = run, .resume_step = step}, catalog());
}

inline Checkpoint checkpoint_of(const fs::path& run, std::int64_t step = 20) {
  return CheckpointStore(run / "checkpoints").load(step);
}

inline void expect_close(const std::map<std::string, at::Tensor>& found,
                         const std::map<std::string, at::Tensor>& wanted) {
  ASSERT_EQ(found.size(), wanted.size());
  for (const auto& [name, tensor] : wanted) {
    const auto& other = found.at(name);
    ASSERT_EQ(other.sizes(), tensor.sizes()) << name;
    const double scale = std::max(1e-3, tensor.to(at::kDouble).abs().max().item<double>());
    EXPECT_LT((other - tensor).abs().max().item<double>() / scale, 1e-12) << name;
  }
}

/// Weights, the optimiser's moments (of gradients), averages, and every number of the log, the norm of the
/// gradients and statistics of the routers among them.
inline void expect_same_end(const fs::path& found, const fs::path& wanted) {
  const auto a = checkpoint_of(found), b = checkpoint_of(wanted);
  expect_close(a.model, b.model);
  expect_close(a.optimizer, b.optimizer);
  expect_close(a.average, b.average);
  const auto lines = read_events(found), others = read_events(wanted);
  ASSERT_EQ(lines.size(), others.size());
  for (std::size_t i = 0; i < lines.size(); ++i)
    for (const auto& [name, value] : others[i].items()) {
      if (!value.is_number() || name == "seconds" || name == "samples_per_second") continue;
      EXPECT_NEAR(lines[i].at(name).get<double>(), value.get<double>(),
                  1e-11 * (1 + std::abs(value.get<double>())))
          << "line " << i << ", " << name;
    }
}

struct Case {
  std::string name;
  int world;
  std::string split;        ///< what the processes' recipe says besides
  std::string common = "";  ///< and that of one process too
};

inline void PrintTo(const Case& c, std::ostream* to) {
  *to << c.name;
}

/// The body `train` of expect_trains_as_one() and expect_goes_on().
inline void train_as_told() {
  start(std::getenv("STOA_TEST_RUN"), std::getenv("STOA_TEST_SET"));
}

/// The body `go_on` of expect_goes_on().
inline void go_on_as_told() {
  resume(std::getenv("STOA_TEST_RUN"), 10);
}

/// Trains in one process and in several, and compares.
inline void expect_trains_as_one(const Case& c) {
  const TempDir folder;
  start(folder / "one", c.common);
  test::expect_processes("train", c.world,
                         {.environment = {{"STOA_TEST_RUN", (folder / "many").string()},
                                          {"STOA_TEST_SET", c.common + " " + c.split}}});
  if (!testing::Test::HasFailure()) expect_same_end(folder / "many", folder / "one");
}

/// A run of `before` processes, split as said, goes on with `after`, and with one.
inline void expect_goes_on(int before, const std::string& split, int after) {
  const TempDir folder;
  start(folder / "one", kEps);
  const std::map<std::string, std::string> environment = {{"STOA_TEST_RUN", (folder / "many").string()},
                                                          {"STOA_TEST_SET", kEps + split}};
  test::expect_processes("train", before, {.environment = environment});
  if (testing::Test::HasFailure()) return;
  expect_close(checkpoint_of(folder / "many", 10).model, checkpoint_of(folder / "one", 10).model);
  CheckpointStore(folder / "many/checkpoints").remove_after(10);  // the end is to be reached again
  fs::copy(folder / "many", folder / "again", fs::copy_options::recursive);
  resume(folder / "again", 10);  // one process
  expect_same_end(folder / "again", folder / "one");
  test::expect_processes("go_on", after, {.environment = environment});
  expect_same_end(folder / "many", folder / "one");
}

}  // namespace stoa::wide_net
