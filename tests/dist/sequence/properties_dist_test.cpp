#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <cmath>
#include <memory>
#include <optional>

#include "dist/sequence/sequence_cases.h"
#include "stoa/dist/errors.h"
#include "support/processes.h"
#include "support/thrown.h"

// What must hold of attention over ranks whatever computes it, and what the published code got wrong
// (sequence-parallelism.md 6 and 7). Its nine defects, and the tests that fail on each:
//   1 gradients divided by N              GradientsAreSumsOverTheRanksNotMeans
//   2 scores scaled by heads x head_dim   ScoresAreScaledByTheWidthOfAHead
//   3 gradients summed across stages      Mesh.GradientsAreSummedWithinAStage
//   4 a head that one rank has: hangs     GradientBuckets.CountAMissingGradientAsZero
//   5 means of chunks' means, NaN         SequenceGradients.OfChunksWithoutATargetAreThoseOfOneProcess
//   6 one dropout mask for all, of        SequenceGradients.AreThoseOfOneProcessForEveryMethodAndOrder,
//     embeddings and hidden states        DataParallel.TrainsAsOneProcessDoes; of probabilities, which the
//                                         code seeds by rank, ChunksHeadsAndSeedsAllHaveDropoutOfTheirOwn
//   7 a new buffer each step, no overlap  TheRingUsesAsManyBuffersWhateverItsLength, SequenceOverlap
//   8 order of messages by global rank    WorksInGroupsThatArePartsOfTheWorld
//   9 rings of rings mixed up, overflow   SequenceAttention.CrossesRingsThatAreNotAsManyAsTheirRanks,
//                                         ScoresOfChunksMayBeTenThousandApart
namespace stoa::test {
namespace {

/// softmax(q k^T / sqrt(head_dim)) v written out, for one sample without masks.
at::Tensor by_hand(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const auto scores = at::einsum("bqha,bkha->bhqk", {q, k}) / std::sqrt(static_cast<double>(q.size(3)));
  return at::einsum("bhqk,bkha->bqha", {scores.softmax(3), v});
}

STOA_PROCESS_TEST(SequenceProperties, GradientsAreSumsOverTheRanksNotMeans, 4) {
  // the published backward divides dQ, dK and dV by N: nothing but a comparison of gradients shows it
  const auto joined = World::join(read_place());
  const Sequences whole(1, 4 * 6, 4, 4, 8);
  const auto exact = differentiated(whole.q, whole.k, whole.v, whole.grad, by_hand);
  for (const auto& options : every_method(4, 4)) {
    const auto outcome = found(whole, joined->all(), options);
    for (const auto& [a, b] : {std::pair{outcome.q, exact.q}, {outcome.k, exact.k}, {outcome.v, exact.v}})
      EXPECT_NEAR(a.norm().item<double>() / b.norm().item<double>(), 1, 1e-12) << text_of(options);
  }
}

STOA_PROCESS_TEST(SequenceProperties, ScoresAreScaledByTheWidthOfAHead, 3) {
  // the published code divides by the root of heads x head_dim
  const auto joined = World::join(read_place());
  const Sequences whole(1, 3 * 4, 6, 6, 4);
  const auto exact = differentiated(whole.q, whole.k, whole.v, whole.grad, by_hand);
  for (auto options : every_method(3, 6)) {
    EXPECT_LT(difference(found(whole, joined->all(), options), exact), 1e-12) << text_of(options);
    options.scale = 1 / std::sqrt(24.0);
    EXPECT_GT(difference(found(whole, joined->all(), options), exact), 0.01) << text_of(options);
  }
}

/// Which probabilities of a sequence are kept, [1, heads, L, L]: with equal keys and one-hot values they are
/// the output.
at::Tensor kept_probabilities(Group& group, const SequenceAttentionOptions& options, std::int64_t length,
                              std::int64_t heads) {
  const auto values =
      at::eye(length, at::kFloat).view({1, length, 1, length}).expand({1, length, heads, length});
  const auto chunk = [&](const at::Tensor& x) {
    return chunk_of(x, 1, options.order, group.size(), group.rank());
  };
  const auto zeros = at::zeros({1, length, heads, length});
  const auto out = sequence_attention(chunk(zeros), chunk(zeros), chunk(values), group, options);
  return gather_tokens(out, 1, options.order, group).transpose(1, 2).ne(0);
}

STOA_PROCESS_TEST(SequenceProperties, TheSameProbabilitiesAreDroppedByAnyMethodOrderAndNumberOfRanks, 2, 4) {
  const auto joined = World::join(read_place());
  Group alone("alone", {0}, 0, nullptr);
  constexpr std::int64_t kLength = 48, kHeads = 4;
  SequenceAttentionOptions one;
  one.dropout = {0.4, 9, 2, 1};
  const auto wanted_kept = kept_probabilities(alone, one, kLength, kHeads);
  EXPECT_NEAR(wanted_kept.to(at::kDouble).mean().item<double>(), 0.6, 0.03);
  for (auto options : every_method(joined->size(), kHeads))
    for (const auto order : kOrders) {
      options.order = order;
      options.dropout = one.dropout;
      EXPECT_TRUE(kept_probabilities(joined->all(), options, kLength, kHeads).equal(wanted_kept))
          << text_of(options);
    }
}

STOA_PROCESS_TEST(SequenceProperties, ChunksHeadsAndSeedsAllHaveDropoutOfTheirOwn, 4) {
  // as the published code's probabilities do, but not its embeddings and hidden states
  const auto joined = World::join(read_place());
  constexpr std::int64_t kLength = 4 * 12, kHeads = 4, kPairs = 12 * kLength;
  for (auto options : every_method(4, kHeads)) {
    options.dropout = {0.5, 9, 0, 0};
    const auto kept = kept_probabilities(joined->all(), options, kLength, kHeads);
    const auto rows = kept.view({kHeads, 4, 12, kLength});  // of each rank's queries
    for (int rank = 1; rank < 4; ++rank) {
      const auto equal = rows.select(1, 0).eq(rows.select(1, rank)).sum().item<double>();
      EXPECT_NEAR(equal / (kHeads * kPairs), 0.5, 0.05) << text_of(options);
      // nor by place within a chunk of keys
      const auto same_place = kept.view({kHeads, 4, 12, 4, 12});
      const auto alike =
          same_place.select(1, 0).select(2, 0).eq(same_place.select(1, rank).select(2, rank)).to(at::kDouble);
      EXPECT_NEAR(alike.mean().item<double>(), 0.5, 0.1) << text_of(options);
    }
    EXPECT_NEAR(rows[0].eq(rows[1]).to(at::kDouble).mean().item<double>(), 0.5, 0.05) << text_of(options);
    options.dropout.seed = 10;
    const auto other = kept_probabilities(joined->all(), options, kLength, kHeads);
    EXPECT_NEAR(other.eq(kept).to(at::kDouble).mean().item<double>(), 0.5, 0.05) << text_of(options);
  }
}

STOA_PROCESS_TEST(SequenceProperties, ScoresOfChunksMayBeTenThousandApart, 3) {
  // merges by log(1 + exp(b - a)) overflow beyond 88
  const auto joined = World::join(read_place());
  for (const double far : {1e4, -1e4}) {
    Sequences whole(1, 3 * 6, 3, 3, 8, at::kFloat);
    whole.q.fill_(1);
    whole.k.mul_(0.1F);
    whole.k.narrow(1, 6, 6).add_(far /
                                 std::sqrt(8.0));  // the second rank's keys score `far` above the others
    Sequences exact = whole;
    for (auto* x : {&exact.q, &exact.k, &exact.v, &exact.grad}) *x = x->to(at::kDouble);
    const auto one = differentiated(exact.q, exact.k, exact.v, exact.grad, by_hand);
    for (const auto& options : every_method(3, 3)) {
      const auto outcome = found(whole, joined->all(), options);
      EXPECT_LT(difference(outcome.out, one.out), 2e-2) << text_of(options) << " at " << far;
      for (const auto& x : {outcome.q, outcome.k, outcome.v})
        EXPECT_TRUE(x.isfinite().all().item<bool>()) << text_of(options) << " at " << far;
    }
  }
}

STOA_PROCESS_TEST(SequenceProperties, WholeChunksOfPaddingAndFirstBlocksThatAreHiddenLeaveNoTrace, 4) {
  const auto joined = World::join(read_place());
  const Sequences whole(2, 4 * 6, 4, 4, 8);
  for (auto options : every_method(4, 4))
    for (const std::int64_t first_hidden : {0, 18}) {  // the first rank's keys, or the last one's
      options.valid = at::ones({2, 24}, at::kBool);
      options.valid.narrow(1, first_hidden, 6).fill_(false);
      const auto outcome = found(whole, joined->all(), options);
      EXPECT_LT(difference(outcome, wanted(whole, options)), 1e-12) << text_of(options);
      EXPECT_EQ(outcome.k.narrow(1, first_hidden, 6).abs().max().item<double>(), 0) << text_of(options);
    }
}

STOA_PROCESS_TEST(SequenceProperties, TokensThatSeeNothingGiveZeros, 4) {
  const auto joined = World::join(read_place());
  const Sequences whole(2, 4 * 4, 4, 2, 8);
  for (auto options : every_method(4, 4)) {
    options.valid = at::zeros({2, 16}, at::kBool);
    options.valid[0].fill_(true);
    const auto outcome = found(whole, joined->all(), options);
    for (const auto& x : {outcome.out, outcome.q, outcome.k, outcome.v}) {
      EXPECT_EQ(x[1].abs().max().item<double>(), 0) << text_of(options);
      EXPECT_GT(x[0].abs().max().item<double>(), 0) << text_of(options);
    }
  }
}

STOA_PROCESS_TEST(SequenceProperties, GradientsOfValuesSumToThoseOfTheOutput, 3, 5) {
  const auto joined = World::join(read_place());
  const int ranks = joined->size();
  const Sequences whole(2, 7 * ranks, ranks, ranks, 4);
  for (const auto& options : every_method(ranks, ranks)) {
    const auto outcome = found(whole, joined->all(), options);
    EXPECT_LT(difference(outcome.v.sum(1), whole.grad.sum(1)), 1e-12) << text_of(options);
  }
}

STOA_PROCESS_TEST(SequenceProperties, AVectorAddedToAllKeysChangesNothing, 3) {
  const auto joined = World::join(read_place());
  const Sequences whole(2, 3 * 5, 3, 3, 4);
  Sequences shifted = whole;
  shifted.k = whole.k + at::arange(4, at::kDouble);
  for (const auto& options : every_method(3, 3))
    EXPECT_LT(difference(found(shifted, joined->all(), options), found(whole, joined->all(), options)), 1e-12)
        << text_of(options);
}

STOA_PROCESS_TEST(SequenceProperties, ChunksDealtToOtherRanksGiveTheirOutputsThere, 4) {
  const auto joined = World::join(read_place());
  Group& group = joined->all();
  const Sequences whole(1, 4 * 5, 4, 4, 8);
  const auto exact = by_hand(whole.q, whole.k, whole.v);
  const int other = std::vector{2, 0, 3, 1}[static_cast<std::size_t>(group.rank())];
  const auto chunk = [&](const at::Tensor& x) { return x.narrow(1, other * 5, 5); };
  for (const auto& options : every_method(4, 4))
    EXPECT_LT(difference(sequence_attention(chunk(whole.q), chunk(whole.k), chunk(whole.v), group, options),
                         chunk(exact)),
              1e-12)
        << text_of(options);
}

STOA_PROCESS_TEST(SequenceProperties, WorksInGroupsThatArePartsOfTheWorld, 5) {
  const auto joined = World::join(read_place());
  const auto even = joined->make_group("even", {4, 0, 2}), odd = joined->make_group("odd", {1, 3});
  Group& group = even ? *even : *odd;
  const Sequences whole(1, 12, 6, 2, 4);
  for (auto options : every_method(group.size(), 6)) {
    options.causal = true;
    options.order = TokenOrder::kZigzag;
    EXPECT_LT(difference(found(whole, group, options), wanted(whole, options)), 1e-12) << text_of(options);
  }
}

/// Counts tensors of some size or more that this thread allocates.
struct Allocations final : c10::MemoryReportingInfoBase {
  explicit Allocations(std::int64_t size) : least(size) {}
  void reportMemoryUsage(void*, std::int64_t size, std::size_t, std::size_t, c10::Device) override {
    count += size >= least ? 1 : 0;
  }
  bool memoryProfilingEnabled() const override { return true; }
  std::int64_t least;
  int count = 0;
};

int buffers_of_a_pass(Group& group) {
  constexpr std::int64_t kChunk = 256;
  const Sequences whole(1, group.size() * kChunk, 2, 2, 16, at::kFloat);
  const auto chunk = [&](const at::Tensor& x) {
    return x.narrow(1, group.rank() * kChunk, kChunk).contiguous().requires_grad_();
  };
  const auto q = chunk(whole.q), k = chunk(whole.k), v = chunk(whole.v), grad = chunk(whole.grad).detach();
  const auto counted = std::make_shared<Allocations>(2 * k.numel() * 4);  // keys and values travel together
  const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, counted);
  sequence_attention(q, k, v, group, {}).backward(grad);
  return counted->count;
}

STOA_PROCESS_TEST(SequenceProperties, TheRingUsesAsManyBuffersWhateverItsLength, 5) {
  const auto joined = World::join(read_place());
  const auto three = joined->make_group("three", {0, 1, 2}), two = joined->make_group("two", {3, 4});
  const int of_five = buffers_of_a_pass(joined->all());
  EXPECT_GT(of_five, 0);
  EXPECT_EQ(buffers_of_a_pass(three ? *three : *two), of_five);
}

STOA_PROCESS_BODY(one_leaves) {
  WorldOptions patience;
  patience.timeout_s = 20;
  const auto joined = World::join(read_place(), patience);
  const Sequences chunk(1, 8, 3, 3, 8);
  const auto q = chunk.q.clone().requires_grad_();
  SequenceAttentionOptions options;
  options.method = std::string(std::getenv("STOA_TEST_METHOD")) == "ring" ? SequenceMethod::kRing
                                                                          : SequenceMethod::kUlysses;
  const auto out = sequence_attention(q, chunk.k, chunk.v, joined->all(), options);
  meet();
  if (joined->rank() == 1) exit_silently(7);
  const auto message = thrown<DistributedError>([&] { out.backward(chunk.grad); });
  STOA_EXPECT_CONTAINS(message, format("rank {}: ", joined->rank()));
  STOA_EXPECT_CONTAINS(message, "in group `world` failed: connection closed by peer");
}

TEST(SequenceProperties, ARankThatLeavesIsADistributedErrorInTheBackwardPass) {
  for (const char* method : {"ring", "ulysses"}) {
    const auto ranks = run_processes("one_leaves", 3, {.environment = {{"STOA_TEST_METHOD", method}}});
    EXPECT_EQ(ranks[0].code, 0) << ranks[0].output;
    EXPECT_EQ(ranks[1].code, 7) << ranks[1].output;
    EXPECT_EQ(ranks[2].code, 0) << ranks[2].output;
  }
}

}  // namespace
}  // namespace stoa::test
