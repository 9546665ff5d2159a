// WideNet, ViT and ViT-MoE whose layers are split over processes train as one process does: with augmented
// images and mixed labels, in double.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <optional>

#include "stoa/base/files.h"
#include "stoa/base/progress.h"
#include "stoa/base/random.h"
#include "stoa/dist/split_layers.h"
#include "stoa/dist/world.h"
#include "stoa/systems/catalog.h"
#include "stoa/train/checkpoint.h"
#include "stoa/train/events.h"
#include "stoa/train/plan.h"
#include "stoa/train/shared_model.h"
#include "stoa/train/trainer.h"
#include "support/processes.h"
#include "support/temp_dir.h"
#include "support/text_runs.h"

namespace stoa {
namespace {

namespace fs = std::filesystem;
using test::TempDir;
using test::words_of;

/// All that is drawn by chance and all that a checkpoint carries. Attention's own dropout, which in double is
/// ATen's, is left to the run in fp32.
constexpr const char* kRecipe = R"(
[task]
name = "image_classification"
label_smoothing = 0.1
[data]
format = "synthetic"
image_size = 8
channels = 1
mean = [0.5]
deviation = [0.3]
train_limit = 60
test_limit = 35
classes = 7
augment = { flip = true, mixup = 0.4, cutmix = 0.7 }
[model]
name = "wide_net"
patch = 4
dim = 8
depth = 4
heads = 2
mlp_dim = 12
dropout = 0.2
drop_path = 0.3
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
batch_size = 12
micro_batch_size = 3
eval_batch_size = 1
eval_every = 10
log_every = 1
workers = 0
ema = 0.9
clip_norm = 0.5
[checkpoint]
every = 10
[runtime]
device = "cpu"
threads = 1
precision = "fp32"
)";

Config config_of(const std::string& set) {
  set_verbosity(Verbosity::kQuiet);
  Config config = Config::from_text(kRecipe, "images.toml");
  if (set.find("sgd") == std::string::npos)  // a key's bias has a gradient of rounding alone
    config.set("optimizer.eps=1e-5");
  for (const auto& assignment : words_of(set)) config.set(assignment);
  return config;
}

/// A recipe and its task in double, the model as the seed draws it.
struct Subject {
  Recipe recipe;
  std::unique_ptr<Task> task;

  explicit Subject(const std::string& set) : recipe(read_recipe(config_of(set), catalog())) {
    at::manual_seed(5);
    task = recipe.task->build({true, nullptr, {}});
    task->model().to(at::kDouble);
    task->model().train();
  }

  Batch batch(std::int64_t step, std::int64_t part, std::int64_t parts) {
    auto batch = task->train_batches({recipe.train.batch_size, 3, step, 0, part, parts})->next();
    for (auto& [name, tensor] : batch.tensors)
      if (tensor.is_floating_point()) tensor = tensor.to(at::kDouble);
    return batch;
  }

  BatchOutcome learn(std::int64_t step, const Batch& batch, const StepShare& share) {
    return accumulate_gradients(*task, batch, {step, recipe.train.steps}, recipe.train.micro_batch_size, {},
                                /*statistics=*/true, share);
  }

  double update(optim::Optimizer& rule, optim::MovingAverage& average) {
    const auto scale = rule.clipping(recipe.train.clip_norm, recipe.train.clip == ClipKind::kTensor);
    rule.step(recipe.optimizer.lr, scale);
    rule.zero_grad();
    average.update();
    return scale.norm;
  }
};

/// Training by one process.
struct Alone : Subject {
  explicit Alone(const std::string& set)
      : Subject(set),
        rule(optim::make_optimizer(nn::distinct_parameters(task->model()), recipe.optimizer)),
        average(task->model(), recipe.train.ema) {}

  Checkpoint checkpoint() {
    Checkpoint checkpoint;
    checkpoint.model = nn::module_state(task->model());
    checkpoint.optimizer = rule->state();
    checkpoint.average = average.state();
    return checkpoint;
  }

