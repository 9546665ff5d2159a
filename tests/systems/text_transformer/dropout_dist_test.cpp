// Language models with dropout of attention's weights that several processes train, in types other than fp32
// and without blocks of the cache: the same weights are dropped as in one process.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>
#include <utility>

#include "stoa/ops/gemm.h"
#include "stoa/train/events.h"
#include "support/temp_dir.h"
#include "systems/text_transformer/split_runs.h"

namespace stoa {
namespace {

namespace fs = std::filesystem;
using test::TempDir;

STOA_PROCESS_BODY(train) {
  test::train_as_told();
}

STOA_PROCESS_BODY(train_in_double) {
  test::train_in_double(std::getenv("STOA_TEST_RECIPE"), std::getenv("STOA_TEST_RUN"),
                        test::words_of(std::getenv("STOA_TEST_SET")));
}

/// Forbids blocks of the cache here and in the processes that this one starts.
class WithoutBlocks {
 public:
  explicit WithoutBlocks(bool without) : without_(without) {
    if (!without) return;
    ::setenv("STOA_BLOCKS", "off", 1);
    ops::forbid_gemm_blocks(true);
  }
  ~WithoutBlocks() {
    if (!without_) return;
    ::unsetenv("STOA_BLOCKS");
    ops::forbid_gemm_blocks(false);
  }
  WithoutBlocks(const WithoutBlocks&) = delete;
  WithoutBlocks& operator=(const WithoutBlocks&) = delete;

 private:
  bool without_;
};

/// How far losses of the same steps lie from one another, by the loss: the root of the mean square.
double losses_apart(const fs::path& one, const fs::path& other) {
  const auto wanted = read_events(one), found = read_events(other);
  EXPECT_EQ(found.size(), wanted.size());
  double sum = 0, steps = 0;
  for (std::size_t i = 0; i < std::min(wanted.size(), found.size()); ++i) {
    if (!wanted[i].contains("loss")) continue;
    const auto loss = wanted[i].at("loss").get<double>();
    sum += std::pow(found[i].at("loss").get<double>() / loss - 1, 2);
    ++steps;
  }
  return std::sqrt(sum / steps);
}

struct Way {
  std::string name;
  bool blocks;
  std::string split;
};

void PrintTo(const Way& way, std::ostream* to) {
  *to << way.name;
}

class DropoutInBf16 : public testing::TestWithParam<Way> {};

// What is rounded to bf16 differs in its last digit where products have other shapes: 5e-5 to 1e-4 were seen.
// A small eps would scale up gradients that are rounding alone.
TEST_P(DropoutInBf16, IsThatOfOneProcess) {
  const TempDir folder;
  const WithoutBlocks without(!GetParam().blocks);
  const std::string common =
      "runtime.precision=bf16 model.dropout=0 model.attention_dropout=0.9 optimizer.lr=1e-2 "
      "optimizer.eps=1e-4";
  test::train_both({"", "causal_text", 2, GetParam().split, common}, folder.path());
  if (HasFailure()) return;
  EXPECT_LT(losses_apart(folder / "one", folder / "many"), 3e-4);
  test::train_text(folder / "causal_text.toml", folder / "without",
                   test::words_of(common + " model.attention_dropout=0"));
  EXPECT_GT(losses_apart(folder / "one", folder / "without"), 1e-3) << "masks make no difference";
}

INSTANTIATE_TEST_SUITE_P(Ways, DropoutInBf16,
                         testing::Values(Way{"MatricesOfTwo", true, "parallel.tensor=2"},
                                         Way{"TwoReplicas", true, "parallel.data=2"},
                                         Way{"MatricesOfTwoWithoutBlocks", false, "parallel.tensor=2"},
                                         Way{"TwoReplicasWithoutBlocks", false, "parallel.data=2"}),
                         [](const auto& info) { return info.param.name; });

TEST(DropoutWithoutBlocks, IsThatOfOneProcess) {
  const TempDir folder;
  const WithoutBlocks without(true);
  test::train_both({"", "masked_text", 4, "parallel.tensor=2"}, folder.path());
  if (!HasFailure()) test::expect_equal_runs(folder / "one", folder / "many");
}

TEST(DropoutInDouble, IsThatOfOneProcess) {
  const TempDir folder;
  test::write_text(folder.path());
  const std::string common = "optimizer.eps=1e-5";
  test::train_in_double(folder / "masked_text.toml", folder / "one", test::words_of(common));
  for (const auto& [world, split] : {std::pair{4, "parallel.tensor=2"}, {2, "parallel.sequence=2"}}) {
    test::train_many({"", "masked_text", world, split, common}, folder.path(), "train_in_double");
    if (HasFailure()) return;
    EXPECT_LT(losses_apart(folder / "one", folder / "many"), 1e-12) << split;
    fs::remove_all(folder / "many");
  }
}

}  // namespace
}  // namespace stoa
