#include "stoa/dist/sequence/linformer.h"

#include <cmath>

#include "dist/sequence/sequence_cases.h"
#include "stoa/base/errors.h"
#include "support/processes.h"
#include "support/thrown.h"

namespace stoa::test {
namespace {

struct LinformerOutcome {
  Outcome attention;
  at::Tensor e, f;  ///< gradients [K, L]
};

/// By the ranks of the group, each with its part and its columns of E and F; put together again.
LinformerOutcome found(const Sequences& whole, const at::Tensor& e, const at::Tensor& f, Group& group,
                       const LinformerOptions& options) {
  const auto chunk = [&](const at::Tensor& x, std::int64_t dim) {
    return chunk_of(x, dim, options.order, group.size(), group.rank());
  };
  const auto gather = [&](const at::Tensor& x, std::int64_t dim) {
    return gather_tokens(x, dim, options.order, group);
  };
  const auto own_e = chunk(e, 1).clone().requires_grad_(), own_f = chunk(f, 1).clone().requires_grad_();
  const auto own = differentiated(chunk(whole.q, 1), chunk(whole.k, 1), chunk(whole.v, 1),
                                  chunk(whole.grad, 1), [&](const auto& q, const auto& k, const auto& v) {
                                    return linformer_attention(q, k, v, own_e, own_f, group, options);
                                  });
  return {{gather(own.out, 1), gather(own.q, 1), gather(own.k, 1), gather(own.v, 1)},
          gather(own_e.grad(), 1),
          gather(own_f.grad(), 1)};
}

/// In one process, written out.
LinformerOutcome wanted(const Sequences& whole, const at::Tensor& e, const at::Tensor& f,
                        const at::Tensor& valid = {}) {
  const auto own_e = e.clone().requires_grad_(), own_f = f.clone().requires_grad_();
  const auto own =
      differentiated(whole.q, whole.k, whole.v, whole.grad, [&](const auto& q, const auto& k, const auto& v) {
        const auto real =
            valid.defined() ? valid.to(at::kDouble) : at::ones({q.size(0), q.size(1)}, at::kDouble);
        const auto keys = at::einsum("kl,bl,blha->bhka", {own_e, real, k});
        const auto values = at::einsum("kl,bl,blha->bhka", {own_f, real, v});
        const auto scores =
            at::einsum("bqha,bhka->bhqk", {q, keys}) / std::sqrt(static_cast<double>(q.size(3)));
        return at::einsum("bhqk,bhka->bqha", {scores.softmax(3), values});
      });
  return {own, own_e.grad(), own_f.grad()};
}

at::Tensor projection(std::int64_t rows, std::int64_t length, std::uint64_t seed) {
  torch::manual_seed(seed);
  return at::randn({rows, length}, at::kDouble) / std::sqrt(static_cast<double>(length));
}

STOA_PROCESS_TEST(Linformer, EqualsOneProcessWithTheGradientsOfItsProjections, 1, 2, 3, 4) {
  const auto joined = World::join(read_place());
  const std::int64_t length = 10 * joined->size();
  const Sequences whole(2, length, 3, 3, 8);
  const auto e = projection(7, length, 1), f = projection(7, length, 2);
  for (const auto order : kOrders)
    for (const bool padded : {false, true}) {
      LinformerOptions options;
      options.order = order;
      if (padded) options.valid = some_padding(2, length);
      const auto outcome = found(whole, e, f, joined->all(), options);
      const auto exact = wanted(whole, e, f, options.valid);
      EXPECT_LT(difference(outcome.attention, exact.attention), 1e-12) << name_of(order);
      EXPECT_LT(difference(outcome.e, exact.e), 1e-12) << name_of(order);
      EXPECT_LT(difference(outcome.f, exact.f), 1e-12) << name_of(order);
    }
}

STOA_PROCESS_TEST(Linformer, OfTheIdentityIsFullAttention, 3) {
  const auto joined = World::join(read_place());
  const Sequences whole(2, 24, 6, 2, 8);
  const auto identity = at::eye(24, at::kDouble);
  for (const auto order : kOrders) {
    LinformerOptions options;
    options.order = order;
    options.dropout = {0.3, 4, 1, 2};
    SequenceAttentionOptions full;
    full.dropout = options.dropout;
    EXPECT_LT(
        difference(found(whole, identity, identity, joined->all(), options).attention, wanted(whole, full)),
        1e-12)
        << name_of(order);
  }
}

STOA_PROCESS_TEST(Linformer, SendsOneSumEachWayWhateverTheLength, 4) {
  const auto joined = World::join(read_place());
  Group& group = joined->all();
  constexpr std::int64_t kRows = 16, kHeads = 2, kDim = 8;
  const std::int64_t elements =
      2 * 2 * 3 * (2 * 2 * kRows * kHeads * kDim) / 4;  // 2 x 2 (N-1) / N x 2 B Z K A
  for (const std::int64_t tokens : {8, 80}) {
    const Sequences chunk(2, tokens, kHeads, kHeads, kDim);
    const auto e = projection(kRows, tokens, 1).requires_grad_();
    const auto before = group.traffic();
    linformer_attention(chunk.q, chunk.k, chunk.v, e, e, group).backward(chunk.grad);
    EXPECT_EQ((group.traffic().bytes - before.bytes) / 8, elements) << tokens;
  }
}

TEST(LinformerAlone, RefusesAnotherLengthThanItsProjectionsHave) {
  Group alone("alone", {0}, 0, nullptr);
  const Sequences whole(1, 12, 2, 2, 4);
  const auto refused = [&](std::int64_t columns, std::int64_t length) {
    const auto e = projection(3, columns, 1);
    LinformerOptions options;
    options.length = length;
    return thrown<ConfigError>([&] { linformer_attention(whole.q, whole.k, whole.v, e, e, alone, options); });
  };
  STOA_EXPECT_CONTAINS(refused(10, 0), "12 tokens on 1 ranks, but E and F were made for 10");
  STOA_EXPECT_CONTAINS(refused(12, 16), "12 tokens on 1 ranks, but E and F were made for 16");
}

}  // namespace
}  // namespace stoa::test
