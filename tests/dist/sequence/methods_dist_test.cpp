#include <cmath>

#include "dist/sequence/sequence_cases.h"
#include "stoa/base/errors.h"
#include "support/processes.h"
#include "support/thrown.h"

namespace stoa::test {
namespace {

struct Feature {
  bool causal, documents, padding;
  double dropout;
};

constexpr Feature kNone{false, false, false, 0}, kAll{true, true, true, 0.3};

/// Hybrids of one degree only, which another method of its own does.
bool is_plain_hybrid(const SequenceAttentionOptions& options, int ranks) {
  return options.method == SequenceMethod::kHybrid && (options.ulysses == 1 || options.ulysses == ranks);
}

/// Every method and order at each of what a call can ask for; hybrids that are another method at all of it.
void expect_equal_to_one_process(Group& group, const Sequences& whole, const std::vector<Feature>& features) {
  const std::int64_t batch = whole.q.size(0), length = whole.q.size(1), heads = whole.q.size(2);
  for (const auto& feature : features) {
    SequenceAttentionOptions asked;
    asked.causal = feature.causal;
    if (feature.documents) asked.documents = some_documents(batch, length);
    if (feature.padding) asked.valid = some_padding(batch, length);
    asked.dropout = {feature.dropout, 77, 3, 5};
    const bool all = feature.causal && feature.documents && feature.padding;
    const auto exact = wanted(whole, asked);
    for (const auto& method : every_method(group.size(), heads))
      for (const auto order : kOrders) {
        if (order == TokenOrder::kZigzag && length % (2 * group.size()) != 0) continue;
        if (is_plain_hybrid(method, group.size()) && !all) continue;
        auto options = asked;
        options.method = method.method;
        options.ulysses = method.ulysses;
        options.order = order;
        EXPECT_LT(difference(found(whole, group, options), exact), 1e-12)
            << text_of(options) << ", " << heads << " heads, " << whole.k.size(2) << " of keys";
      }
  }
}

STOA_PROCESS_TEST(SequenceAttention, EqualsOneProcessForEveryMethodOrderAndMask, 1, 2, 3, 4, 5) {
  const auto joined = World::join(read_place());
  Group& group = joined->all();
  const int ranks = group.size();
  const Feature causal{true, false, false, 0}, documents{false, true, false, 0.3},
      padding{false, false, true, 0};
  const auto features =
      ranks < 5 ? std::vector{kNone, causal, documents, padding, kAll} : std::vector{kNone, kAll};
  expect_equal_to_one_process(group, Sequences(2, 6 * ranks, 3, 3, 8),
                              features);  // heads that N need not divide
  // odd chunks, grouped keys; one token each
  expect_equal_to_one_process(group, Sequences(2, 5 * ranks, 2 * ranks, 2, 4), {kNone, kAll});
  expect_equal_to_one_process(group, Sequences(1, ranks, ranks, ranks, 4), {kAll});
}

STOA_PROCESS_TEST(SequenceAttention, SharesKeysAndValuesOutHoweverTheirHeadsFall, 4, 5) {
  const auto joined = World::join(read_place());
  Group& group = joined->all();
  const int ranks = group.size();
  // of 12 or 60 heads: fewer of keys than ranks, as many, more, and numbers that do not divide one another
  const std::int64_t heads = ranks == 4 ? 12 : 60;
  for (const std::int64_t kv_heads : {1, 2, 3, 4, 6, 12}) {
    const Sequences whole(1, 2 * ranks, heads, kv_heads, 4);
    const auto exact = wanted(whole, {});
    for (const auto& options : every_method(ranks, heads)) {
      const bool shares = options.method == SequenceMethod::kUlysses ||
                          (options.method == SequenceMethod::kHybrid && options.ulysses > 1);
      if (!shares) continue;
      EXPECT_LT(difference(found(whole, group, options), exact), 1e-12)
          << text_of(options) << ", " << kv_heads << " heads of keys";
    }
  }
}

STOA_PROCESS_TEST(SequenceAttention, CrossesRingsThatAreNotAsManyAsTheirRanks, 6) {
  // the public two-level ring exchanges the two numbers, which 4 ranks in twos do not show
  const auto joined = World::join(read_place());
  const Sequences whole(1, 6 * 4, 6, 6, 4);
  for (const int degree : {2, 3}) {
    SequenceAttentionOptions options;
    options.method = SequenceMethod::kHybrid;
    options.ulysses = degree;
    options.causal = true;
    EXPECT_LT(difference(found(whole, joined->all(), options), wanted(whole, options)), 1e-12) << degree;
  }
}

STOA_PROCESS_TEST(SequenceAttention, EqualsOneProcessInChunksOfManyTiles, 2) {
  const auto joined = World::join(read_place());
  const Sequences whole(1, 2 * 310, 2, 1, 8);
  SequenceAttentionOptions asked;
  asked.causal = true;
  asked.dropout = {0.1, 5, 0, 0};
  const auto exact = wanted(whole, asked);
  for (const auto& method : every_method(2, 2)) {
    if (is_plain_hybrid(method, 2)) continue;
    for (const auto order : kOrders) {
      auto options = asked;
      options.method = method.method;
      options.order = order;
      EXPECT_LT(difference(found(whole, joined->all(), options), exact), 1e-12) << text_of(options);
    }
  }
}

STOA_PROCESS_TEST(SequenceAttention, EqualsOneProcessInSinglePrecision, 1, 4) {
  const auto joined = World::join(read_place());
  const Sequences whole(1, 4 * 82, 4, 2, 16), single(1, 4 * 82, 4, 2, 16, at::kFloat);
  for (const bool causal : {false, true}) {
    SequenceAttentionOptions asked;
    asked.order = TokenOrder::kZigzag;
    asked.causal = causal;
    asked.dropout = {causal ? 0.1 : 0.0, 5, 0, 0};
    const auto exact = wanted(whole, asked);
    for (const auto& method : every_method(joined->size(), 4)) {
      auto options = asked;
      options.method = method.method;
      options.ulysses = method.ulysses;
      EXPECT_LT(relative_difference(found(single, joined->all(), options), exact), 2e-5) << text_of(options);
    }
  }
}

STOA_PROCESS_TEST(SequenceAttention, SumsHalfPrecisionInFloat, 3) {
  const auto joined = World::join(read_place());
  const Sequences half(1, 3 * 16, 6, 1, 16, at::kBFloat16);
  Sequences exact = half;
  for (auto* x : {&exact.q, &exact.k, &exact.v, &exact.grad}) *x = x->to(at::kDouble);
  for (const auto& options : every_method(3, 6)) {
    const auto outcome = found(half, joined->all(), options);
    EXPECT_EQ(outcome.k.scalar_type(), at::kBFloat16);
    // bf16 rounds by up to 1/512 of the largest number
    EXPECT_LT(relative_difference(outcome, wanted(exact, options)), 1.0 / 256) << text_of(options);
  }
}

STOA_PROCESS_TEST(SequenceAttention, IsTheSameToTheBitWithoutOverlap, 3) {
  const auto joined = World::join(read_place());
  const Sequences whole(1, 3 * 20, 3, 3, 8, at::kFloat);
  for (auto options : every_method(3, 3)) {
    const auto overlapped = found(whole, joined->all(), options);
    options.overlap = false;
    EXPECT_EQ(difference(found(whole, joined->all(), options), overlapped), 0) << text_of(options);
  }
}

STOA_PROCESS_TEST(SequenceAttention, RefusesWhatCannotBeSplit, 4) {
  const auto joined = World::join(read_place());
  Group& group = joined->all();
  const auto refused = [&](const Sequences& chunk, const SequenceAttentionOptions& options) {
    return thrown<ConfigError>([&] { sequence_attention(chunk.q, chunk.k, chunk.v, group, options); });
  };
  SequenceAttentionOptions options;
  options.method = SequenceMethod::kUlysses;
  EXPECT_EQ(
      refused(Sequences(1, 4, 3, 3, 2), options),
      "sequence attention by ulysses: 3 heads cannot be shared out to 4 ranks; a multiple of 4 heads is "
      "needed, or `parallel.attention` = \"ring\"");
  STOA_EXPECT_CONTAINS(refused(Sequences(1, 4, 6, 6, 2), options),
                       "or `parallel.attention` = \"ring\", or \"hybrid\" with `parallel.ulysses` = 2");
  options.method = SequenceMethod::kHybrid;
  options.ulysses = 3;
  STOA_EXPECT_CONTAINS(refused(Sequences(1, 4, 3, 3, 2), options),
                       "a divisor of the 4 ranks of group `world`");
  options.ulysses = 2;
  STOA_EXPECT_CONTAINS(refused(Sequences(1, 4, 3, 3, 2), options), "3 heads cannot be shared out to 2 ranks");
  options.method = SequenceMethod::kRing;
  options.order = TokenOrder::kZigzag;
  STOA_EXPECT_CONTAINS(refused(Sequences(1, 3, 2, 2, 2), options), "12 tokens cannot be split over 4 ranks");
}

TEST(SequenceAttentionAlone, RefusesTensorsThatDoNotFit) {
  Group alone("alone", {0}, 0, nullptr);
  const auto refused = [&](const at::Tensor& q, const at::Tensor& k,
                           const SequenceAttentionOptions& options) {
    return thrown<ShapeError>([&] { sequence_attention(q, k, k, alone, options); });
  };
  const auto q = at::zeros({2, 4, 6, 8});
  STOA_EXPECT_CONTAINS(refused(at::zeros({4, 6, 8}), q, {}), "sequence_attention: q has shape [4, 6, 8]");
  STOA_EXPECT_CONTAINS(refused(q, at::zeros({2, 3, 6, 8}), {}),
                       "sequence_attention: k has shape [2, 3, 6, 8]");
  STOA_EXPECT_CONTAINS(refused(q, at::zeros({2, 4, 4, 8}), {}), "q's heads must be a multiple of k's");
  STOA_EXPECT_CONTAINS(refused(q, q.to(at::kDouble), {}), "one floating-point type");
  SequenceAttentionOptions options;
  options.documents = at::zeros({2, 3}, at::kLong);
  STOA_EXPECT_CONTAINS(refused(q, q, options), "documents has shape [2, 3]");
  options.documents = at::Tensor();
  options.valid = at::zeros({2, 4});
  STOA_EXPECT_CONTAINS(refused(q, q, options), "Bool is needed");
  options.valid = at::Tensor();
  options.dropout.rate = 1;
  STOA_EXPECT_CONTAINS(refused(q, q, options), "dropout is 1");
}

TEST(SequenceAttentionAlone, AddsUpTheTimeItTakes) {
  Group alone("alone", {0}, 0, nullptr);
  SequenceAttentionOptions options;
  options.timings = std::make_shared<SequenceTimings>();
  const Sequences whole(1, 64, 2, 2, 8);
  found(whole, alone, options);
  const double once = options.timings->computed_s;
  EXPECT_GT(once, 0);
  found(whole, alone, options);
  EXPECT_GT(options.timings->computed_s, once);
}

}  // namespace
}  // namespace stoa::test
