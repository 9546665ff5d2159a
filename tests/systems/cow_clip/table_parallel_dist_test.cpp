// Click-through training whose tables are split over processes is that of one process.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "stoa/base/errors.h"
#include "stoa/systems/catalog.h"
#include "stoa/train/checkpoint.h"
#include "stoa/train/events.h"
#include "stoa/train/trainer.h"
#include "support/processes.h"
#include "support/temp_dir.h"
#include "support/thrown.h"

namespace stoa {
namespace {

namespace fs = std::filesystem;
using test::TempDir;

/// 20 updates of batches of 64 in micro-batches of 7, of which the last of three processes has one more than
/// the others.
constexpr const char* kRecipe = R"(
title = "small"
[task]
name = "click_through"
[data]
format = "zipf"
zipf = { fields = 4, ids = 300, train_rows = 3000, test_rows = 1000 }
[model]
name = "cow_clip"
network = "deepfm"
hidden = [8, 8]
[embedding]
dim = 5
lr = 1e-2
l2 = 1e-4
[optimizer]
name = "adamw"
lr = 1e-3
keras_eps = true
eps = 1e-7
[schedule]
name = "constant"
[train]
steps = 20
batch_size = 64
micro_batch_size = 7
log_every = 1
eval_every = 10
eval_batch_size = 300
[checkpoint]
every = 10
keep_last = 9
[runtime]
device = "cpu"
threads = 1
precision = "fp32"
)";

std::string asked(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

void train(const fs::path& out, const std::string& absent, const std::vector<std::string>& set = {}) {
  TrainRequest request;
  request.recipe = Config::from_text(kRecipe, "small.toml");
  request.recipe->set("embedding.absent=\"" + absent + "\"");
  for (const auto& assignment : set) request.recipe->set(assignment);
  request.out = out;
  run_training(request, catalog());
}

STOA_PROCESS_BODY(train) {
  const auto zero = asked("STOA_TEST_ZERO");
  train(asked("STOA_TEST_RUN"), asked("STOA_TEST_ABSENT"), {"parallel.zero=" + (zero.empty() ? "0" : zero)});
}

STOA_PROCESS_BODY(resume) {
  TrainRequest request;
  request.resume = asked("STOA_TEST_RUN");
  request.resume_step = 10;
  run_training(request, catalog());
}

void run(const std::string& body, int world, const fs::path& out, const std::string& absent,
         const std::string& zero = "") {
  test::expect_processes(
      body, world,
      {.environment = {
           {"STOA_TEST_RUN", out.string()}, {"STOA_TEST_ABSENT", absent}, {"STOA_TEST_ZERO", zero}}});
}

Checkpoint end_of(const fs::path& run) {
  return CheckpointStore(run / "checkpoints").load(20);
}

double relative(const at::Tensor& a, const at::Tensor& b) {
  const auto expected = b.to(at::kDouble);
  return ((a.to(at::kDouble) - expected).abs().max() / expected.abs().max().clamp_min(1e-12)).item<double>();
}

/// Tensors up to rounding; of the rows of tables the weights and each moment against their own largest. Adam
/// makes whole steps of gradients that nearly cancel out, and so of their rounding: single weights differ ten
/// times as much, as they do between two ways to cut the micro-batches of one process.
void expect_close(const std::map<std::string, at::Tensor>& found,
                  const std::map<std::string, at::Tensor>& expected, double tolerance) {
  ASSERT_EQ(found.size(), expected.size());
  for (const auto& [name, tensor] : expected) {
    const auto& other = found.at(name);
    ASSERT_EQ(other.sizes(), tensor.sizes()) << name;
    if (!name.starts_with("tables.rows.")) {
      EXPECT_LE(relative(other, tensor), tolerance) << name;
      continue;
    }
    constexpr int kWidth = 6;
    for (int part = 0; part < 3; ++part)
      EXPECT_LE(relative(other.narrow(1, kWidth * part, kWidth), tensor.narrow(1, kWidth * part, kWidth)),
                part == 0 ? 10 * tolerance : tolerance)
          << name << ", part " << part;
  }
}

void expect_close(const Json& found, const Json& expected, double tolerance, const std::string& where) {
  if (expected.is_number()) {
    const auto value = expected.get<double>();
    EXPECT_NEAR(found.get<double>(), value, tolerance * (1e-3 + std::abs(value))) << where;
    return;
  }
  if (!expected.is_structured()) return;
  ASSERT_EQ(found.size(), expected.size()) << where;
  for (const auto& [name, value] : expected.items()) {
    if (name == "seconds" || name == "samples_per_second") continue;
    expect_close(expected.is_object() ? found.at(name) : found.at(std::stoul(name)), value, tolerance,
                 where + "/" + name);
  }
}

/// Weights, moments, every line of the log and the last evaluation.
void expect_same_run(const fs::path& found, const fs::path& expected) {
  constexpr double kTolerance = 1e-6;
  const auto a = end_of(found), b = end_of(expected);
  expect_close(a.model, b.model, kTolerance);
  expect_close(a.optimizer, b.optimizer, kTolerance);
  expect_close(a.sparse, b.sparse, kTolerance);
  const auto log = read_events(found), other = read_events(expected);
  ASSERT_EQ(log.size(), other.size());
  for (std::size_t i = 0; i < log.size(); ++i)
    expect_close(log[i], other[i], kTolerance, "line " + std::to_string(i));
  EXPECT_NEAR(a.state.at("metrics").at("auc").get<double>(), b.state.at("metrics").at("auc").get<double>(),
              1e-5);
  EXPECT_TRUE(fs::exists(found / "evaluation.json"));
}

TEST(TableParallel, TrainsAsOneProcessDoes) {
  const TempDir folder;
  for (const auto& [world, absent] : {std::pair{2, "dense"}, {3, "replay"}, {2, "lazy"}}) {
    train(folder / absent, absent);
    const fs::path many = folder / (std::string(absent) + "-many");
    run("train", world, many, absent);
    if (HasFailure()) return;
    expect_same_run(many, folder / absent);
    if (HasFailure()) FAIL() << absent;
  }
}

/// Tables have an update rule of their own; the network beside them is shared out.
TEST(TableParallel, GoesWithSharedOptimisersAndWeights) {
  const TempDir folder;
  train(folder / "one", "dense");
  for (const auto& [world, zero] : {std::pair{3, "2"}, {2, "3"}}) {
    run("train", world, folder / zero, "dense", zero);
    if (HasFailure()) return;
    expect_same_run(folder / zero, folder / "one");
    if (HasFailure()) FAIL() << "zero = " << zero;
  }
  CheckpointStore(folder / "3/checkpoints").remove_after(10);  // the end is to be reached again
  run("resume", 1, folder / "3", "");
  if (!HasFailure()) expect_same_run(folder / "3", folder / "one");
}

TEST(TableParallel, GoesOnWithAnotherNumberOfProcesses) {
  const TempDir folder;
  train(folder / "one", "strided");
  run("train", 3, folder / "many", "strided");
  if (HasFailure()) return;
  expect_same_run(folder / "many", folder / "one");
  for (const int world : {2, 1}) {
    CheckpointStore(folder / "many/checkpoints").remove_after(10);
    run("resume", world, folder / "many", "");
    if (HasFailure()) return;
    expect_same_run(folder / "many", folder / "one");
  }
}

STOA_PROCESS_BODY(warm_start) {
  train(asked("STOA_TEST_RUN") + "-warm", "strided", {"initial.weights=" + asked("STOA_TEST_RUN")});
}

TEST(TableParallel, StartsFromTheWeightsOfARun) {
  const TempDir folder;
  train(folder / "one", "strided");
  train(folder / "alone", "strided", {"initial.weights=" + (folder / "one").string()});
  run("warm_start", 2, folder / "one", "");
  if (HasFailure()) return;
  expect_same_run(folder / "one-warm", folder / "alone");
}

}  // namespace
}  // namespace stoa
