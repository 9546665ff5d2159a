// WideNet and ViT-MoE trained by processes that share out batches and experts, against one process, in
// double.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <sstream>

#include "stoa/base/errors.h"
#include "stoa/base/progress.h"
#include "stoa/systems/wide_net/model.h"
#include "stoa/train/events.h"
#include "stoa/train/trainer.h"
#include "support/processes.h"
#include "support/temp_dir.h"
#include "support/thrown.h"

namespace stoa::wide_net {
namespace {

namespace fs = std::filesystem;
using test::TempDir;

constexpr std::int64_t kSamples = 24, kClasses = 3;

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

const Catalog& catalog() {
  static const Catalog catalog = {{"random_images", "wide_net", "WideNet on noise",
                                   [] { return std::make_unique<RandomImagesRecipe>(); }}};
  return catalog;
}

/// 20 updates of batches of 8 with all that a checkpoint must carry, tokens that are dropped, and everything
/// that draws random numbers.
constexpr const char* kRecipe = R"(
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
const std::string kEps = "optimizer.eps=1e-5 ";

std::vector<std::string> words_of(const std::string& text) {
  std::vector<std::string> words;
  std::istringstream stream(text);
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

void start(const fs::path& out, const std::string& set) {
  set_verbosity(Verbosity::kQuiet);
  Config config = Config::from_text(kRecipe, "random_images.toml");
  for (const auto& assignment : words_of(set)) config.set(assignment);
  run_training({.recipe = config, .out = out, .resume = {}, .resume_step = {}}, catalog());
}

void resume(const fs::path& run, std::int64_t step) {
  set_verbosity(Verbosity::kQuiet);
  run_training({.recipe = {}, .out = {}, .resume = run, .resume_step = step}, catalog());
}

STOA_PROCESS_BODY(train) {
  start(std::getenv("STOA_TEST_RUN"), std::getenv("STOA_TEST_SET"));
}

STOA_PROCESS_BODY(go_on) {
  resume(std::getenv("STOA_TEST_RUN"), 10);
}

Checkpoint checkpoint_of(const fs::path& run, std::int64_t step = 20) {
  return CheckpointStore(run / "checkpoints").load(step);
}

void expect_close(const std::map<std::string, at::Tensor>& found,
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
void expect_same_end(const fs::path& found, const fs::path& wanted) {
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

void PrintTo(const Case& c, std::ostream* to) {
  *to << c.name;
}

class ExpertParallelWideNet : public testing::TestWithParam<Case> {};

TEST_P(ExpertParallelWideNet, TrainsAsOneProcessDoes) {
  const TempDir folder;
  start(folder / "one", GetParam().common);
  test::expect_processes("train", GetParam().world,
                         {.environment = {{"STOA_TEST_RUN", (folder / "many").string()},
                                          {"STOA_TEST_SET", GetParam().common + " " + GetParam().split}}});
  if (!HasFailure()) expect_same_end(folder / "many", folder / "one");
}

INSTANTIATE_TEST_SUITE_P(
    Wholes, ExpertParallelWideNet,
    testing::Values(
        Case{"TwoProcessesUneven", 2, "parallel.expert=2",
             kEps + "train.batch_size=7 model.router.importance_weight=0.2 model.router.load_weight=0.2"},
        Case{"TwoBlocksOfTwo", 4, "parallel.expert=2",
             kEps + "model.share_mlp=false model.mixture_layers=2 model.router.fill=priority "
                    "model.recompute=true "
                    "model.router.group_size=3 optimizer.name=lamb optimizer.dialect=nvlamb"},
        Case{"OneExpertEach", 4, "parallel.expert=4",
             "train.micro_batch_size=2 model.router.fill=token optimizer.name=sgd optimizer.weight_decay=0.1 "
             "train.clip=tensor "
             "train.clip_norm=0.05"},
        Case{"ExpertsOfTwoWithWeightsOfTwo", 4, "parallel.expert=2 parallel.tensor=2", kEps},
        Case{
            "ExpertsOfTwoWithWeightsOfTwoByTensor", 4, "parallel.expert=2 parallel.tensor=2",
            kEps +
                "model.share_mlp=false model.mixture_layers=2 optimizer.name=lamb optimizer.dialect=nvlamb "
                "train.clip=tensor train.clip_norm=0.05 model.ffn_output_activation=gelu optimizer.eps=1e-4"},
        Case{"DataAlone", 2, "", kEps + "model.router.routing=expert_choice model.router.balance_weight=0"}),
    [](const auto& info) { return info.param.name; });

/// A run of `before` processes, split as said, goes on with `after`, and with one.
void expect_goes_on(int before, const std::string& split, int after) {
  const TempDir folder;
  start(folder / "one", kEps);
  const std::map<std::string, std::string> environment = {{"STOA_TEST_RUN", (folder / "many").string()},
                                                          {"STOA_TEST_SET", kEps + split}};
  test::expect_processes("train", before, {.environment = environment});
  if (testing::Test::HasFailure()) return;
  expect_close(checkpoint_of(folder / "many", 10).model, checkpoint_of(folder / "one", 10).model);
  fs::copy(folder / "many", folder / "again", fs::copy_options::recursive);
  resume(folder / "again", 10);  // one process
  expect_same_end(folder / "again", folder / "one");
  test::expect_processes("go_on", after, {.environment = environment});
  expect_same_end(folder / "many", folder / "one");
}

TEST(ExpertParallelRuns, GoOnWithAnotherNumberOfProcesses) {
  expect_goes_on(2, "parallel.expert=2", 4);
}

TEST(ExpertParallelRuns, WithSplitWeightsGoOnWithAnotherNumberOfProcesses) {
  expect_goes_on(4, "parallel.expert=2 parallel.tensor=2", 2);
}

TEST(ExpertParallelRuns, SayWhatCannotBeSharedOut) {
  const TempDir folder;
  const std::string uneven = "parallel.expert=2 train.batch_size=5 train.micro_batch_size=2";
  for (const auto& end : test::run_processes(
           "train", 2, {.environment = {{"STOA_TEST_RUN", folder / "run"}, {"STOA_TEST_SET", uneven}}})) {
    EXPECT_NE(end.code, 0);
    STOA_EXPECT_CONTAINS(end.output, "2 processes have 2 or 3 samples");
  }
}

}  // namespace
}  // namespace stoa::wide_net