  std::unique_ptr<optim::Optimizer> rule;
  optim::MovingAverage average;
};

/// Training by a team.
struct Together : Subject {
  Together(const std::string& set, const Team& team) : Subject(set), model(recipe, *task, team) {}
  SharedModel model;
};

void expect_close(const std::map<std::string, at::Tensor>& found,
                  const std::map<std::string, at::Tensor>& wanted) {
  ASSERT_EQ(found.size(), wanted.size());
  for (const auto& [name, tensor] : wanted) {
    const auto& other = found.at(name);
    ASSERT_EQ(other.sizes(), tensor.sizes()) << name;
    const double scale = std::max(1.0, tensor.to(at::kDouble).abs().max().item<double>());
    EXPECT_LT((other - tensor).abs().max().item<double>() / scale, 1e-12) << name;
  }
}

void expect_close(const NamedNumbers& found, const NamedNumbers& wanted, double most) {
  ASSERT_EQ(found.size(), wanted.size());
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    EXPECT_EQ(found[i].first, wanted[i].first);
    EXPECT_NEAR(found[i].second, wanted[i].second, most) << wanted[i].first;
  }
}

/// What rank 0 reads of the checkpoint that it has written.
Checkpoint written(const SharedModel& model, const Team& team) {
  auto checkpoint = model.checkpoint();
  if (!team.leads()) {
    checkpoint.bring();
    return {};
  }
  checkpoint.step = 1;
  CheckpointStore store(fs::path(std::getenv("STOA_TEST_MEETING")) / "checkpoints");
  store.save(checkpoint, {}, {}, /*higher_is_better=*/true);
  return store.load(1);
}

/// What is reported of each step, the norm of the gradients, and in the end weights, sums of gradients and
/// averages. Half-way the team starts anew from a checkpoint of the one process.
void expect_trains_as_one_process(const Team& team, const std::string& set, std::int64_t steps,
                                  PipelineSchedule schedule = PipelineSchedule::kOneForwardOneBackward) {
  SCOPED_TRACE(set);
  Alone one(set);
  auto many = std::make_unique<Together>(set, team);
  for (std::int64_t step = 0; step < steps; ++step) {
    const auto seed = mix_seed({11, static_cast<std::uint64_t>(step)});
    if (step > 0 && step == steps / 2) {
      many = std::make_unique<Together>(set, team);
      many->model.load(one.checkpoint(), "checkpoint");
    }
    const auto wanted = one.learn(step, one.batch(step, 0, 1), {.seed = seed});
    auto share = many->model.share(seed);
    share.schedule = schedule;
    const auto found = [&] {
      const auto weights = many->model.pass();
      return many->learn(step, many->batch(step, team.part(), team.parts()), share);
    }();
    expect_close(found.losses, wanted.losses, 1e-12);
    expect_close(found.metrics, wanted.metrics, 1e-7);  // shares of so many samples in fp32
    EXPECT_EQ(found.statistics, wanted.statistics);
    const double norm = one.update(*one.rule, one.average);
    EXPECT_NEAR(many->update(many->model.optimizer(), *many->model.average()), norm, 1e-12 * (1 + norm));
    if (testing::Test::HasFailure()) return;
  }
  const auto whole = written(many->model, team);
  if (!team.leads()) return;
  const auto wanted = one.checkpoint();
  expect_close(whole.model, wanted.model);
  expect_close(whole.optimizer, wanted.optimizer);
  expect_close(whole.average, wanted.average);
}

Team team_of(std::int64_t pipeline, std::int64_t data, std::int64_t tensor = 1, std::int64_t expert = 1) {
  dist::ParallelOptions options;
  options.pipeline = pipeline;
  options.data = data;
  options.tensor = tensor;
  options.expert = expert;
  return Team(options);
}

const std::string kVit = "model.share_attention=false model.share_mlp=false model.mixture_layers=0 ";
const std::string kVitMoe = "model.share_attention=false model.share_mlp=false model.mixture_layers=2 ";

