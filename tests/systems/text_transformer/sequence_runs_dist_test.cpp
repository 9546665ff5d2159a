// Runs whose sequences are split go on with other numbers of processes, in double.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "stoa/base/format.h"
#include "support/temp_dir.h"
#include "systems/text_transformer/split_runs.h"

namespace stoa {
namespace {

namespace fs = std::filesystem;
using test::TempDir;
using test::words_of;

constexpr std::int64_t kSteps = 8, kHalf = 4;

STOA_PROCESS_BODY(train_in_double) {
  test::train_in_double(std::getenv("STOA_TEST_RECIPE"), std::getenv("STOA_TEST_RUN"),
                        words_of(std::getenv("STOA_TEST_SET")));
}

STOA_PROCESS_BODY(resume_in_double) {
  test::resume_in_double(std::getenv("STOA_TEST_RUN"), kHalf, words_of(std::getenv("STOA_TEST_SET")));
}

/// The same run to its end in one go.
void expect_same_end(const fs::path& found, const Checkpoint& wanted) {
  const auto end = CheckpointStore(found / "checkpoints").load(kSteps);
  EXPECT_LT(test::furthest(end.model, wanted.model, 1e-3), 1e-12) << found;
  EXPECT_LT(test::furthest(end.optimizer, wanted.optimizer, 1e-3), 1e-12) << found;
  EXPECT_LT(test::furthest(end.average, wanted.average, 1e-3), 1e-12) << found;
}

/// 30 tokens, which two parts share equally and four in zigzag order do not.
TEST(SplitSequenceRuns, OfTwoGoOnWithFourAndWithOne) {
  const TempDir folder;
  test::write_text(folder.path());
  // the gradient of a key's bias is rounding alone, which a smaller eps would scale up
  const auto common = format(
      "optimizer.eps=1e-5 train.ema=0.9 train.clip_norm=0.3 train.steps={} "
      "checkpoint.every={}",
      kSteps, kHalf);
  test::train_in_double(folder / "causal_text.toml", folder / "whole", words_of(common));
  test::train_many({"", "causal_text", 2, "parallel.sequence=2 parallel.zero=1", common}, folder.path(),
                   "train_in_double");
  if (HasFailure()) return;
  const auto wanted = CheckpointStore(folder / "whole" / "checkpoints").load(kSteps);
  expect_same_end(folder / "many", wanted);
  const auto copy = [&](const char* name) {
    fs::copy(folder / "many", folder / name, fs::copy_options::recursive);
    fs::remove_all(folder / name / "checkpoints" / format("step-{}", kSteps));
    return folder / name;
  };
  const auto alone = copy("alone"), replicas = copy("replicas"), four = copy("four");
  test::resume_in_double(alone, kHalf, {});
  const auto go_on = [](const fs::path& run, const std::string& set) {
    test::expect_processes("resume_in_double", 4,
                           {.environment = {{"STOA_TEST_RUN", run}, {"STOA_TEST_SET", set}}});
  };
  go_on(replicas, "");  // two of two parts
  go_on(four, "parallel.sequence=4 parallel.order=zigzag parallel.zero=0");
  for (const auto& run : {alone, replicas, four}) expect_same_end(run, wanted);
}

}  // namespace
}  // namespace stoa
