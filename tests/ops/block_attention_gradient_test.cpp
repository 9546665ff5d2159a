#include <gtest/gtest.h>

#include "ops/block_attention_cases.h"
#include "support/numeric_gradient.h"

namespace stoa::ops::test {
namespace {

class BlockAttentionGradient : public ::testing::TestWithParam<AttentionProblem> {};

TEST_P(BlockAttentionGradient, EqualsFiniteDifferences) {
  const auto& problem = GetParam();
  const auto options = problem.options();
  const auto given = problem.tensors(at::kDouble);
  std::vector<at::Tensor> leaves;
  for (std::size_t i = 0; i < 3; ++i) leaves.push_back(given[i].detach().requires_grad_());
  const auto loss = [&] {
    const auto block = block_attention(leaves[0], leaves[1], leaves[2], options);
    const auto seen = block.log_sum.isfinite();
    return (block.out * given[3]).sum() + block.log_sum.masked_select(seen).pow(2).sum();
  };
  EXPECT_LT(stoa::test::gradient_error(loss, leaves), 1e-8);
}

INSTANTIATE_TEST_SUITE_P(All, BlockAttentionGradient,
                         ::testing::Values(AttentionProblem{2, 5, 7, 2, 1, 3, "", 0, 1},
                                           AttentionProblem{1, 6, 6, 2, 2, 2, "causal", 0, 1},
                                           AttentionProblem{2, 9, 11, 4, 2, 3,
                                                            "causal shuffled documents padding", 0, 1},
                                           AttentionProblem{2, 9, 7, 2, 1, 3, "causal shuffled", 0.4, 1}));

}  // namespace
}  // namespace stoa::ops::test
