#include "stoa/ops/flash_attention.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/SDPBackend.h>

#include <algorithm>
#include <limits>
#include <tuple>
#include <utility>

namespace stoa::ops {
namespace {

constexpr std::int64_t kUnit = 8, kWidest = 192;  // of a head; wider ones have no backward pass on some GPUs

/// Tensors of a part as the kernels read them, [batch, heads, tokens, head_dim].
struct Part {
  at::Tensor q, k, v;
  bool causal = false;
  double scale = 1;
};

struct Forward {
  at::Tensor out;      ///< as q
  at::Tensor log_sum;  ///< [batch, heads, queries] of float, or double for double
};

/// The operator itself: all that differs between GPU and CPU.
Forward call_forward(const Part& p) {
  if (p.q.is_cuda()) {
    const auto found = at::_scaled_dot_product_flash_attention(p.q, p.k, p.v, 0.0, p.causal, false, p.scale);
    return {std::get<0>(found), std::get<1>(found)};
  }
  const auto found =
      at::_scaled_dot_product_flash_attention_for_cpu(p.q, p.k, p.v, 0.0, p.causal, {}, p.scale);
  return {std::get<0>(found), std::get<1>(found)};
}

/// Their gradients of q, k and v. The seed and offset of dropout, of which there is none, are not looked at.
std::tuple<at::Tensor, at::Tensor, at::Tensor> call_backward(const Part& p, const at::Tensor& grad,
                                                             const at::Tensor& out,
                                                             const at::Tensor& log_sum) {
  if (!p.q.is_cuda())
    return at::_scaled_dot_product_flash_attention_for_cpu_backward(grad, p.q, p.k, p.v, out, log_sum, 0.0,
                                                                    p.causal, {}, p.scale);
  const auto number = p.q.options().dtype(at::kUInt64);
  return at::_scaled_dot_product_flash_attention_backward(
      grad, p.q, p.k, p.v, out, log_sum, {}, {}, p.q.size(2), p.k.size(2), 0.0, p.causal,
      at::empty({2}, number), at::empty({}, number), p.scale);
}

/// Has the kernels add in a fixed order while it lives, as a seed has to fix every result.
class Deterministic {
 public:
  explicit Deterministic(bool wanted)
      : wanted_(wanted && !at::globalContext().deterministicAlgorithms()),
        warns_(at::globalContext().deterministicAlgorithmsWarnOnly()) {
    if (wanted_) at::globalContext().setDeterministicAlgorithms(true, false);
  }
  ~Deterministic() {
    if (wanted_) at::globalContext().setDeterministicAlgorithms(false, warns_);
  }
  Deterministic(const Deterministic&) = delete;
  Deterministic& operator=(const Deterministic&) = delete;

 private:
  bool wanted_, warns_;
};

/// Has LibTorch choose between its flash kernels and plain products while it lives.
class FlashOrPlain {
 public:
  FlashOrPlain()
      : cudnn_(at::globalContext().userEnabledCuDNNSDP()),
        efficient_(at::globalContext().userEnabledMemEfficientSDP()),
        math_(at::globalContext().userEnabledMathSDP()) {
    set(false, false, true);
  }
  ~FlashOrPlain() { set(cudnn_, efficient_, math_); }
  FlashOrPlain(const FlashOrPlain&) = delete;
  FlashOrPlain& operator=(const FlashOrPlain&) = delete;

