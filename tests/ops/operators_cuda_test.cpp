// The operators on a GPU against their references there, forward and backward.
#include <ATen/OpMathType.h>
#include <torch/cuda.h>

#include "ops/fused_cases.h"
#include "ops/mixture_problem.h"
#include "ops/residual_norm_cases.h"
#include "stoa/ops/attention.h"
#include "stoa/ops/bias_activation.h"
#include "stoa/ops/dropout.h"
#include "stoa/ops/mixture_rows.h"

namespace stoa::ops::test {
namespace {

class OperatorsOnCuda : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!torch::cuda::is_available()) GTEST_SKIP() << "LibTorch sees no CUDA device";
  }
};

at::Tensor to_gpu(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.detach().to(at::kCUDA).requires_grad_(tensor.requires_grad()) : tensor;
}

std::vector<at::Tensor> to_cpu(std::vector<at::Tensor> tensors) {
  for (auto& tensor : tensors)
    if (tensor.defined()) tensor = tensor.detach().cpu();
  return tensors;
}

/// As results_and_gradients, with the random numbers drawn on the CPU.
std::vector<at::Tensor> gradients_and_results(const std::vector<at::Tensor>& results,
                                              const std::vector<at::Tensor>& leaves) {
  at::manual_seed(23);
  std::vector<at::Tensor> directions;
  for (const auto& result : results)
    directions.push_back(at::randn(result.sizes(), at::kDouble).to(result.options().requires_grad(false)));
  auto all = torch::autograd::grad(results, leaves, directions, {}, false, /*allow_unused=*/true);
  all.insert(all.end(), results.begin(), results.end());
  return to_cpu(all);
}

TEST_F(OperatorsOnCuda, BiasActivationAgreesWithItsReference) {
  for (const auto& [type, tolerance] :
       {std::pair{at::kFloat, 4e-6}, {at::kDouble, 1e-12}, {at::kBFloat16, 0.01}})
    for (const auto rows : kRows)
      for (const auto dim : kWidths)
        for (const auto f :
             {Activation::kNone, Activation::kGeluTanh, Activation::kGeluErf, Activation::kRelu}) {
          at::manual_seed(5);
          const auto x = to_gpu(at::randn({rows, dim}, at::kDouble).to(type).requires_grad_(true));
          const auto bias = to_gpu(at::randn({dim}, at::kDouble).to(type).requires_grad_(true));
          expect_close(gradients_and_results({bias_activation(x, bias, f)}, {x, bias}),
                       gradients_and_results({bias_activation_reference(x, bias, f)}, {x, bias}), tolerance);
          expect_close(gradients_and_results({bias_activation(x, {}, f)}, {x}),
                       gradients_and_results({bias_activation_reference(x, {}, f)}, {x}), tolerance);
        }
}

TEST_F(OperatorsOnCuda, NormsAgreeWithTheirReference) {
  const std::pair<NormTypes, double> kTypes[] = {{{at::kFloat, at::kFloat, at::kFloat}, 1e-5},
                                                 {{at::kDouble, at::kDouble, at::kDouble}, 1e-12},
                                                 {{at::kBFloat16, at::kBFloat16, at::kFloat}, 0.02},
                                                 {{at::kFloat, at::kBFloat16, at::kFloat}, 0.02}};
  for (const auto& [types, tolerance] : kTypes)
    for (const auto rows : kRows)
      for (const auto dim : kWidths)
        for (auto problem : norm_problems(rows, dim, types)) {
          SCOPED_TRACE(problem.name + ": " + std::to_string(rows) + " x " + std::to_string(dim));
          for (auto* tensor : {&problem.x, &problem.y, &problem.bias, &problem.gamma, &problem.beta,
                               &problem.scale, &problem.factor})
            *tensor = to_gpu(*tensor);
          expect_close(gradients_and_results(problem.run(), problem.leaves()),
                       gradients_and_results(problem.reference(), problem.leaves()), tolerance);
        }
}

