#include "stoa/ops/mlp.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include "stoa/base/errors.h"
#include "stoa/ops/gemm.h"
#include "stoa/ops/linear.h"
#include "stoa/tensor/runtime.h"
#include "support/thrown.h"

namespace stoa::ops {
namespace {

struct Pass {
  at::Tensor y;
  std::vector<at::Tensor> gradients;  // of x and the four weights
};

/// Output and gradients of `form` on fixed random numbers.
template <class Form>
Pass run(std::vector<std::int64_t> shape, std::int64_t hidden, at::ScalarType type, const Form& form) {
  at::manual_seed(6);
  const std::int64_t dim = shape.back(), out = dim + 3;
  const auto leaf = [&](at::IntArrayRef sizes, double scale) {
    return (at::randn(sizes, at::kDouble) * scale).to(type).requires_grad_();
  };
  const auto x = leaf(shape, 1);
  const MlpWeights w{leaf({hidden, dim}, 0.2), leaf({hidden}, 1), leaf({out, hidden}, 0.2), leaf({out}, 1)};
  const auto y = form(x, w);
  y.backward(at::randn(y.sizes(), at::kDouble).to(type));
  Pass pass{y.detach(), {}};
  for (const auto& tensor : {x, w.w_in, w.b_in, w.w_out, w.b_out}) pass.gradients.push_back(tensor.grad());
  return pass;
}

void expect_near(const Pass& found, const Pass& wanted, double tolerance) {
  const auto near = [&](const at::Tensor& a, const at::Tensor& b, std::size_t i) {
    ASSERT_EQ(a.sizes(), b.sizes());
    const double scale = std::max(1.0, b.abs().max().item<double>());
    EXPECT_LT((a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>() / scale, tolerance) << i;
  };
  near(found.y, wanted.y, 99);
  for (std::size_t i = 0; i < wanted.gradients.size(); ++i) near(found.gradients[i], wanted.gradients[i], i);
}

class Mlp : public testing::TestWithParam<Activation> {};

TEST_P(Mlp, IsItsReference) {
  const auto fused = [&](const at::Tensor& x, const MlpWeights& w) { return mlp(x, w, GetParam()); };
  const auto plain = [&](const at::Tensor& x, const MlpWeights& w) {
    return mlp_reference(x, w, GetParam());
  };
  for (const std::int64_t rows : {1, 7, 130, 4200}) {  // the last so many that both layers go block by block
    const auto wanted = run({rows, 24}, 70, at::kDouble, plain);
    expect_near(run({rows, 24}, 70, at::kFloat, fused), wanted, 2e-5);
    expect_near(run({rows, 24}, 70, at::kDouble, fused), wanted, 1e-12);
  }
  expect_near(run({3, 5, 16}, 33, at::kFloat, fused), run({3, 5, 16}, 33, at::kDouble, plain), 2e-5);
}

TEST_P(Mlp, IsTwoLinearLayersToTheBit) {
  for (const std::int64_t rows : {40, 4200}) {
    at::Tensor without_gradients;
    const auto fused = run({rows, 32}, 64, at::kFloat, [&](const at::Tensor& x, const MlpWeights& w) {
      const at::NoGradGuard no_gradients;
      without_gradients = mlp(x, w, GetParam());
      const at::AutoGradMode gradients(true);
      return mlp(x, w, GetParam());
    });
    const auto layers = run({rows, 32}, 64, at::kFloat, [&](const at::Tensor& x, const MlpWeights& w) {
      return linear(linear(x, w.w_in, w.b_in, GetParam()), w.w_out, w.b_out);
    });
    EXPECT_TRUE(at::equal(fused.y, layers.y)) << rows;
    EXPECT_TRUE(at::equal(without_gradients, layers.y)) << rows;
    for (std::size_t i = 0; i < layers.gradients.size(); ++i)
      EXPECT_TRUE(at::equal(fused.gradients[i], layers.gradients[i])) << rows << ' ' << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Activations, Mlp,
                         testing::Values(Activation::kNone, Activation::kGeluErf, Activation::kGeluTanh,
                                         Activation::kRelu));

TEST(MlpFunction, KeepsOneArrayOfHiddenUnits) {
  if (!has_gemm_blocks()) GTEST_SKIP() << "this LibTorch has no blocks for this CPU";
  const auto x = at::randn({64, 16}).requires_grad_();
  const MlpWeights w{at::randn({512, 16}).requires_grad_(), at::randn({512}).requires_grad_(),
                     at::randn({16, 512}).requires_grad_(), at::randn({16}).requires_grad_()};
  std::int64_t arrays = 0;
  const auto y = mlp(x, w, Activation::kGeluErf);
  // the graph's saved tensors: what a node keeps goes when it is released
  for (const auto& edge : y.grad_fn()->next_edges()) arrays += edge.is_valid() ? 1 : 0;
  EXPECT_EQ(arrays, 5)
      << "one node whose inputs are x and the four weights: nothing between the layers is kept "
         "by another";
}

TEST(MlpFunction, UnderAutocastRoundsAsTwoLayersDo) {
  if (!has_gemm_blocks(Operands::kBfloat16)) GTEST_SKIP() << "this CPU does not multiply bf16 natively";
  Runtime runtime;
  runtime.bf16 = true;
  const AutocastScope autocast(runtime);
  const auto fused = run({40, 32}, 64, at::kFloat, [](const at::Tensor& x, const MlpWeights& w) {
    return mlp(x, w, Activation::kGeluErf);
  });
  const auto layers = run({40, 32}, 64, at::kFloat, [](const at::Tensor& x, const MlpWeights& w) {
    return linear(linear(x, w.w_in, w.b_in, Activation::kGeluErf), w.w_out, w.b_out);
  });
  EXPECT_TRUE(at::equal(fused.y, layers.y));
  EXPECT_TRUE(at::equal(fused.gradients[3], layers.gradients[3]));
}

TEST(MlpFunction, NamesTheWeightThatDoesNotFit) {
  const MlpWeights w{at::ones({8, 4}), at::ones({8}), at::ones({4, 7}), at::ones({4})};
  STOA_EXPECT_CONTAINS(test::thrown<ShapeError>([&] {
                         mlp(at::ones({2, 4}), w, Activation::kGeluErf);
                       }),
                       "mlp: w_out");
}

}  // namespace
}  // namespace stoa::ops
