#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/dist/sequence/ring.h"

// All-to-all attention: consecutive ranks give up their tokens of most heads for all their tokens of some
// (DeepSpeed- Ulysses, arXiv 2309.14509); a ring goes across where those are not all ranks (USP, 2405.07719).
namespace stoa::dist {
namespace {

int degree_of(const SequenceCall& call) {
  return call.options.method == SequenceMethod::kUlysses ? call.group.size() : call.options.ulysses;
}

/// Exchanges between `degree` consecutive ranks, U below: h = heads / U of every token for all heads of C
/// tokens. Where ranks need the same heads of keys and values, each gets them.
class HeadExchange {
 public:
  explicit HeadExchange(const SequenceCall& call)
      : call_(call), degree_(degree_of(call)), own_heads_(call.heads / degree_) {
    // runs of own heads that share one of keys and values, as long as they can be alike on all ranks
    const std::int64_t group = call.heads / call.kv_heads, run = std::gcd(group, own_heads_);
    own_kv_heads_ = own_heads_ / run;
    if (own_kv_heads_ * degree_ != call.kv_heads)
      copies_ = at::arange(call.heads / run, at::kLong).mul_(run).floor_divide_(group);
  }

  int degree() const { return degree_; }
  std::int64_t first_head() const { return call_.group.rank() % degree_ * own_heads_; }

  /// q, k, v [batch, C, heads of all, head_dim] -> [batch, U C, heads of this rank, head_dim], in one
  /// message.
  std::vector<at::Tensor> to_heads(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) const {
    if (degree_ == 1) return {q, k, v};
    const auto shares = [&](const at::Tensor& x, std::int64_t heads) {
      return x.reshape({x.size(0), x.size(1), degree_, heads, x.size(3)});
    };
    const auto copied = [&](const at::Tensor& x) {
      return copies_.defined() ? x.index_select(2, copies_.to(x.device())) : x;
    };
    const auto all = at::cat(
        {shares(q, own_heads_), shares(copied(k), own_kv_heads_), shares(copied(v), own_kv_heads_)}, 3);
    return to_heads(all.flatten(2, 3)).split_with_sizes({own_heads_, own_kv_heads_, own_kv_heads_}, 2);
  }
  /// One of them, of which every rank gets an equal share of heads.
  at::Tensor to_heads(const at::Tensor& x) const {
    const std::int64_t batch = x.size(0), tokens = x.size(1), dim = x.size(3);
    if (degree_ == 1) return x;
    const auto shares = x.reshape({batch, tokens, degree_, -1, dim}).permute({2, 0, 1, 3, 4});
    return exchange(shares).transpose(0, 1).reshape({batch, degree_ * tokens, -1, dim});
  }

  /// [batch, U C, heads of this rank, head_dim] of several tensors -> [batch, C, heads of all, head_dim].
  std::vector<at::Tensor> to_tokens(const std::vector<at::Tensor>& parts) const {
    if (degree_ == 1) return parts;
    std::vector<std::int64_t> heads;
    for (const auto& part : parts) heads.push_back(part.size(2));
    const auto all = parts.size() == 1 ? parts[0] : at::cat(parts, 2);
    const std::int64_t batch = all.size(0), tokens = all.size(1) / degree_, dim = all.size(3);
    const auto shares = all.reshape({batch, degree_, tokens, -1, dim}).transpose(0, 1);
    const auto mixed = exchange(shares).permute({1, 2, 0, 3, 4});  // [batch, C, U, heads of a rank, head_dim]
    auto results = mixed.split_with_sizes(heads, 3);
    for (auto& result : results) result = result.flatten(2, 3);
    return results;
  }

  /// Gradients of copies of heads, added up.
  at::Tensor without_copies(const at::Tensor& grad) const {
    if (!copies_.defined()) return grad;
    const auto sums = at::zeros({grad.size(0), grad.size(1), call_.kv_heads, grad.size(3)}, grad.options());
    return sums.index_add_(2, copies_.to(grad.device()), grad);
  }
  bool copies() const { return copies_.defined(); }

 private:
  /// Part i of dimension 0 goes to the i-th of the ranks; the result has theirs in their order.
  at::Tensor exchange(const at::Tensor& shares) const {
    Group& group = call_.group;
    const auto rows = shares.contiguous();
    return call_.waiting([&] {
      if (degree_ == group.size()) return group.all_to_all(rows);
      std::vector<std::int64_t> counts(static_cast<std::size_t>(group.size()), 0);
      const auto first = counts.begin() + group.rank() / degree_ * degree_;
      std::fill(first, first + degree_, 1);
      return group.all_to_all(rows, counts, counts);
    });
  }

  const SequenceCall& call_;
  int degree_;
  std::int64_t own_heads_, own_kv_heads_ = 0;
  at::Tensor copies_;  ///< [U own_kv_heads] which head each rank gets, undefined where each goes to one
};

}  // namespace

void check_heads(const SequenceCall& call) {
  const auto method = call.options.method;
  if (method != SequenceMethod::kUlysses && method != SequenceMethod::kHybrid) return;
  const int degree = degree_of(call), ranks = call.group.size();
  const std::int64_t heads = call.heads;
  if (degree < 1 || ranks % degree != 0)
    throw ConfigError(format(
        "sequence attention by hybrid: ulysses is {}; a divisor of the {} ranks of group `{}` is needed",
        degree, ranks, call.group.name()));
  if (heads % degree == 0) return;
  const auto most = std::gcd(heads, std::int64_t{degree});
  throw ConfigError(format(
      "sequence attention by {}: {} head{} cannot be shared out to {} ranks; a multiple of {} heads is "
      "needed, or `parallel.attention` = \"ring\"{}",
      name_of(method), heads, heads == 1 ? "" : "s", degree, degree,
      most == 1 ? "" : format(", or \"hybrid\" with `parallel.ulysses` = {}", most)));
}

Attended attend_by_heads(const SequenceCall& call, const at::Tensor& q, const at::Tensor& k,
                         const at::Tensor& v) {
  const HeadExchange exchange(call);
  const auto own = exchange.to_heads(q, k, v);
  const auto state =
      ring_forward(call, Ring(call, exchange.degree()), exchange.first_head(), own[0], own[1], own[2]);
  const auto out = exchange.to_tokens({state.out.to(q.scalar_type())})[0];
  return {out, {own[0], own[1], own[2], state.out, state.log_sum}};
}

ops::BlockGradients head_gradients(const SequenceCall& call, const std::vector<at::Tensor>& kept,
                                   const at::Tensor& grad_out) {
  const HeadExchange exchange(call);
  const auto own = ring_backward(call, Ring(call, exchange.degree()), exchange.first_head(), kept,
                                 exchange.to_heads(grad_out));
  // sums of copies are made in full precision
  const auto type = exchange.copies() ? sum_type(grad_out) : grad_out.scalar_type();
  const auto all = exchange.to_tokens({own.q.to(type), own.k.to(type), own.v.to(type)});
  return {all[0], exchange.without_copies(all[1]), exchange.without_copies(all[2])};
}

}  // namespace stoa::dist
