// Block attention on a GPU, by LibTorch's flash kernels where they apply, beside the reference in double.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/cuda.h>

#include <cmath>
#include <vector>

#include "ops/block_attention_cases.h"
#include "stoa/ops/block_attention.h"
#include "stoa/ops/flash_attention.h"

namespace stoa::ops::test {
namespace {

using Tensors = std::vector<at::Tensor>;

class FlashOnCuda : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!torch::cuda::is_available()) GTEST_SKIP() << "LibTorch sees no CUDA device";
    if (!takes(problem(at::kBFloat16), {})) GTEST_SKIP() << "LibTorch has no flash kernels for this GPU";
  }

  static Tensors problem(at::ScalarType type, std::int64_t queries = 96, std::int64_t keys = 96,
                         std::int64_t kv_heads = 2, std::int64_t head_dim = 64) {
    const AttentionProblem p{2, queries, keys, 4, kv_heads, head_dim, ""};
    auto made = p.tensors(type);
    for (auto& tensor : made) tensor = tensor.to(at::kCUDA);
    return made;
  }

  static bool takes(const Tensors& given, const BlockAttentionOptions& options) {
    const auto& q = given[0];
    const BlockSight sight(options.mask, q.size(0), q.size(1), given[1].size(1));
    const double scale = 1 / std::sqrt(static_cast<double>(q.size(3)));
    return flash_on_gpu({q, given[1], given[2], scale, options.dropout, &sight, &options.mask}).has_value();
  }

  static Tensors to_cpu(const Tensors& tensors) {
    Tensors all;
    for (const auto& tensor : tensors) all.push_back(tensor.detach().cpu().to(at::kDouble));
    return all;
  }

  /// Output, log_sum and the gradients of the output, by autograd.
  static Tensors by_autograd(const Tensors& given, const BlockAttentionOptions& options, bool reference) {
    Tensors leaves;
    for (int i = 0; i < 3; ++i) {
      const auto& x = given[static_cast<std::size_t>(i)];
      leaves.push_back((reference ? x.cpu().to(at::kDouble) : x).detach().clone().requires_grad_());
    }
    const auto block = reference ? block_attention_reference(leaves[0], leaves[1], leaves[2], options)
                                 : block_attention(leaves[0], leaves[1], leaves[2], options);
    block.out.backward(given[3].to(block.out.options()));
    return to_cpu({block.out, block.log_sum, leaves[0].grad(), leaves[1].grad(), leaves[2].grad()});
  }
};

BlockAttentionOptions causal() {
  BlockAttentionOptions options;
  options.mask.causal = true;
  return options;
}

TEST_F(FlashOnCuda, AgreesWithTheReference) {
  for (const auto& [type, tolerance] : {std::pair{at::kBFloat16, 0.03}, {at::kHalf, 0.004}})
    for (const bool is_causal : {false, true})
      for (const std::int64_t head_dim : {8, 64, 128, 192}) {
        const auto options = is_causal ? causal() : BlockAttentionOptions();
        const auto given = problem(type, 96, is_causal ? 96 : 130, 2, head_dim);
        ASSERT_TRUE(takes(given, options)) << head_dim;
        expect_close(by_autograd(given, options, false), by_autograd(given, options, true), tolerance);
      }
}

/// The last rank of a causal ring of two: its own block and the one before, folded one after the other, with
/// merged rows in the backward pass.
TEST_F(FlashOnCuda, MergesBlocks) {
  const auto given = problem(at::kBFloat16, 48, 96);
  const auto &q = given[0], &k = given[1], &v = given[2];
  auto state = no_attention(q);
  const auto floats = q.options().dtype(at::kFloat);
  const BlockGradients into{at::zeros(q.sizes(), floats), at::zeros(k.sizes(), floats),
                            at::zeros(v.sizes(), floats)};
  const auto keys = [](std::int64_t first, std::int64_t end) {
    auto options = causal();
    options.mask.query_positions = at::arange(48, 96, at::kLong);
    options.mask.key_positions = at::arange(first, end, at::kLong);
    return options;
  };
  const auto part = [](const at::Tensor& x, std::int64_t first) { return x.narrow(1, first, 48); };
  for (const std::int64_t first : {48, 0}) {
    ASSERT_TRUE(takes({q, part(k, first), part(v, first)}, keys(first, first + 48)));
    block_attention_update(state, q, part(k, first), part(v, first), keys(first, first + 48));
  }
  const auto delta = block_attention_delta(state.out, given[3]);
  for (const std::int64_t first : {48, 0})
    block_attention_backward({into.q, part(into.k, first), part(into.v, first)}, q, part(k, first),
                             part(v, first), state, given[3], delta, keys(first, first + 48));
  expect_close(to_cpu({state.out, state.log_sum, into.q, into.k, into.v}),
               by_autograd(given, keys(0, 96), true), 0.03);
}

TEST_F(FlashOnCuda, GivesTheSameToTheBitAgain) {
  const auto given = problem(at::kBFloat16, 512, 512);
  const auto once = by_autograd(given, causal(), false), again = by_autograd(given, causal(), false);
  for (std::size_t i = 0; i < once.size(); ++i) EXPECT_TRUE(once[i].equal(again[i])) << i;
}

/// By tiles: dropout, documents, padding, float, odd widths; and gradients of log_sum.
TEST_F(FlashOnCuda, LeavesTheRestToTiles) {
  const auto given = problem(at::kBFloat16);
  auto options = causal();
  options.dropout = {0.1, 5, 0, 0};
  EXPECT_FALSE(takes(given, options));
  options = {};
  options.mask.query_documents = options.mask.key_documents = at::zeros({2, 96}, at::kLong);
  EXPECT_FALSE(takes(given, options));
  EXPECT_FALSE(takes(problem(at::kFloat), {}));
  EXPECT_FALSE(takes(problem(at::kBFloat16, 96, 96, 2, 12), {}));
  const auto run = [&](bool reference) {
    Tensors leaves;
    for (int i = 0; i < 3; ++i) {
      const auto& x = given[static_cast<std::size_t>(i)];
      leaves.push_back((reference ? x.cpu().to(at::kDouble) : x).detach().clone().requires_grad_());
    }
    const auto block = reference ? block_attention_reference(leaves[0], leaves[1], leaves[2], causal())
                                 : block_attention(leaves[0], leaves[1], leaves[2], causal());
    (block.log_sum.sum() + (block.out * given[3].to(block.out.options())).sum()).backward();
    return to_cpu({leaves[0].grad(), leaves[1].grad(), leaves[2].grad()});
  };
  expect_close(run(false), run(true), 0.03);
}

}  // namespace
}  // namespace stoa::ops::test
