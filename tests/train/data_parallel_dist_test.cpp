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

/// 20 updates of batches of 8, which three processes cannot share evenly.
std::vector<std::string> recipe(std::vector<std::string> more = {}) {
  more.insert(more.end(), {"train.steps=20", "train.batch_size=8", "train.log_every=1"});
  return more;
}

/// Bodies read what to do from the environment.
std::string asked(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::vector<std::string> asked_recipe() {
  return asked("STOA_TEST_PLAIN").empty() ? recipe(everything({"checkpoint.every=4"}))
                                          : recipe({"model.dropout=0.3"});
}

STOA_PROCESS_BODY(train) {
  test::start(asked("STOA_TEST_RUN"), asked_recipe());
}

STOA_PROCESS_BODY(resume) {
  test::resume(asked("STOA_TEST_RUN"), std::stoll(asked("STOA_TEST_STEP")));
}

void run(const std::string& body, int world, const fs::path& out,
         std::map<std::string, std::string> more = {}) {
  more["STOA_TEST_RUN"] = out.string();
  test::expect_processes(body, world, {.environment = more});
}

double relative(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>() / std::max(1e-3, b.abs().max().item<double>());
}

void expect_close(const std::map<std::string, at::Tensor>& a, const std::map<std::string, at::Tensor>& b,
                  bool buffers) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, tensor] : a) {
    if (!buffers && name == "mean") continue;
    EXPECT_LT(relative(tensor, b.at(name)), 1e-11) << name;
  }
}

/// Logs of two runs, numbers up to rounding.
void expect_same_log(const fs::path& a, const fs::path& b) {
  const auto one = test::timeless_log(a), other = test::timeless_log(b);
  ASSERT_EQ(one.size(), other.size());
  for (std::size_t i = 0; i < one.size(); ++i)
    for (const auto& [name, value] : one[i].items()) {
      if (!value.is_number()) continue;
      EXPECT_NEAR(value.get<double>(), other[i].at(name).get<double>(),
                  1e-11 * (1 + std::abs(value.get<double>())))
          << "line " << i << ", " << name;
    }
}

TEST(DataParallel, TrainsAsOneProcessDoes) {
  const TempDir folder;
  test::start(folder / "one", recipe(everything()));
  const auto alone = test::checkpoint_of(folder / "one", 20);
  for (const int world : {2, 3}) {
    const fs::path many = folder / std::to_string(world);
    run("train", world, many);
    if (HasFailure()) return;
    const auto together = test::checkpoint_of(many, 20);
    expect_close(together.model, alone.model, /*buffers=*/false);
    expect_close(together.average, alone.average, /*buffers=*/false);
    expect_close(together.optimizer, alone.optimizer, false);
    expect_same_log(many, folder / "one");
  }
}

TEST(DataParallel, AveragesWhatLayersKeepOfBatches) {
  const TempDir folder;
  test::start(folder / "one", recipe({"model.dropout=0.3"}));
  run("train", 3, folder / "many", {{"STOA_TEST_PLAIN", "1"}});
  expect_close(test::checkpoint_of(folder / "many", 20).model, test::checkpoint_of(folder / "one", 20).model,
               /*buffers=*/true);
}

TEST(DataParallel, GoesOnWithAnotherNumberOfProcesses) {
  const TempDir folder;
  test::start(folder / "one", recipe(everything()));
  const auto alone = test::checkpoint_of(folder / "one", 20);
  run("train", 3, folder / "many");
  for (const int world : {2, 1}) {
    run("resume", world, folder / "many", {{"STOA_TEST_STEP", "8"}});
    if (HasFailure()) return;
    expect_close(test::checkpoint_of(folder / "many", 20).model, alone.model, false);
  }
}

STOA_PROCESS_BODY(disagree) {
  const auto steps = asked("RANK") == "2" ? "train.steps=19" : "train.steps=20";
  test::start(asked("STOA_TEST_RUN"), {steps, "train.batch_size=8"});
}

TEST(DataParallel, RefusesProcessesWithAnotherRecipe) {
  const TempDir folder;
  const auto ends = run_processes("disagree", 3, {.environment = {{"STOA_TEST_RUN", folder / "run"}}});
  for (const auto& end : ends) {
    EXPECT_EQ(end.code, 1);
    EXPECT_NE(end.output.find("the recipe"), std::string::npos) << end.output;
    EXPECT_NE(end.output.find("rank 2"), std::string::npos) << end.output;
  }
}

STOA_PROCESS_BODY(die) {
  test::toy_hooks.on_loss = [](std::int64_t step) {
    if (step == 11 && asked("RANK") == "1") test::exit_silently(9);
  };
  test::start(asked("STOA_TEST_RUN"), recipe(everything({"checkpoint.every=5"})));
}

TEST(DataParallel, EndsWhereAProcessDiesAndGoesOnFromTheLastCheckpoint) {
  const TempDir folder;
  const auto ends = run_processes("die", 3, {.environment = {{"STOA_TEST_RUN", folder / "many"}}});
  EXPECT_EQ(ends[1].code, 9);
  for (const int rank : {0, 2}) {
    EXPECT_EQ(ends[static_cast<std::size_t>(rank)].code, 1);
    EXPECT_NE(ends[static_cast<std::size_t>(rank)].output.find("rank " + std::to_string(rank)),
              std::string::npos)
        << ends[static_cast<std::size_t>(rank)].output;
  }
  run("resume", 3, folder / "many", {{"STOA_TEST_STEP", "10"}});
  run("train", 3, folder / "undisturbed");
  test::expect_equal(test::checkpoint_of(folder / "many", 20).model,
                     test::checkpoint_of(folder / "undisturbed", 20).model);
}

STOA_PROCESS_BODY(not_finite) {
  if (asked("RANK") == "1") test::toy_hooks.infinite_loss_at = 6;
  test::start(asked("STOA_TEST_RUN"), recipe(everything({"checkpoint.every=4"})));
}

TEST(DataParallel, StopsOnAllWhereOneLossIsNotFinite) {
  const TempDir folder;
  for (const auto& end :
       run_processes("not_finite", 2, {.environment = {{"STOA_TEST_RUN", folder / "run"}}})) {
    EXPECT_EQ(end.code, 1);
    EXPECT_NE(end.output.find("step 7: the loss is"), std::string::npos) << end.output;
    EXPECT_NE(end.output.find("step-4"), std::string::npos) << end.output;
  }
}

TEST(DataParallel, NeedsTheNumberOfProcessesThatTheRecipeNames) {
  const TempDir folder;
  const auto message =
      test::thrown<ConfigError>([&] { test::start(folder / "run", recipe({"parallel.data=4"})); });
  EXPECT_NE(message.find("stoa launch -n 4"), std::string::npos) << message;
}

}  // namespace
}  // namespace stoa
