// The blockwise form of the mixture in single precision, held to the plain reference in double.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include "stoa/ops/gemm.h"
#include "stoa/ops/keep_packed.h"
#include "stoa/ops/linear.h"
#include "stoa/ops/mixture.h"
#include "stoa/ops/simd.h"

namespace stoa::ops {
namespace {

struct Case {
  std::int64_t tokens, experts, k, dim, hidden, out;
  Activation activation = Activation::kGeluTanh, output = Activation::kNone;
  bool masks = false;
  std::int64_t used = 0;  ///< only the first of the experts get tokens; 0 is all
};

void PrintTo(const Case& c, std::ostream* to) {
  *to << c.tokens << " tokens, " << c.k << " of " << c.experts << ", " << c.dim << " -> " << c.hidden
      << " -> " << c.out;
}

struct Result {
  at::Tensor y;
  std::vector<at::Tensor> gradients;
};

using Form = at::Tensor (*)(const at::Tensor&, const Assignments&, const ExpertWeights&,
                            const MixtureSettings&, const at::Tensor&, const at::Tensor&);

Result run(const Case& c, at::ScalarType type, Form form, bool differentiate = true) {
  torch::manual_seed(8);
  const auto random = [&](at::IntArrayRef shape, double scale) {
    return (at::randn(shape, at::kDouble) * scale).to(type).requires_grad_(differentiate);
  };
  const auto x = random({c.tokens, c.dim}, 1);
  const ExpertWeights w{random({c.experts, c.dim, c.hidden}, 1 / std::sqrt(static_cast<double>(c.dim))),
                        random({c.experts, c.hidden}, 1),
                        random({c.experts, c.hidden, c.out}, 1 / std::sqrt(static_cast<double>(c.hidden))),
                        random({c.experts, c.out}, 1)};
  const std::int64_t used = c.used > 0 ? c.used : c.experts;
  const auto chosen = std::get<1>(at::rand({c.tokens, used}, at::kDouble).topk(c.k, 1)).flatten();
  const auto gate = at::rand({c.tokens * c.k}, at::kDouble).to(type).requires_grad_(differentiate);
  const Assignments assignments{at::arange(c.tokens).repeat_interleave(c.k), chosen, gate};
  const auto mask = [&](std::int64_t width) {
    return c.masks ? (at::rand({c.tokens * c.k, width}, at::kDouble).gt(0.3) / 0.7).to(type) : at::Tensor();
  };
  const auto hidden_mask = mask(c.hidden), output_mask = mask(c.out);
  const auto y =
      form(x, assignments, w, {c.activation, c.output, MixtureBackend::kSorted}, hidden_mask, output_mask);
  if (!differentiate) return {y, {}};
  y.backward(at::randn({c.tokens, c.out}, at::kDouble).to(type));
  return {y.detach(), {x.grad(), gate.grad(), w.w_in.grad(), w.b_in.grad(), w.w_out.grad(), w.b_out.grad()}};
}

double difference(const at::Tensor& a, const at::Tensor& b) {
  if (b.numel() == 0) return 0;
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>() /
         std::max(1.0, b.abs().max().item<double>());
}

void expect_near(const Result& found, const Result& wanted, double tolerance) {
  ASSERT_EQ(found.gradients.size(), wanted.gradients.size());
  EXPECT_LT(difference(found.y, wanted.y), tolerance);
  for (std::size_t i = 0; i < wanted.gradients.size(); ++i)
    EXPECT_LT(difference(found.gradients[i], wanted.gradients[i]), tolerance) << "gradient " << i;
}

/// The mixture, an expert after the other, of linear layers with operands in bfloat16.
at::Tensor of_bf16_layers(const at::Tensor& x, const Assignments& a, const ExpertWeights& w,
                          const MixtureSettings& settings, const at::Tensor& hidden_mask,
                          const at::Tensor& output_mask) {
  auto sum = at::zeros({x.size(0), w.w_out.size(2)}, x.options());
  const auto masked = [](const at::Tensor& t, const at::Tensor& mask, const at::Tensor& rows) {
    return mask.defined() ? t * mask.index_select(0, rows) : t;
  };
  for (std::int64_t e = 0; e < w.w_in.size(0); ++e) {
    const auto rows = a.expert.eq(e).nonzero().squeeze(1), tokens = a.token.index_select(0, rows);
    const auto hidden = linear(x.index_select(0, tokens), w.w_in[e].t(), w.b_in[e], settings.hidden, true);
    const auto out =
        linear(masked(hidden, hidden_mask, rows), w.w_out[e].t(), w.b_out[e], settings.output, true);
    sum =
        sum.index_add(0, tokens, masked(out, output_mask, rows) * a.gate.index_select(0, rows).unsqueeze(1));
  }
  return sum;
}

at::Tensor bf16_mixture(const at::Tensor& x, const Assignments& assignments, const ExpertWeights& weights,
                        const MixtureSettings& settings, const at::Tensor& hidden_mask,
                        const at::Tensor& output_mask) {
  auto rounding = settings;
  rounding.bf16 = true;
  return mixture(x, assignments, weights, rounding, hidden_mask, output_mask);
}

class MixtureBlocks : public ::testing::TestWithParam<Case> {};

TEST_P(MixtureBlocks, EqualTheReference) {
  expect_near(run(GetParam(), at::kFloat, mixture), run(GetParam(), at::kDouble, mixture_reference), 5e-6);
}

TEST_P(MixtureBlocks, RoundOnlyTheOperandsInBfloat16) {
  if (!has_gemm_blocks(Operands::kBfloat16)) GTEST_SKIP() << "this CPU does not multiply bf16 natively";
  const auto found = run(GetParam(), at::kFloat, bf16_mixture);
  // where a number lies between two bfloat16 ones, either is right
  expect_near(found, run(GetParam(), at::kFloat, of_bf16_layers), 2e-3);
  EXPECT_GT(difference(found.y, run(GetParam(), at::kFloat, mixture).y), found.y.numel() > 3 ? 1e-4 : -1);
  EXPECT_LT(difference(run(GetParam(), at::kFloat, bf16_mixture, false).y, found.y), 1e-5);
}

TEST_P(MixtureBlocks, InferenceGivesTheSame) {
  const auto wanted = run(GetParam(), at::kDouble, mixture_reference, false);
  EXPECT_LT(difference(run(GetParam(), at::kFloat, mixture, false).y, wanted.y), 5e-6);
  const KeepPacked scope;
  const KeepPacked inner;
  EXPECT_LT(difference(run(GetParam(), at::kFloat, mixture, false).y, wanted.y), 5e-6);
}

TEST_P(MixtureBlocks, DoNotDependOnTheNumberOfThreads) {
  const auto one = run(GetParam(), at::kFloat, mixture);
  at::set_num_threads(3);
  const auto three = run(GetParam(), at::kFloat, mixture);
  const auto inferred = run(GetParam(), at::kFloat, mixture, false);
  at::set_num_threads(1);
  EXPECT_TRUE(one.y.equal(three.y));
  EXPECT_TRUE(run(GetParam(), at::kFloat, mixture, false).y.equal(inferred.y));
  for (std::size_t i = 0; i < one.gradients.size(); ++i)
    EXPECT_TRUE(one.gradients[i].equal(three.gradients[i])) << i;
}

INSTANTIATE_TEST_SUITE_P(
    All, MixtureBlocks,
    ::testing::Values(Case{1, 1, 1, 3, 5, 3}, Case{0, 4, 2, 8, 16, 8}, Case{50, 4, 2, 16, 64, 16},
                      Case{300, 4, 2, 48, 200, 48}, Case{40, 32, 2, 24, 96, 24},
                      Case{700, 3, 1, 33, 65, 17, Activation::kRelu},
                      Case{130, 4, 2, 20, 70, 20, Activation::kGeluTanh, Activation::kGeluTanh},
                      Case{130, 4, 2, 20, 70, 20, Activation::kGeluErf, Activation::kNone, true},
                      Case{90, 4, 2, 20, 600, 20, Activation::kGeluTanh, Activation::kGeluErf, true},
                      Case{64, 8, 2, 20, 30, 20, Activation::kGeluTanh, Activation::kNone, false, 2}));

TEST(MixtureBlocks, EverySimdLevelAgrees) {
  const Case c{90, 4, 2, 20, 70, 20, Activation::kGeluTanh, Activation::kRelu};
  const auto wanted = run(c, at::kDouble, mixture_reference);
  for (const auto& level : simd_levels()) {
    limit_simd(level);
    expect_near(run(c, at::kFloat, mixture), wanted, 5e-6);
  }
  limit_simd("auto");
}

TEST(MixtureBlocks, AnExpertWithoutTokensHasZeroGradients) {
  const auto result =
      run({64, 8, 2, 20, 30, 20, Activation::kGeluTanh, Activation::kNone, false, 2}, at::kFloat, mixture);
  for (std::size_t i = 2; i < 6; ++i) EXPECT_EQ(result.gradients[i].slice(0, 2).abs().max().item<float>(), 0);
}

}  // namespace
}  // namespace stoa::ops