STOA_PROCESS_TEST(PipelineImages, TrainInThreeStagesAsInOneProcess, 3) {
  const auto team = team_of(3, 1);
  expect_trains_as_one_process(team, "", 6);
  // group i % 2 of the layers has modules of its own: each is used by all stages
  expect_trains_as_one_process(
      team,
      "model.depth=6 model.groups=2 model.group_order=cycle model.mixture_layers=0 model.share_norms=true "
      "model.layer_scale=0.5 model.recompute=true optimizer.name=lamb train.clip=tensor",
      2);
  // routing groups of two and of one sample, losses of all depths together
  expect_trains_as_one_process(
      team,
      kVitMoe +
          "model.depth=5 model.mixture_layers=4 model.class_slot=zero model.pooling=map "
          "model.representation=true model.router.group_size=2 model.router.balance_scope=depth "
          "model.router.importance_weight=0.2 model.router.load_weight=0.2 optimizer.name=sgd",
      2, PipelineSchedule::kGPipe);
  expect_trains_as_one_process(
      team, "model.preset=code model.router.routing=expert_choice model.router.balance_weight=0", 1);
}

STOA_PROCESS_TEST(PipelineImages, TrainWithSplitWeightsAsInOneProcess, 4) {
  const auto team = team_of(2, 1, 2);
  expect_trains_as_one_process(team, "", 2);
  expect_trains_as_one_process(team, kVit + "optimizer.name=lamb model.recompute=true", 2);
}

STOA_PROCESS_TEST(PipelineImages, TrainWithReplicasAndExpertsDealtOutAsInOneProcess, 4) {
  const auto team = team_of(2, 2, 1, 2);
  expect_trains_as_one_process(team, "", 2);
  // the whole batch is routed together, in groups that no replica has whole
  expect_trains_as_one_process(
      team, kVitMoe + "train.micro_batch_size=0 model.router.group_size=5 optimizer.name=lamb", 2);
  expect_trains_as_one_process(team, "parallel.zero=3 train.micro_batch_size=2", 2);
}

/// Weights that layers of both stages share are on both.
void expect_to_hold_what_layers_use(dist::World& world) {
  const auto held = [&](const std::string& set, const std::string& part) {
    Subject subject(set);
    const auto all = nn::distinct_parameters(subject.task->model());
    std::map<std::string, std::int64_t> whole;
    for (const auto& parameter : all) whole[parameter.name] = parameter.tensor.numel();
    const dist::SplitLayers layers(subject.task->model(), world.all_shared());
    std::int64_t count = 0, of = 0;
    for (const auto& parameter : all)
      if (parameter.name.starts_with(part)) {
        count += parameter.tensor.numel();
        of += whole[parameter.name];
      }
    return static_cast<double>(count) / static_cast<double>(of);
  };
  const bool first = world.rank() == 0;
  EXPECT_EQ(held("", "mixture."), 1);
  EXPECT_EQ(held("", "norm1."), 0.5);
  EXPECT_EQ(held("", "patch."), first ? 1 : 0);
  EXPECT_EQ(held("", "head."), first ? 0 : 1);
  EXPECT_EQ(held("", "final_norm."), first ? 0 : 1);
  EXPECT_EQ(held(kVit, "mlp."), 0.5);
  EXPECT_EQ(held("model.groups=2", "mixture."), 0.5);
  EXPECT_EQ(held(kVitMoe, "mixture."), first ? 0 : 1);
}