 private:
  static void set(bool cudnn, bool efficient, bool math) {
    at::globalContext().setSDPUseCuDNN(cudnn);
    at::globalContext().setSDPUseMemEfficient(efficient);
    at::globalContext().setSDPUseMath(math);
  }
  bool cudnn_, efficient_, math_;
};

/// The kernels read 16 bytes at once.
at::Tensor aligned(const at::Tensor& x) {
  const auto odd = [&](std::int64_t dim) { return x.size(dim) > 1 && x.stride(dim) % kUnit != 0; };
  const auto place = reinterpret_cast<std::uintptr_t>(x.const_data_ptr());
  const bool fits = !odd(0) && !odd(1) && !odd(2) && place % 16 == 0;
  return !x.is_cuda() || fits ? x : x.contiguous();
}

/// Rows [first, first + count) of x [batch, rows, heads, head_dim] as the kernels read them; keys and values
/// stand for as many heads as queries have.
at::Tensor part_of(const at::Tensor& x, std::int64_t first, std::int64_t count, std::int64_t group = 1) {
  const auto rows = x.narrow(1, first, count);
  return aligned(group == 1 ? rows : rows.repeat_interleave(group, 2)).transpose(1, 2);
}

/// Calls work(part, first key) for the one or two parts of the block.
template <class Work>
void for_each_part(const BlockCall& call, const FlashCut& cut, const Work& work) {
  const std::int64_t queries = call.queries() - cut.first_query;
  if (queries == 0) return;
  const auto q = part_of(call.q, cut.first_query, queries);
  const auto visit = [&](std::int64_t first, std::int64_t count, bool causal) {
    work(Part{q, part_of(call.k, first, count, call.group()), part_of(call.v, first, count, call.group()),
              causal, call.scale},
         first);
  };
  if (cut.whole_keys > 0) visit(0, cut.whole_keys, false);
  if (cut.square) visit(cut.whole_keys, queries, true);
}

/// Gradients [batch, heads, keys, head_dim] by key heads, [batch, keys, kv_heads, head_dim].
at::Tensor by_key_heads(const at::Tensor& grad, std::int64_t group, at::ScalarType type) {
  auto wide = grad.to(type);
  if (group > 1) wide = wide.unflatten(1, {-1, group}).sum(2);
  return wide.transpose(1, 2);
}

/// Whether all samples have one mask: positions and the same padding.
bool one_mask(const BlockMask& mask, const BlockSight& sight, std::int64_t batch, std::int64_t keys) {
  if (mask.query_documents.defined()) return false;
  if (!mask.key_valid.defined()) return true;
  const auto* const limits = sight.key_limits(0, 0);
  for (std::int64_t sample = 1; sample < batch; ++sample)
    if (!std::equal(limits, limits + keys, sight.key_limits(sample, 0))) return false;
  return true;
}

}  // namespace

std::optional<FlashCut> flash_cut(const BlockMask& mask, const BlockSight& sight, std::int64_t batch,
                                  std::int64_t queries, std::int64_t keys) {
  if (queries == 0 || keys == 0 || !one_mask(mask, sight, batch, keys)) return std::nullopt;
  // a query sees the keys whose limit is not above its own
  const auto *const q = sight.query_limits(0), *const k = sight.key_limits(0, 0);
  const auto lowest_key = *std::min_element(k, k + keys), highest = *std::max_element(q, q + queries);
  FlashCut cut;
  while (cut.first_query < queries && q[cut.first_query] < lowest_key) ++cut.first_query;
  if (cut.first_query == queries) return cut;
  const auto* const first = q + cut.first_query;
  const std::int64_t seeing = queries - cut.first_query;
  const auto lowest = *std::min_element(first, q + queries);
  std::int64_t visible = 0;
  while (visible < keys && k[visible] <= highest) ++visible;
  if (std::any_of(k + visible, k + keys, [&](auto limit) { return limit <= highest; })) return std::nullopt;
  const auto of_all = [&](std::int64_t count) {
    return std::all_of(k, k + count, [&](auto limit) { return limit <= lowest; });
  };
  cut.whole_keys = visible;
  if (of_all(visible)) return cut;
  cut.whole_keys = visible - seeing;
  cut.square = true;
  if (cut.whole_keys < 0 || !of_all(cut.whole_keys)) return std::nullopt;
  // each limit of a key is at or below that of its query, which is below the next key's: so both ascend
  const auto* const own = k + cut.whole_keys;
  for (std::int64_t i = 0; i < seeing; ++i)
    if (own[i] > first[i] || (i + 1 < seeing && first[i] >= own[i + 1])) return std::nullopt;
  return cut;
}

bool has_flash_kernels(const at::Tensor& q) {
  const FlashOrPlain choice;
  const auto like = q.narrow(1, 0, 1).transpose(1, 2);
  return at::_fused_sdp_choice(like, like, like) ==
         static_cast<std::int64_t>(at::SDPBackend::flash_attention);
}

std::optional<FlashCut> flash_on_gpu(const BlockCall& call) {
  const auto type = call.q.scalar_type();
  const std::int64_t width = call.head_dim();
  if (!call.q.is_cuda() || (type != at::kHalf && type != at::kBFloat16) || call.dropout.rate > 0 ||
      width % kUnit != 0 || width > kWidest || call.scale <= 0)
    return std::nullopt;
  const auto cut = flash_cut(*call.mask, *call.sight, call.batch(), call.queries(), call.keys());
  return cut && has_flash_kernels(call.q) ? cut : std::nullopt;
}

void update_by_flash(const BlockCall& call, const FlashCut& cut, const AttentionBlock& state) {
  const std::int64_t queries = call.queries() - cut.first_query;
  const auto log_sum = state.log_sum.narrow(2, cut.first_query, queries);
  const auto type = state.out.scalar_type();
  for_each_part(call, cut, [&](const Part& part, std::int64_t) {
    const auto [out, sums] = call_forward(part);
    AttentionBlock merged{state.out.narrow(1, cut.first_query, queries), log_sum.contiguous()};
    merge_attention(merged, {out.transpose(1, 2).to(type), sums.to(type).contiguous()});
    if (!log_sum.is_contiguous()) log_sum.copy_(merged.log_sum);
  });
}

void backward_by_flash(const BlockCall& call, const FlashCut& cut, const BlockRows& rows,
                       const AttentionBlock& whole, const BlockGradients& into) {
  const std::int64_t queries = call.queries() - cut.first_query;
  if (queries == 0) return;
  const auto type = call.q.scalar_type(), sums = into.q.scalar_type();
  const auto out = part_of(whole.out.to(type), cut.first_query, queries);
  const auto grad = part_of(rows.grad_out.to(type), cut.first_query, queries);
  const auto log_sum = rows.log_sum.narrow(2, cut.first_query, queries).contiguous();
  const Deterministic order(call.q.is_cuda());
  for_each_part(call, cut, [&](const Part& part, std::int64_t first) {
    const auto [grad_q, grad_k, grad_v] = call_backward(part, grad, out, log_sum);
    const std::int64_t keys = part.k.size(2);
    into.q.narrow(1, cut.first_query, queries).add_(grad_q.transpose(1, 2).to(sums));
    into.k.narrow(1, first, keys).add_(by_key_heads(grad_k, call.group(), sums));
    into.v.narrow(1, first, keys).add_(by_key_heads(grad_v, call.group(), sums));
  });
}

}  // namespace stoa::ops
