// What holds the gradients of rows: cowclip.md 2.4.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "nn/embedding_problem.h"
#include "stoa/base/format.h"

namespace stoa::nn {
namespace {

/// What is left of a row's gradient `g`, summed over `count` occurrences, where its weights are `w`.
at::Tensor clipped(EmbeddingOptions options, const at::Tensor& w, const at::Tensor& g, std::int64_t count) {
  options.dim = w.numel();
  options.betas = {0, 0.999};  // the first moment is the gradient
  options.l2 = 0;
  EmbeddingTables tables({1}, options, 5);
  tables.set_weights(0, w.unsqueeze(0), at::zeros({1}));
  const auto rows = tables.lookup(at::zeros({count, 1}, at::kLong));
  (rows.embeddings * g / static_cast<double>(count)).sum().backward();
  tables.step();
  return tables.state().at("tables.rows.0")[0].narrow(0, options.dim + 1, options.dim).clone();
}

TEST(EmbeddingClip, ExamplesOfTheOriginalProgram) {
  EmbeddingOptions options;
  const auto w = at::tensor({0.03f, 0.04f}), g = at::tensor({0.3f, 0.4f});
  EXPECT_LT(largest_difference(clipped(options, w, g, 3), at::tensor({0.09f, 0.12f})), 1e-7);
  EXPECT_LT(largest_difference(clipped(options, w, g, 10), g), 1e-7);
  EXPECT_TRUE(at::equal(clipped(options, w, at::zeros({2}), 3), at::zeros({2})));
  options.clip_floor = 0.01;
  const auto zero = at::zeros({4}), unit = at::tensor({0.0f, 1.0f, 0.0f, 0.0f});
  EXPECT_LT(largest_difference(clipped(options, zero, unit, 1), 0.02 * unit), 1e-8);
  options.floor = ClipFloor::kPaper;
  EXPECT_LT(largest_difference(clipped(options, zero, unit, 1), 0.01 * unit), 1e-8);
}

TEST(EmbeddingClip, HoldsTheNormKeepsTheDirectionAndIsDoneOnce) {
  at::manual_seed(3);
  EmbeddingOptions options;
  for (int trial = 0; trial < 20; ++trial) {
    const auto w = at::randn({10}) * 0.01, g = at::randn({10}) * std::pow(10.0, trial / 4.0 - 3);
    const std::int64_t count = 1 + trial % 4;
    const double limit = static_cast<double>(count) * w.norm().item<double>();
    const auto once = clipped(options, w, g, count);
    EXPECT_LE(once.norm().item<double>(), limit * (1 + 1e-6));
    EXPECT_NEAR(at::cosine_similarity(once, g, 0).item<double>(), 1, 1e-6);
    EXPECT_LT(largest_difference(clipped(options, w, once, count), once), 1e-6 * limit);
  }
}

TEST(EmbeddingClip, ScalingTheLossScalesGradientsButNotTheLimit) {
  const auto w = at::full({10}, 0.01f), g = at::full({10}, 0.001f);
  const EmbeddingOptions options;
  EXPECT_LT(largest_difference(clipped(options, w, 5 * g, 1), 5 * g), 1e-8);
  EXPECT_LT(largest_difference(clipped(options, w, 50 * g, 1), w), 1e-8);
  EXPECT_LT(largest_difference(clipped(options, w, 5000 * g, 1), w), 1e-8);
}

/// Norms of the clipped gradients of each field's embeddings after one step with large gradients.
std::vector<double> clipped_norms(EmbeddingOptions options, const at::Tensor& ids) {
  options.betas = {0, 0.999};
  options.l2 = 0;
  EmbeddingTables tables(kSizes, options, 5);
  (tables.lookup(ids).embeddings * 1000).sum().backward();
  EXPECT_EQ(number(tables.step(), "clip_frac"), 1);
  std::vector<double> norms;
  for (std::size_t field = 0; field < kSizes.size(); ++field)
    norms.push_back(
        tables.state().at(format("tables.rows.{}", field)).narrow(1, 11, 10).norm().item<double>());
  return norms;
}

TEST(EmbeddingClip, CountsRaiseTheLimitLinearly) {
  auto options = small();
  options.betas = {0, 0.999};
  options.l2 = 0;
  std::vector<double> norms;
  for (const std::int64_t count : {1, 2, 6}) {
    EmbeddingTables tables({3}, options, 5);
    (tables.lookup(at::ones({count, 1}, at::kLong)).embeddings * 1000).sum().backward();
    tables.step();
    norms.push_back(tables.state().at("tables.rows.0")[1].narrow(0, 11, 10).norm().item<double>());
  }
  EXPECT_NEAR(norms[1], 2 * norms[0], 1e-6);
  EXPECT_NEAR(norms[2], 6 * norms[0], 1e-6);
}

TEST(EmbeddingClip, ALargeRatioIsNoClip) {
  auto options = small();
  options.clip_ratio = 1e9;
  EmbeddingTables wide(kSizes, options, 5);
  options.clip = RowClip::kNone;
  EmbeddingTables none(kSizes, options, 5);
  EXPECT_EQ(number(train(wide, 0, 30), "clip_frac"), 0);
  train(none, 0, 30);
  EXPECT_TRUE(at::equal(everything(wide), everything(none)));
}

TEST(EmbeddingClip, OtherClipsHoldTheNormsTheyName) {
  const auto ids = at::tensor({1, 2, 3, 1, 9, 3}, at::kLong).view({2, 3});
  auto options = small();
  options.clip_floor = 0.5;
  options.clip = RowClip::kGlobal;
  auto norms = clipped_norms(options, ids);
  EXPECT_NEAR(norms[0] * norms[0] + norms[1] * norms[1] + norms[2] * norms[2], 0.25, 1e-5);
  options.clip = RowClip::kField;
  for (const double norm : clipped_norms(options, ids)) EXPECT_NEAR(norm, 0.5, 1e-5);
  options.clip = RowClip::kIdConst;
  norms = clipped_norms(options, ids);
  EXPECT_NEAR(norms[0], 1, 1e-5);               // one id, twice
  EXPECT_NEAR(norms[1], std::sqrt(0.5), 1e-5);  // two ids, once each
  options.clip = RowClip::kFieldAdaptive;
  options.clip_floor = 0;
  norms = clipped_norms(options, ids);
  EmbeddingTables start(kSizes, small(), 5);
  const auto touched = start.embeddings(1).index_select(0, at::tensor({2, 9}, at::kLong));
  EXPECT_NEAR(norms[1], touched.norm().item<double>(), 1e-6);
}

TEST(EmbeddingClip, TheFloorOfThePaperHasNoRatioInIt) {
  auto options = small();
  options.clip_floor = 0.5;
  options.clip_ratio = 0.25;
  const auto ids = at::zeros({1, 3}, at::kLong);
  EXPECT_NEAR(clipped_norms(options, ids)[0], 0.0625 * std::sqrt(10.0) * 0.5, 1e-6);
  options.floor = ClipFloor::kPaper;
  EXPECT_NEAR(clipped_norms(options, ids)[0], 0.5, 1e-6);
}

}  // namespace
}  // namespace stoa::nn
