// Whole runs whose optimiser is shared out over processes (ZeRO).
#include <gtest/gtest.h>

#include <cstdlib>

#include "stoa/base/errors.h"
#include "support/processes.h"
#include "support/temp_dir.h"
#include "support/thrown.h"
#include "support/toy_runs.h"

namespace stoa {
namespace {

namespace fs = std::filesystem;
using test::everything;
using test::run_processes;
using test::TempDir;

std::string asked(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

/// 20 updates of batches of 8 by LAMB, clipped, of a network with 61 weights in parameters that few numbers
/// of processes divide.
std::vector<std::string> recipe(const std::string& zero = "0") {
  return everything({"train.steps=20", "train.batch_size=8", "train.log_every=1", "checkpoint.every=4",
                     "model.hidden=12", "optimizer.name=lamb", "optimizer.weight_decay=0.1",
                     "train.clip_norm=0.1", "train.clip=tensor", "parallel.zero=" + zero});
}

STOA_PROCESS_BODY(train) {
  test::start(asked("STOA_TEST_RUN"), recipe(asked("STOA_TEST_ZERO")));
}

/// Goes on with another stage than the run began with.
STOA_PROCESS_BODY(resume) {
  run_training({.recipe = test::toy_config(recipe(asked("STOA_TEST_ZERO"))),
                .out = {},
                .resume = asked("STOA_TEST_RUN"),
                .resume_step = 8},
               test::toy_catalog());
}

void run(const std::string& body, int world, const fs::path& out, const std::string& zero) {
  test::expect_processes(body, world,
                         {.environment = {{"STOA_TEST_RUN", out.string()}, {"STOA_TEST_ZERO", zero}}});
}

void expect_close(const std::map<std::string, at::Tensor>& a, const std::map<std::string, at::Tensor>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, tensor] : a) {
    if (name == "mean") continue;  // what the layer keeps of batches depends on how they are cut
    ASSERT_EQ(tensor.sizes(), b.at(name).sizes()) << name;
    EXPECT_LT((tensor - b.at(name)).abs().max().item<double>(), 1e-12) << name;
  }
}

void expect_close(const Checkpoint& a, const Checkpoint& b) {
  expect_close(a.model, b.model);
  expect_close(a.optimizer, b.optimizer);
  expect_close(a.average, b.average);
}

TEST(Zero, TrainsAsOneProcessDoes) {
  const TempDir folder;
  test::start(folder / "one", recipe());
  const auto alone = test::checkpoint_of(folder / "one", 20);
  const std::pair<int, const char*> cases[] = {{2, "1"}, {3, "2"}, {5, "2"}, {2, "3"}, {3, "3"}};
  for (const auto& [world, zero] : cases) {
    const auto many = folder / (std::to_string(world) + "-" + zero);
    run("train", world, many, zero);
    if (HasFailure()) return;
    expect_close(test::checkpoint_of(many, 20), alone);
    const auto log = test::timeless_log(many), wanted = test::timeless_log(folder / "one");
    ASSERT_EQ(log.size(), wanted.size());
    EXPECT_NEAR(log.back().value("gradient_norm", 0.0), wanted.back().value("gradient_norm", 0.0), 1e-11);
  }
}

TEST(Zero, GoesOnWithOtherNumbersOfProcessesAndStages) {
  const TempDir folder;
  test::start(folder / "one", recipe());
  const auto alone = test::checkpoint_of(folder / "one", 20);
  run("train", 4, folder / "run", "2");
  const std::pair<int, const char*> cases[] = {{2, "2"}, {1, "2"}, {2, "0"}, {3, "1"}, {2, "3"}};
  for (const auto& [world, zero] : cases) {  // each from step 8, which the first wrote
    if (HasFailure()) return;
    run("resume", world, folder / "run", zero);
    if (HasFailure()) return;
    expect_close(test::checkpoint_of(folder / "run", 20), alone);
  }
}

STOA_PROCESS_BODY(not_finite) {
  if (asked("RANK") == "1") test::toy_hooks.bad_gradient_at = 6;
  test::start(asked("STOA_TEST_RUN"), recipe("2"));
}

TEST(Zero, StopsOnAllWhereOneGradientIsNotFinite) {
  const TempDir folder;
  for (const auto& end :
       run_processes("not_finite", 3, {.environment = {{"STOA_TEST_RUN", folder / "run"}}})) {
    EXPECT_EQ(end.code, 1);
    EXPECT_NE(end.output.find("step 7: the norm of the gradients, that of `out.bias` first, is nan"),
              std::string::npos)
        << end.output;
    EXPECT_NE(end.output.find("step-4"), std::string::npos) << end.output;
  }
}

/// The weights too, and so are their averages; the first wrote what all go on from.
TEST(Zero, GoesOnWhereWeightsWereSharedOut) {
  const TempDir folder;
  test::start(folder / "one", recipe());
  const auto alone = test::checkpoint_of(folder / "one", 20);
  run("train", 3, folder / "run", "3");
  const std::pair<int, const char*> cases[] = {{2, "3"}, {1, "0"}, {2, "2"}};
  for (const auto& [world, zero] : cases) {
    if (HasFailure()) return;
    run("resume", world, folder / "run", zero);
    if (HasFailure()) return;
    expect_close(test::checkpoint_of(folder / "run", 20), alone);
  }
}

STOA_PROCESS_BODY(unequal_passes) {
  auto set = recipe("3");
  set.push_back("train.micro_batch_size=2");
  const auto message = test::thrown<ConfigError>([&] { test::start(asked("STOA_TEST_RUN"), set); });
  STOA_EXPECT_CONTAINS(message, "`train.micro_batch_size` = 2 they would make unequal numbers of passes");
  STOA_EXPECT_CONTAINS(message, "`parallel.zero` = 3");
}

TEST(Zero, SaysWhatDoesNotGo) {
  const TempDir folder;
  run("unequal_passes", 3, folder / "run", "3");
}

}  // namespace
}  // namespace stoa
