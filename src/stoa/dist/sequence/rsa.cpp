#include <ATen/ATen.h>

#include <cmath>
#include <limits>

#include "stoa/dist/sequence/ring.h"
#include "stoa/ops/block_attention_forms.h"

// Ring Self-Attention (sequence-parallelism.md 2.1 and 2.2): keys travel round for the scores of whole rows,
// which are kept, then values for the output; backward values, then keys. Sums, not means, over the ranks,
// and scores by 1 / sqrt(head_dim), as the paper says and its code does not.
namespace stoa::dist {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// x [batch, C, heads, head_dim] -> [batch, kv_heads, heads / kv_heads * C, head_dim]
at::Tensor by_heads(const at::Tensor& x, std::int64_t kv_heads) {
  return x.to(sum_type(x)).transpose(1, 2).reshape({x.size(0), kv_heads, -1, x.size(3)});
}

/// And back.
at::Tensor as_rows(const at::Tensor& x, std::int64_t heads) {
  return x.reshape({x.size(0), heads, -1, x.size(3)}).transpose(1, 2);
}

/// What a rank's queries see of all keys, which stand in the order of the ranks.
class Rows {
 public:
  Rows(const SequenceCall& call, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v)
      : call_(call),
        q_(q),
        k_(k),
        v_(v),
        queries_(call.part(call.group.rank())),
        keys_(call.part(0, call.group.size())) {}

  std::int64_t length() const { return keys_.positions.numel(); }
  std::int64_t kv_heads() const { return k_.size(2); }
  double scale() const {
    return call_.options.scale == 0 ? 1 / std::sqrt(static_cast<double>(q_.size(3))) : call_.options.scale;
  }

  /// [batch, kv_heads, heads / kv_heads * C, L], not set.
  at::Tensor scores() const {
    return at::empty({q_.size(0), kv_heads(), q_.size(2) / kv_heads() * q_.size(1), length()},
                     q_.options().dtype(sum_type(q_)));
  }
  /// The same numbers as [batch, heads, C, L].
  at::Tensor of_heads(const at::Tensor& scores) const {
    return scores.view({q_.size(0), q_.size(2), q_.size(1), length()});
  }
  /// Columns of one rank's keys.
  at::Tensor columns(const at::Tensor& scores, int rank) const {
    return scores.narrow(3, rank * call_.chunk, call_.chunk);
  }

  /// True where a query does not see a key, [batch or 1, 1, C, L]; undefined where all see all.
  at::Tensor hidden() const {
    const auto device = q_.device();
    at::Tensor hidden;
    const auto hide = [&](const at::Tensor& more) {
      hidden = hidden.defined() ? hidden.logical_or(more) : more;
    };
    if (call_.options.causal)
      hide(keys_.positions.gt(queries_.positions.unsqueeze(1)).to(device).unsqueeze(0).unsqueeze(0));
    if (keys_.documents.defined())
      hide(queries_.documents.unsqueeze(2).ne(keys_.documents.unsqueeze(1)).to(device).unsqueeze(1));
    if (keys_.valid.defined()) hide(keys_.valid.logical_not().to(device).unsqueeze(1).unsqueeze(1));
    return hidden;
  }

  /// What dropout multiplies probabilities by, [batch, heads, C, L]; undefined without.
  at::Tensor factors() const {
    const auto& dropout = call_.options.dropout;
    if (dropout.rate == 0) return {};
    const auto block = call_.block(queries_, keys_);
    ops::BlockMask places;
    places.query_positions = queries_.positions;
    places.key_positions = keys_.positions;
    const ops::BlockSight sight(places, q_.size(0), q_.size(1), length());
    const ops::BlockCall whole{q_, k_, v_, scale(), block.dropout, &sight, &block.mask};
    return ops::dropout_factors(ops::dropout_seeds(whole), keys_.positions.to(q_.device()), dropout.rate,
                                sum_type(q_));
  }

