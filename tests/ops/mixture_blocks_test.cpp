// The blockwise form of the mixture in single precision, held to the plain reference in double.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include "stoa/ops/keep_packed.h"
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

class MixtureBlocks : public ::testing::TestWithParam<Case> {};

TEST_P(MixtureBlocks, EqualTheReference) {
  expect_near(run(GetParam(), at::kFloat, mixture), run(GetParam(), at::kDouble, mixture_reference), 5e-6);
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
