#include "dist/sequence/sequence_cases.h"
#include "support/processes.h"

// Bytes and messages that each rank sends, counted by the group, against sequence-parallelism.md 2.4.
namespace stoa::test {
namespace {

struct Sent {
  Traffic forward, backward;
};

Sent sent(Group& group, const Sequences& chunk, const SequenceAttentionOptions& options) {
  const auto since = [&](const Traffic& before) {
    const auto now = group.traffic();
    return Traffic{now.messages - before.messages, now.bytes - before.bytes};
  };
  const auto leaf = [](const at::Tensor& x) { return x.clone().requires_grad_(); };
  auto before = group.traffic();
  const auto out = sequence_attention(leaf(chunk.q), leaf(chunk.k), leaf(chunk.v), group, options);
  const auto forward = since(before);
  before = group.traffic();
  out.backward(chunk.grad);
  return {forward, since(before)};
}

// the published example: B = 1, Z = 12, A = 64, L = 512, N = 4
constexpr std::int64_t kChunk = 128, kHeads = 12, kDim = 64, kUnit = kHeads * kChunk * kDim, kRanks = 4;

Sequences chunks(std::int64_t kv_heads = kHeads, at::ScalarType type = at::kFloat) {
  return Sequences(1, kChunk, kHeads, kv_heads, kDim, type);
}

SequenceAttentionOptions by(SequenceMethod method, int ulysses = 1) {
  SequenceAttentionOptions options;
  options.method = method;
  options.ulysses = ulysses;
  return options;
}

STOA_PROCESS_TEST(SequenceTraffic, IsWhatTheTableSays, 4) {
  const auto joined = World::join(read_place());
  Group& group = joined->all();
  {
    auto options = by(SequenceMethod::kRsa);
    const auto scattered = sent(group, chunks(), options);
    EXPECT_EQ(scattered.forward.bytes / 4, 2 * (kRanks - 1) * kUnit);
    EXPECT_EQ((scattered.forward.bytes + scattered.backward.bytes) / 4, 1'769'472);
    options.all_reduce_sums = true;
    const auto published = sent(group, chunks(), options);
    EXPECT_EQ(published.forward.bytes / 4, 2 * (kRanks - 1) * kUnit);
    EXPECT_EQ((published.forward.bytes + published.backward.bytes) / 4, 2'359'296);
  }
  {
    const auto ring = sent(group, chunks(), by(SequenceMethod::kRing));
    EXPECT_EQ(ring.forward.messages, kRanks - 1);
    EXPECT_EQ(ring.forward.bytes / 4, 2 * (kRanks - 1) * kUnit);
    EXPECT_EQ(ring.backward.messages, kRanks - 1 + kRanks);
    EXPECT_EQ((ring.forward.bytes + ring.backward.bytes) / 4, (6 * kRanks - 4) * kUnit);
  }
  {
    const auto all_to_all = sent(group, chunks(), by(SequenceMethod::kUlysses));
    EXPECT_EQ(all_to_all.forward.bytes / 4, 4 * (kRanks - 1) * kUnit / kRanks);
    EXPECT_EQ(all_to_all.backward.bytes / 4, 4 * (kRanks - 1) * kUnit / kRanks);
    EXPECT_EQ(all_to_all.forward.messages, 2 * (kRanks - 1));
  }
  {
    // halves of all that goes to a pair of ranks, and a ring of two pairs
    const auto hybrid = sent(group, chunks(), by(SequenceMethod::kHybrid, 2));
    EXPECT_EQ(hybrid.forward.bytes / 4, (4 / 2 + 2) * kUnit);
    EXPECT_EQ((hybrid.forward.bytes + hybrid.backward.bytes) / 4, (8 / 2 + 6) * kUnit);
  }
  {
    const auto gather = sent(group, chunks(), by(SequenceMethod::kGatherKv));
    EXPECT_EQ(gather.forward.bytes / 4, 2 * (kRanks - 1) * kUnit);
    EXPECT_EQ((gather.forward.bytes + gather.backward.bytes) / 4, 6 * (kRanks - 1) * kUnit);
  }
}

STOA_PROCESS_TEST(SequenceTraffic, OfARingOfTwoIsSixSinceOwnGradientsStay, 2) {
  const auto joined = World::join(read_place());
  const auto ring = sent(joined->all(), chunks(), by(SequenceMethod::kRing));
  EXPECT_EQ(ring.forward.bytes / 4, 2 * kUnit);
  EXPECT_EQ(ring.backward.messages, 2);
  EXPECT_EQ(ring.backward.bytes / 4, 4 * kUnit);
}

STOA_PROCESS_TEST(SequenceTraffic, OfARingIsThatOfTheHeadsOfKeysAlone, 4) {
  const auto joined = World::join(read_place());
  const auto ring = sent(joined->all(), chunks(2), by(SequenceMethod::kRing));
  EXPECT_EQ((ring.forward.bytes + ring.backward.bytes) / 4, (6 * kRanks - 4) * kUnit * 2 / kHeads);
}

STOA_PROCESS_TEST(SequenceTraffic, OfHalfPrecisionHasFullGradientsOnTheirWay, 4) {
  const auto joined = World::join(read_place());
  const auto ring = sent(joined->all(), chunks(kHeads, at::kBFloat16), by(SequenceMethod::kRing));
  EXPECT_EQ(ring.forward.bytes / 2, 2 * (kRanks - 1) * kUnit);
  EXPECT_EQ(ring.backward.bytes / 2, (2 * (kRanks - 1) + 2 * 2 * kRanks) * kUnit);  // fp32 counts double
}

STOA_PROCESS_TEST(SequenceTraffic, DoesNotDependOnWhatIsSeen, 4) {
  const auto joined = World::join(read_place());
  auto options = by(SequenceMethod::kRing);
  const auto all = sent(joined->all(), chunks(), options);
  options.causal = true;  // three of rank 0's four blocks are skipped
  const auto causal = sent(joined->all(), chunks(), options);
  EXPECT_EQ(causal.forward.bytes, all.forward.bytes);
  EXPECT_EQ(causal.backward.bytes, all.backward.bytes);
}

TEST(SequenceTrafficAlone, IsNone) {
  Group alone("alone", {0}, 0, nullptr);
  for (const auto method : {SequenceMethod::kRing, SequenceMethod::kRsa, SequenceMethod::kUlysses,
                            SequenceMethod::kHybrid, SequenceMethod::kGatherKv}) {
    const auto none = sent(alone, chunks(), by(method));
    EXPECT_EQ(none.forward.messages + none.backward.messages, 0) << name_of(method);
  }
}

}  // namespace
}  // namespace stoa::test