 private:
  const SequenceCall& call_;
  const at::Tensor &q_, &k_, &v_;
  SequencePart queries_, keys_;
};

/// The sum over all ranks of what each found for this one's keys or values: partial [ranks, batch, C,
/// kv_heads, head_dim].
at::Tensor sum_over_ranks(const SequenceCall& call, const at::Tensor& partial) {
  return call.waiting([&] {
    if (!call.options.all_reduce_sums) return call.group.reduce_scatter(partial);
    call.group.all_reduce(partial);
    return partial[call.group.rank()];
  });
}

}  // namespace

Attended attend_by_rsa(const SequenceCall& call, const at::Tensor& q, const at::Tensor& k,
                       const at::Tensor& v) {
  const Ring ring(call);
  const Rows rows(call, q, k, v);
  const auto queries = by_heads(q, rows.kv_heads());
  const auto scores = rows.scores();
  ring.circulate(k.clone(at::MemoryFormat::Contiguous), [&](int owner, const at::Tensor& keys) {
    call.computing([&] {
      rows.columns(scores, owner).copy_(queries.matmul(by_heads(keys, rows.kv_heads()).transpose(2, 3)));
    });
  });
  const auto probabilities = call.computing([&] {
    scores.mul_(rows.scale());
    const auto hidden = rows.hidden();
    if (hidden.defined()) rows.of_heads(scores).masked_fill_(hidden, -kInfinity);
    auto p = scores.softmax(3);
    if (hidden.defined()) rows.of_heads(p).masked_fill_(hidden, 0);  // NaN where a row sees nothing
    return p;
  });
  const auto factors = rows.factors();
  const auto kept = factors.defined() ? probabilities * factors.view_as(probabilities) : probabilities;
  const auto out = at::zeros_like(queries);
  ring.circulate(v.clone(at::MemoryFormat::Contiguous), [&](int owner, const at::Tensor& values) {
    call.computing([&] { out.add_(rows.columns(kept, owner).matmul(by_heads(values, rows.kv_heads()))); });
  });
  return {as_rows(out, q.size(2)).contiguous(), {q, k, v, probabilities}};
}

ops::BlockGradients rsa_gradients(const SequenceCall& call, const std::vector<at::Tensor>& kept,
                                  const at::Tensor& grad_out) {
  const auto &q = kept[0], &k = kept[1], &v = kept[2], &probabilities = kept[3];
  const Ring ring(call);
  const Rows rows(call, q, k, v);
  const std::int64_t kv_heads = rows.kv_heads();
  const auto queries = by_heads(q, kv_heads), grad = by_heads(grad_out, kv_heads);
  auto factors = rows.factors();
  if (factors.defined()) factors = factors.view_as(probabilities);
  const auto used = factors.defined() ? probabilities * factors : probabilities;
  const auto grad_scores = rows.scores();  // those of the probabilities first
  auto grad_values = zero_gradients(v, {call.group.size()}),
       grad_keys = zero_gradients(k, {call.group.size()});
  ring.circulate(v.clone(at::MemoryFormat::Contiguous), [&](int owner, const at::Tensor& values) {
    call.computing([&] {
      rows.columns(grad_scores, owner).copy_(grad.matmul(by_heads(values, kv_heads).transpose(2, 3)));
      grad_values[owner].copy_(as_rows(rows.columns(used, owner).transpose(2, 3).matmul(grad), kv_heads));
    });
  });
  const auto sum_v = sum_over_ranks(call, grad_values);
  call.computing([&] {
    if (factors.defined()) grad_scores.mul_(factors);
    grad_scores.sub_((grad_scores * probabilities).sum(3, true)).mul_(probabilities).mul_(rows.scale());
  });
  const auto grad_queries = at::zeros_like(queries);
  ring.circulate(k.clone(at::MemoryFormat::Contiguous), [&](int owner, const at::Tensor& keys) {
    call.computing([&] {
      const auto columns = rows.columns(grad_scores, owner);
      grad_queries.add_(columns.matmul(by_heads(keys, kv_heads)));
      grad_keys[owner].copy_(as_rows(columns.transpose(2, 3).matmul(queries), kv_heads));
    });
  });
  return {as_rows(grad_queries, q.size(2)), sum_over_ranks(call, grad_keys), sum_v};
}

}  // namespace stoa::dist