/// With equal weights: metrics, pictures, and how experts were used by depth.
STOA_PROCESS_TEST(PipelineImages, HoldTheirLayersAndAreEvaluatedAsByOneProcess, 2) {
  const auto world = dist::World::join(dist::read_place());
  expect_to_hold_what_layers_use(*world);
  const auto build = [](const std::string& set) {
    at::manual_seed(5);
    auto task = read_recipe(config_of(set), catalog()).task->build({true, nullptr, {}});
    const at::NoGradGuard no_gradients;
    for (auto& item : task->model().named_parameters())  // norms that differ
      if (item.key().starts_with("norm")) item.value().add_(0.1 * at::randn_like(item.value()));
    return task;
  };
  for (const auto& set : {std::string("model.router.eval_capacity_factor=-1"), kVit}) {
    const auto one = build(set), many = build(set);
    const dist::SplitLayers layers(many->model(), world->all_shared());
    for (const std::int64_t size : {1, 9}) {  // 35 images: three meetings of the stages, and one
      const EvaluateOptions options{.batch_size = size, .exhibits = true, .progress = {}};
      const auto wanted = one->evaluate(options), found = many->evaluate(options);
      ASSERT_EQ(found.metrics.items().size(), wanted.metrics.items().size());
      for (const auto& [name, value] : wanted.metrics.items())
        EXPECT_NEAR(found.metrics[name], value, 1e-6 * (1 + std::abs(value))) << name;
      ASSERT_EQ(found.exhibits.size(), wanted.exhibits.size());
      for (std::size_t i = 0; i < wanted.exhibits.size(); ++i)
        EXPECT_EQ(found.exhibits[i].to_json(), wanted.exhibits[i].to_json()) << wanted.exhibits[i].title;
    }
  }
}

void start(const fs::path& out, const std::string& set) {
  run_training({.recipe = config_of(set), .out = out, .resume = {}, .resume_step = {}}, catalog());
}

STOA_PROCESS_BODY(train) {
  start(std::getenv("STOA_TEST_RUN"), std::getenv("STOA_TEST_SET"));
}

/// Every number of every line, of steps and of evaluations. The norm of the gradients sees
/// more of the weights' last bits than the losses do.
void expect_equal_logs(const fs::path& found, const fs::path& wanted) {
  const auto lines = read_events(found), others = read_events(wanted);
  ASSERT_EQ(lines.size(), others.size());
  for (std::size_t i = 0; i < lines.size(); ++i)
    for (const auto& [name, value] : others[i].items()) {
      if (!value.is_number() || name == "seconds" || name == "samples_per_second") continue;
      const double expected = value.get<double>();
      const double most = name == "gradient_norm" ? 1e-5 : 1e-6;
      EXPECT_NEAR(lines[i].at(name).get<double>(), expected, most * std::max(1.0, std::abs(expected)))
          << "line " << i << ", " << name;
    }
}

TEST(PipelineImages, MakeTheRunOfOneProcessInSinglePrecision) {
  const TempDir folder;
  const std::string common = "model.attention_dropout=0.2 optimizer.name=sgd optimizer.lr=0.002 ";
  start(folder / "one", common);
  const std::map<std::string, std::string> environment = {{"STOA_TEST_RUN", (folder / "many").string()},
                                                          {"STOA_TEST_SET", common + "parallel.pipeline=2"}};
  test::expect_processes("train", 4, {.environment = environment});
  if (HasFailure()) return;
  expect_equal_logs(folder / "many", folder / "one");
  const auto titles = [](const fs::path& run) {
    std::vector<std::string> titles;
    for (const auto& exhibit : read_json(run / "evaluation.json").at("exhibits"))
      titles.push_back(exhibit.at("title"));
    return titles;
  };
  EXPECT_EQ(titles(folder / "many"), titles(folder / "one"));
  // its checkpoint is one of one process, which goes on from it
  CheckpointStore(folder / "many/checkpoints").remove_after(10);  // the end is to be reached again
  run_training({.recipe = {}, .out = {}, .resume = folder / "many", .resume_step = 10}, catalog());
  EXPECT_TRUE(fs::exists(folder / "many/checkpoints/step-20"));
  expect_equal_logs(folder / "many", folder / "one");
}

TEST(PipelineImages, ArePlanned) {
  Recipe recipe = read_recipe(config_of(""), catalog());
  const auto task = recipe.task->build({false, nullptr, {}});
  PlanMachine machine;
  machine.memory = 1e12;
  machine.link = {1e9, 1e-5};
  std::int64_t run = 0;
  for (const auto& planned : plan(plan_model(recipe, *task), 4, machine))
    if (planned.split.pipeline > 1) {
      EXPECT_EQ(planned.refused, "");
      ++run;
    }
  EXPECT_GE(run, 4);
}

}  // namespace
}  // namespace stoa
