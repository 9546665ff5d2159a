// Runs of several processes of which one cannot evaluate: all end, and the run goes on from its last
// checkpoint.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "stoa/base/errors.h"
#include "stoa/dist/errors.h"
#include "stoa/systems/cow_clip/model.h"
#include "stoa/systems/text_transformer/model.h"
#include "stoa/tasks/causal_text.h"
#include "stoa/train/checkpoint.h"
#include "stoa/train/events.h"
#include "stoa/train/trainer.h"
#include "support/processes.h"
#include "support/temp_dir.h"
#include "support/text_runs.h"
#include "support/thrown.h"

namespace stoa {
namespace {

namespace fs = std::filesystem;
using Steps = std::vector<std::int64_t>;

std::string asked(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

constexpr const char* kFault = "the evaluation data cannot be read";

/// In rank 1 of those that are to fail, while the others are within their passes, or wait for it.
void fail_where_asked(const torch::nn::Module& model) {
  if (!model.is_training() && asked("STOA_TEST_FAILS") == "1" && asked("RANK") == "1")
    throw DataError(kFault);
}

class FailingText : public text_transformer::TextTransformerImpl {
 public:
  using TextTransformerImpl::forward;
  using TextTransformerImpl::TextTransformerImpl;
  TextOutput forward(const nn::PackedTokens& tokens) override {
    fail_where_asked(*this);
    return TextTransformerImpl::forward(tokens);
  }
};

class FailingClicks : public cow_clip::CowClipImpl {
 public:
  using CowClipImpl::CowClipImpl;
  at::Tensor score(const nn::EmbeddingRows& rows, const at::Tensor& numerics) override {
    fail_where_asked(*this);
    return CowClipImpl::score(rows, numerics);
  }
};

const Catalog& failing_catalog() {
  static const Catalog entries = {
      causal_text<FailingText, text_transformer::TextTransformerOptions>("text_transformer", "may fail"),
      click_through<FailingClicks, cow_clip::CowClipOptions>("cow_clip", "may fail"),
  };
  return entries;
}

/// What all recipes here share; the evaluation at step 3 fails. Waiting for time to be over would take longer
/// than the processes are given.
const std::string kSteps =
    "train.steps=6 train.eval_every=3 train.log_every=1 checkpoint.every=2 parallel.timeout=300 ";

void train(const fs::path& recipe, const fs::path& out, const std::string& set) {
  auto config = Config::from_file(recipe);
  for (const auto& assignment : test::words_of(kSteps + set)) config.set(assignment);
  run_training({.recipe = config, .out = out, .resume = {}, .resume_step = {}}, failing_catalog());
}

STOA_PROCESS_BODY(fail) {
  const auto message = test::thrown<Error>(
      [] { train(asked("STOA_TEST_RECIPE"), asked("STOA_TEST_RUN"), asked("STOA_TEST_SET")); });
  EXPECT_EQ(std::ranges::count(message, '\n'), 0) << message;
  STOA_EXPECT_CONTAINS(message, asked("RANK") == "1" ? kFault : "another rank ended");
}

STOA_PROCESS_BODY(resume) {
  run_training({.recipe = {}, .out = {}, .resume = asked("STOA_TEST_RUN"), .resume_step = {}},
               failing_catalog());
}

struct Split {
  const char* set;
  Steps checkpoints;  ///< that are there afterwards
};

void expect_that_runs_go_on(const fs::path& recipe, const fs::path& folder, const std::vector<Split>& splits,
                            const std::string& metric, const std::string& common = "") {
  train(recipe, folder / "one", common);
  const auto wanted = read_events(folder / "one").back().at(metric).get<double>();
  for (const auto& [set, checkpoints] : splits) {
    SCOPED_TRACE(set);
    const auto out = folder / set;
    const test::ProcessOptions options{.timeout_s = 100,
                                       .environment = {{"STOA_TEST_RECIPE", recipe},
                                                       {"STOA_TEST_RUN", out},
                                                       {"STOA_TEST_FAILS", "1"},
                                                       {"STOA_TEST_SET", common + " " + set}}};
    test::expect_processes("fail", 2, options);
    EXPECT_EQ(CheckpointStore(out / "checkpoints").steps(), checkpoints);
    if (testing::Test::HasFailure()) return;
    test::expect_processes("resume", 2, {.environment = {{"STOA_TEST_RUN", out}}});
    if (testing::Test::HasFailure()) return;
    EXPECT_NEAR(read_events(out).back().at(metric).get<double>(), wanted, 2e-5 * std::abs(wanted));
  }
}

/// Where each has all, rank 0 still writes the updates since the last checkpoint; where it has not, it does
/// not ask one that may be within a pass for its part.
TEST(FailedEvaluation, EndsAllAndTheRunGoesOn) {
  const test::TempDir folder;
  test::write_text(folder.path());
  expect_that_runs_go_on(folder / "causal_text.toml", folder.path(),
                         {{"parallel.data=2", {2, 3}},
                          {"parallel.zero=2", {2}},
                          {"parallel.zero=3", {2}},
                          {"parallel.tensor=2", {2}}},
                         "loss", "train.micro_batch_size=3");
}

constexpr const char* kClicks = R"(
[task]
name = "click_through"
[data]
format = "zipf"
zipf = { fields = 4, ids = 100, train_rows = 600, test_rows = 400 }
[model]
name = "cow_clip"
network = "deepfm"
hidden = [8]
[embedding]
dim = 4
[optimizer]
lr = 1e-3
[schedule]
name = "constant"
[train]
batch_size = 64
eval_batch_size = 100
[runtime]
device = "cpu"
threads = 1
precision = "fp32"
)";

TEST(FailedEvaluation, OfSplitTablesToo) {
  const test::TempDir folder;
  write_file_atomically(folder / "clicks.toml", kClicks);
  expect_that_runs_go_on(folder / "clicks.toml", folder.path(), {{"parallel.data=2", {2}}}, "logloss");
}

}  // namespace
}  // namespace stoa
