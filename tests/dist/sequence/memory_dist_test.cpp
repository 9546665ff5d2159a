// Tensors that attention over several processes really holds, beside the formulas of dist/plan_costs.h
// (sequence-parallelism.md 7): a ring's peak has no term in pairs of tokens, that of Ring Self-Attention
// falls with the ranks.
#include <memory>
#include <vector>

#include "dist/sequence/sequence_cases.h"
#include "stoa/dist/plan_costs.h"
#include "stoa/ops/gemm.h"
#include "stoa/ops/linear.h"
#include "support/processes.h"
#include "support/tensor_meter.h"

namespace stoa::test {
namespace {

/// x W_qkv, attention, times W_out, and the gradients of all three.
void pass(SequenceMethod method, const BlockShape& shape, Group& group) {
  const auto batch = static_cast<std::int64_t>(shape.batch), width = static_cast<std::int64_t>(shape.width),
             heads = static_cast<std::int64_t>(shape.heads),
             head_dim = static_cast<std::int64_t>(shape.head_dim),
             tokens = static_cast<std::int64_t>(shape.length) / group.size();
  const auto x = at::randn({batch, tokens, width}).requires_grad_();
  const auto w_qkv = (at::randn({3 * heads * head_dim, width}) * 0.04).requires_grad_();
  const auto w_out = (at::randn({width, heads * head_dim}) * 0.04).requires_grad_();
  const auto parts = ops::linear(x, w_qkv, {}).view({batch, tokens, 3, heads, head_dim}).unbind(2);
  SequenceAttentionOptions options;
  options.method = method;
  const auto mixed = sequence_attention(parts[0], parts[1], parts[2], group, options);
  const auto out = ops::linear(mixed.reshape({batch, tokens, heads * head_dim}), w_out, {});
  out.backward(at::ones_like(out));
}

/// Bytes of tensors at the peak of a forward and backward pass on this rank.
double measured(SequenceMethod method, BlockShape shape, Group& group) {
  auto& meter = TensorMeter::get();
  auto first = shape;
  first.length = 8.0 * group.size();
  pass(method, first, group);  // what a first call sets up
  meter.start();
  pass(method, shape, group);
  return meter.peak();
}

double formula(SequenceMethod method, BlockShape shape, const Group& group) {
  shape.ranks = group.size();
  return block_peak_bytes(method == SequenceMethod::kRsa ? BlockMethod::kRsa : BlockMethod::kRing, shape);
}

/// The groups of one, two and four ranks that this one is in.
struct Groups {
  std::shared_ptr<World> world = World::join(read_place());
  std::shared_ptr<Group> low = world->make_group("low", {0, 1}), high = world->make_group("high", {2, 3});
  Group alone{"alone", {0}, 0, nullptr};
  Group& two = low ? *low : *high;
  Group& four = world->all();
};

STOA_PROCESS_TEST(SequenceMemory, IsThatOfTheFormulas, 4) {
  if (!ops::has_gemm_blocks()) GTEST_SKIP() << "the formulas are of the fused operators, which need x86 here";
  Groups groups;
  // a ring's has no term in pairs of tokens: twice the length at the same chunk takes the same
  BlockShape ring{2, 512, 256, 4, 64};
  const double once = measured(SequenceMethod::kRing, ring, groups.two);
  EXPECT_NEAR(once / formula(SequenceMethod::kRing, ring, groups.two), 1, 0.1);
  ring.length = 1024;
  const double twice = measured(SequenceMethod::kRing, ring, groups.four);
  EXPECT_NEAR(twice / formula(SequenceMethod::kRing, ring, groups.four), 1, 0.1);
  EXPECT_NEAR(twice / once, 1, 0.01);
  // that of Ring Self-Attention, which is of pairs alone here, falls with the ranks
  const BlockShape rsa{1, 1024, 32, 4, 8};
  std::vector<double> peaks;
  for (auto* const group : {&groups.alone, &groups.two, &groups.four}) {
    peaks.push_back(measured(SequenceMethod::kRsa, rsa, *group));
    EXPECT_NEAR(peaks.back() / formula(SequenceMethod::kRsa, rsa, *group), 1, 0.1) << group->size();
  }
  EXPECT_NEAR(peaks[1] / peaks[0], 0.5, 0.02);
  EXPECT_NEAR(peaks[2] / peaks[0], 0.25, 0.02);
}

}  // namespace
}  // namespace stoa::test