TEST_F(OperatorsOnCuda, GradientsAreTheSameInEveryRun) {
  for (auto problem : norm_problems(700, 192, {at::kFloat, at::kFloat, at::kFloat})) {
    for (auto* tensor : {&problem.x, &problem.y, &problem.bias, &problem.gamma, &problem.beta, &problem.scale,
                         &problem.factor})
      *tensor = to_gpu(*tensor);
    const auto once = gradients_and_results(problem.run(), problem.leaves());
    expect_equal(gradients_and_results(problem.run(), problem.leaves()), once);
  }
}

TEST_F(OperatorsOnCuda, AttentionDropsOthersInOtherHeadsAndLeavesTheGenerator) {
  const auto qkv = at::cat({at::zeros({1, 64, 256}), at::eye(64).repeat({1, 1, 2})}, 2)
                       .to(at::Device(at::kCUDA), at::kBFloat16);
  const auto kept = [&](std::int64_t first_head) {
    const BatchPartScope part({0, 17});
    return attention(qkv, 2, 0.5, first_head).ne(0);
  };
  at::manual_seed(2);
  const auto next = at::rand({8}, qkv.options());
  at::manual_seed(2);
  const auto first = kept(0), second = kept(2);
  EXPECT_FALSE(first.equal(second));
  EXPECT_TRUE(first.equal(kept(0)));
  EXPECT_TRUE(at::rand({8}, qkv.options()).equal(next));
}

TEST_F(OperatorsOnCuda, DropoutDropsOthersInOtherRowsAndColumnsAndLeavesTheGenerator) {
  const auto x = at::ones({16, 64}, at::Device(at::kCUDA));
  const auto kept = [&](std::int64_t first_row, std::int64_t first_column) {
    const BatchPartScope part({0, 17});
    return dropout(x, 0.5, at::arange(first_row, first_row + 16), first_column).ne(0);
  };
  at::manual_seed(2);
  const auto next = at::rand({8}, x.options());
  at::manual_seed(2);
  const auto first = kept(0, 0);
  EXPECT_FALSE(first.equal(kept(16, 0)));
  EXPECT_FALSE(first.equal(kept(0, 64)));
  EXPECT_TRUE(first.equal(kept(0, 0)));
  EXPECT_TRUE(at::rand({8}, x.options()).equal(next));
}

TEST_F(OperatorsOnCuda, MixtureRowsAgreeWithTheirReference) {
  for (const auto& [type, tolerance] :
       {std::pair{at::kFloat, 1e-5}, {at::kDouble, 1e-12}, {at::kBFloat16, 0.01}})
    for (const auto& problem : make_problems(at::kDouble))
      for (const bool padded : {false, true}) {
        SCOPED_TRACE(problem.name);
        const auto tokens = problem.x.size(0), experts = problem.weights.w_in.size(0);
        const auto layout = lay_out_rows(to_gpu(problem.assignments.token),
                                         to_gpu(problem.assignments.expert), tokens, experts, padded);
        const auto random = [&](std::int64_t rows) {
          return to_gpu(at::randn({rows, 37}, at::kDouble).to(type));
        };
        const auto x = random(tokens), values = random(layout->rows),
                   by_assignment = random(problem.assignments.token.size(0));
        const auto gate = to_gpu(problem.assignments.gate.detach()).to(at::toOpMathType(type));
        const auto [grad_values, grad_gate] = combine_rows_backward(x, values, gate, *layout);
        const auto [plain_values, plain_gate] =
            rows_reference::combine_rows_backward(x, values, gate, *layout);
        expect_close(to_cpu({gather_tokens(x, *layout), gather_assignments(by_assignment, *layout),
                             combine_rows(values, gate, *layout), combine_rows(values, {}, *layout),
                             grad_values, grad_gate}),
                     to_cpu({rows_reference::gather_tokens(x, *layout),
                             rows_reference::gather_assignments(by_assignment, *layout),
                             rows_reference::combine_rows(values, gate, *layout),
                             rows_reference::combine_rows(values, {}, *layout), plain_values, plain_gate}),
                     tolerance);
      }
}

}  // namespace
}  // namespace stoa::ops::test
