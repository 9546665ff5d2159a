#include "stoa/ops/mixture_int8.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include "stoa/base/errors.h"
#include "stoa/ops/int8_kernels.h"
#include "stoa/ops/simd.h"
#include "support/thrown.h"

namespace stoa::ops {
namespace {

/// Numbers as the bytes have them, in double.
at::Tensor rounded(const at::Tensor& x, int dim) {
  const auto scale = x.abs().amax(dim, true) / 127;
  return (x / scale.clamp_min(1e-30)).round() * scale;
}

/// The same sums with weights and rows rounded, in plain calls.
at::Tensor rounded_reference(const at::Tensor& x, const Assignments& a, const ExpertWeights& w,
                             const MixtureSettings& settings) {
  auto y = at::zeros({x.size(0), w.w_out.size(2)}, x.options());
  for (std::int64_t i = 0; i < a.token.numel(); ++i) {
    const auto token = a.token[i].item<std::int64_t>(), e = a.expert[i].item<std::int64_t>();
    auto h = rounded(x[token].unsqueeze(0), 1).mm(rounded(w.w_in[e], 0)) + w.b_in[e];
    h = settings.hidden == Activation::kRelu ? h.relu() : at::gelu(h, "tanh");
    const auto o = rounded(h, 1).mm(rounded(w.w_out[e], 0)) + w.b_out[e];
    y[token] += a.gate[i] * o[0];
  }
  return y;
}

struct Problem {
  at::Tensor x;
  Assignments assignments;
  ExpertWeights weights;

  Problem(std::int64_t tokens, std::int64_t experts, std::int64_t k, std::int64_t dim, std::int64_t hidden) {
    torch::manual_seed(9);
    x = at::randn({tokens, dim});
    weights = {at::randn({experts, dim, hidden}) / std::sqrt(dim), at::randn({experts, hidden}),
               at::randn({experts, hidden, dim}) / std::sqrt(hidden), at::randn({experts, dim})};
    assignments = {at::arange(tokens).repeat_interleave(k),
                   std::get<1>(at::rand({tokens, experts}).topk(k, 1)).flatten(), at::rand({tokens * k})};
  }
};

#define NEEDS_INT8 \
  if (!Int8Experts::supported()) GTEST_SKIP() << "this CPU has neither AVX512-VNNI nor AMX"

TEST(Int8Experts, EqualTheRoundedReference) {
  NEEDS_INT8;
  for (const auto& p : {Problem(1, 1, 1, 3, 5), Problem(40, 4, 2, 24, 70), Problem(150, 3, 2, 33, 130)}) {
    const MixtureSettings settings{Activation::kRelu};
    const auto found = Int8Experts(p.weights).mixture(p.x, p.assignments, settings);
    const auto wanted = rounded_reference(p.x, p.assignments, p.weights, settings);
    // a hidden unit on the border of two bytes may fall to either side
    EXPECT_LT((found - wanted).abs().mean().item<double>(), 2e-3);
    EXPECT_LT((found - wanted).abs().max().item<double>(), 0.1);
  }
}

TEST(Int8Experts, AreNearTheExactOnes) {
  NEEDS_INT8;
  const Problem p(200, 4, 2, 64, 256);
  const auto found = Int8Experts(p.weights).mixture(p.x, p.assignments, {});
  const auto exact = mixture_reference(p.x, p.assignments, p.weights, {});
  EXPECT_LT(((found - exact).square().mean() / exact.square().mean()).sqrt().item<double>(), 0.02);
}

TEST(Int8Experts, DoNotDependOnThreadsOrSimd) {
  NEEDS_INT8;
  const Problem p(150, 4, 2, 33, 130);
  const Int8Experts experts(p.weights);
  const auto one = experts.mixture(p.x, p.assignments, {});
  at::set_num_threads(3);
  EXPECT_TRUE(experts.mixture(p.x, p.assignments, {}).equal(one));
  at::set_num_threads(1);
  for (const auto& level : simd_levels()) {
    limit_simd(level);
    EXPECT_LT((experts.mixture(p.x, p.assignments, {}) - one).abs().max().item<double>(), 0.1) << level;
  }
  limit_simd("auto");
}

TEST(Int8Experts, TakeAQuarterOfTheBytes) {
  NEEDS_INT8;
  const Problem p(4, 2, 1, 64, 128);
  EXPECT_EQ(Int8Experts(p.weights).bytes(), p.weights.w_in.numel() + p.weights.w_out.numel());
}

TEST(Int8Experts, NoTokensGiveNoRows) {
  NEEDS_INT8;
  const Problem p(0, 2, 1, 8, 8);
  EXPECT_EQ(Int8Experts(p.weights).mixture(p.x, p.assignments, {}).numel(), 0);
}

TEST(Int8Experts, ANanStaysInItsToken) {
  NEEDS_INT8;
  Problem p(5, 2, 1, 8, 8);
  p.x[2][3] = std::numeric_limits<float>::quiet_NaN();
  const auto y = Int8Experts(p.weights).mixture(p.x, p.assignments, {});
  EXPECT_TRUE(y[2].isnan().all().item<bool>());
  EXPECT_FALSE(y[1].isnan().any().item<bool>());
}

TEST(RowToBytes, RoundsToTheNearestAndPads) {
  const std::vector<float> row = {1.0F, -1.27F, 0.004F, 0.006F, 0.0F};
  std::vector<std::uint8_t> bytes(8, 7);
  EXPECT_FLOAT_EQ(row_to_bytes(row.data(), 5, 8, bytes.data()), 0.01F);
  EXPECT_EQ(bytes, (std::vector<std::uint8_t>{228, 1, 128, 129, 128, 128, 128, 128}));
}

}  // namespace
}  // namespace stoa::ops
