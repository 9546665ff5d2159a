#include "stoa/ops/block_attention.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <cmath>
#include <limits>
#include <optional>
#include <tuple>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/ops/attention_kernels.h"
#include "stoa/ops/block_attention_forms.h"
#include "stoa/ops/block_sight.h"
#include "stoa/ops/flash_attention.h"
#include "stoa/ops/gemm.h"
#include "stoa/tensor/shape.h"

namespace stoa::ops {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

at::ScalarType sum_type(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

bool in_blocks(const at::Tensor& q) {
  return has_gemm_blocks() && q.is_cpu() && q.scalar_type() != at::kDouble;
}

/// The numbers of a head one beside the other; on the CPU half precision as float.
at::Tensor readable(const at::Tensor& x) {
  const auto wide = x.is_cpu() && x.scalar_type() != at::kDouble ? x.to(at::kFloat) : x;
  return wide.stride(3) == 1 || wide.size(3) == 1 ? wide : wide.contiguous();
}

void check(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
           const BlockAttentionOptions& options) {
  check_shape(q, {-1, -1, -1, -1}, "block_attention: q");
  check_shape(k, {q.size(0), -1, -1, q.size(3)}, "block_attention: k");
  check_shape(v, {q.size(0), k.size(1), k.size(2), q.size(3)}, "block_attention: v");
  if (q.size(2) < 1 || q.size(3) < 1 || k.size(2) < 1 || q.size(2) % k.size(2) != 0)
    throw ShapeError(
        format("block_attention: q has {} heads of {} and k has {}; one or more of one or more numbers are "
               "needed, of q a multiple of those of k",
               q.size(2), q.size(3), k.size(2)));
  for (const auto* x : {&k, &v})
    if (x->scalar_type() != q.scalar_type() || x->device() != q.device() || !q.is_floating_point())
      throw ShapeError(
          format("block_attention: q is of type {} on {} and a tensor beside it of type {} on {}; one "
                 "floating-point type and one device are needed",
                 c10::toString(q.scalar_type()), q.device().str(), c10::toString(x->scalar_type()),
                 x->device().str()));
  const double rate = options.dropout.rate;
  if (!(rate >= 0 && rate < 1))
    throw ShapeError(format("block_attention: dropout is {}; at least 0 and below 1 is needed", rate));
  if (!std::isfinite(options.scale))
    throw ShapeError(format("block_attention: scale is {}; a finite number is needed", options.scale));
}

void check_sums(const at::Tensor& x, const at::Tensor& q, const char* what) {
  if (x.scalar_type() != sum_type(q) || x.device() != q.device())
    throw ShapeError(format("block_attention: {} is of type {} on {}; {} on {} is needed", what,
                            c10::toString(x.scalar_type()), x.device().str(), c10::toString(sum_type(q)),
                            q.device().str()));
}

/// Something of the rows of q or k that is written to.
void check_rows(const at::Tensor& x, const at::Tensor& like, const at::Tensor& q, const char* what) {
  check_shape(x, {like.size(0), like.size(1), like.size(2), like.size(3)},
              format("block_attention: {}", what));
  check_sums(x, q, what);
  if (x.size(3) > 1 && x.stride(3) != 1)
    throw ShapeError(
        format("block_attention: the numbers of a head of {} must lie one beside the other", what));
}

void check_state(const AttentionBlock& state, const at::Tensor& q) {
  check_rows(state.out, q, q, "out");
  check_shape(state.log_sum, {q.size(0), q.size(2), q.size(1)}, "block_attention: log_sum");
  check_sums(state.log_sum, q, "log_sum");
  if (!state.log_sum.is_contiguous())
    throw ShapeError("block_attention: log_sum is not contiguous, which is needed");
}

/// A checked call with what its mask says.
struct Prepared {
  Prepared(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
           const BlockAttentionOptions& options)
      : sight(options.mask, q.size(0), q.size(1), k.size(1)),
        mask(options.mask),
        call{readable(q),
             readable(k),
             readable(v),
             options.scale == 0 ? 1 / std::sqrt(static_cast<double>(q.size(3))) : options.scale,
             options.dropout,
             &sight,
             &mask} {}
  Prepared(const Prepared&) = delete;
  Prepared& operator=(const Prepared&) = delete;

  BlockSight sight;
  BlockMask mask;
  BlockCall call;
};

void update(const AttentionBlock& state, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
            const BlockAttentionOptions& options, bool fresh) {
  const Prepared prepared(q, k, v, options);
  if (q.numel() == 0 || k.numel() == 0) return;
  if (in_blocks(q))
    update_in_blocks(prepared.call, state, fresh);
  else if (const auto cut = flash_on_gpu(prepared.call))
    update_by_flash(prepared.call, *cut, state);
  else
    update_by_tiles(prepared.call, state);
}

/// block_attention_backward(); `of_out`: delta is that of `out` alone, which flash kernels make themselves.
void add_gradients(const BlockGradients& into, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                   const AttentionBlock& whole, const at::Tensor& grad_out, const at::Tensor& delta,
                   const BlockAttentionOptions& options, bool of_out) {
  const at::NoGradGuard no_grad;
  check(q, k, v, options);
  check_state(whole, q);
  check_rows(into.q, q, q, "the gradient of q");
  check_rows(into.k, k, q, "the gradient of k");
  check_rows(into.v, v, q, "the gradient of v");
  check_shape(grad_out, {q.size(0), q.size(1), q.size(2), q.size(3)}, "block_attention: grad_out");
  check_shape(delta, {q.size(0), q.size(2), q.size(1)}, "block_attention: delta");
  check_sums(delta, q, "delta");
  const Prepared prepared(q, k, v, options);
  if (q.numel() == 0 || k.numel() == 0) return;
  const BlockRows rows{whole.log_sum, readable(grad_out), delta.contiguous()};
  if (in_blocks(q))
    backward_in_blocks(prepared.call, rows, into);
  else if (const auto cut = of_out ? flash_on_gpu(prepared.call) : std::nullopt)
    backward_by_flash(prepared.call, *cut, rows, whole, into);
  else
    backward_by_tiles(prepared.call, rows, into);
}

using OptionalTensor = std::optional<at::Tensor>;
using Results = std::tuple<at::Tensor, at::Tensor>;

OptionalTensor optional(const at::Tensor& x) {
  return x.defined() ? OptionalTensor(x) : std::nullopt;
}

/// The arguments of the operator behind q, k and v.
BlockAttentionOptions options_of(bool causal, const OptionalTensor& query_positions,
                                 const OptionalTensor& key_positions, const OptionalTensor& query_documents,
                                 const OptionalTensor& key_documents, const OptionalTensor& key_valid,
                                 double scale, double dropout, std::int64_t seed, std::int64_t first_batch,
                                 std::int64_t first_head) {
  const auto tensor = [](const OptionalTensor& x) { return x.value_or(at::Tensor()); };
  return {{causal, tensor(query_positions), tensor(key_positions), tensor(query_documents),
           tensor(key_documents), tensor(key_valid)},
          {dropout, seed, first_batch, first_head},
          scale};
}

class BlockAttentionFunction : public torch::autograd::Function<BlockAttentionFunction> {
 public:
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context,
                                                const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                                const BlockAttentionOptions& options) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto block = block_attention_forward(q, k, v, options);
    context->set_materialize_grads(false);  // zeros for log_sum would hide that nothing depends on it
    const auto& mask = options.mask;
    context->save_for_backward({q, k, v, block.out, block.log_sum, mask.query_positions, mask.key_positions,
                                mask.query_documents, mask.key_documents, mask.key_valid});
    auto& data = context->saved_data;
    data["causal"] = mask.causal;
    data["scale"] = options.scale;
    data["dropout"] = options.dropout.rate;
    data["seed"] = options.dropout.seed;
    data["first_batch"] = options.dropout.first_batch;
    data["first_head"] = options.dropout.first_head;
    return {block.out.to(q.scalar_type()), block.log_sum};
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    if (at::GradMode::is_enabled())
      throw Error("block_attention: second derivatives are only available from block_attention_reference");
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto saved = context->get_saved_variables();
    auto& data = context->saved_data;
    const auto &q = saved[0], &k = saved[1], &v = saved[2];
    const BlockAttentionOptions options{
        {data["causal"].toBool(), saved[5], saved[6], saved[7], saved[8], saved[9]},
        {data["dropout"].toDouble(), data["seed"].toInt(), data["first_batch"].toInt(),
         data["first_head"].toInt()},
        data["scale"].toDouble()};
    const auto grad_out = grads[0].defined() ? grads[0] : at::zeros_like(saved[3]);
    auto delta = block_attention_delta(saved[3], grad_out);
    if (grads[1].defined()) delta = delta - grads[1];
    const auto sums = q.options().dtype(sum_type(q));
    const BlockGradients into{at::zeros(q.sizes(), sums), at::zeros(k.sizes(), sums),
                              at::zeros(v.sizes(), sums)};
    add_gradients(into, q, k, v, {saved[3], saved[4]}, grad_out, delta, options, !grads[1].defined());
    const auto type = q.scalar_type();
    return {into.q.to(type), into.k.to(type), into.v.to(type), at::Tensor()};
  }
};

Results compute(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, bool causal,
                const OptionalTensor& query_positions, const OptionalTensor& key_positions,
                const OptionalTensor& query_documents, const OptionalTensor& key_documents,
                const OptionalTensor& key_valid, double scale, double dropout, std::int64_t seed,
                std::int64_t first_batch, std::int64_t first_head) {
  const auto block = block_attention_forward(
      q, k, v,
      options_of(causal, query_positions, key_positions, query_documents, key_documents, key_valid, scale,
                 dropout, seed, first_batch, first_head));
  return {block.out.to(q.scalar_type()), block.log_sum};
}

Results differentiate(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, bool causal,
                      const OptionalTensor& query_positions, const OptionalTensor& key_positions,
                      const OptionalTensor& query_documents, const OptionalTensor& key_documents,
                      const OptionalTensor& key_valid, double scale, double dropout, std::int64_t seed,
                      std::int64_t first_batch, std::int64_t first_head) {
  const bool wanted = q.requires_grad() || k.requires_grad() || v.requires_grad();
  if (!wanted || !at::GradMode::is_enabled()) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    return compute(q, k, v, causal, query_positions, key_positions, query_documents, key_documents, key_valid,
                   scale, dropout, seed, first_batch, first_head);
  }
  const auto results = BlockAttentionFunction::apply(
      q, k, v,
      options_of(causal, query_positions, key_positions, query_documents, key_documents, key_valid, scale,
                 dropout, seed, first_batch, first_head));
  return {results[0], results[1]};
}

Results shape_only(const at::Tensor& q, const at::Tensor&, const at::Tensor&, bool, const OptionalTensor&,
                   const OptionalTensor&, const OptionalTensor&, const OptionalTensor&, const OptionalTensor&,
                   double, double, std::int64_t, std::int64_t, std::int64_t) {
  return {at::empty(q.sizes(), q.options()),
          at::empty({q.size(0), q.size(2), q.size(1)}, q.options().dtype(sum_type(q)))};
}

}  // namespace

AttentionBlock no_attention(const at::Tensor& q) {
  check_shape(q, {-1, -1, -1, -1}, "block_attention: q");
  const auto options = q.options().dtype(sum_type(q));
  return {at::zeros(q.sizes(), options), at::full({q.size(0), q.size(2), q.size(1)}, -kInfinity, options)};
}

AttentionBlock block_attention_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                       const BlockAttentionOptions& options) {
  const at::NoGradGuard no_grad;
  check(q, k, v, options);
  if (!in_blocks(q) || q.numel() == 0 || k.numel() == 0) {
    auto state = no_attention(q);
    update(state, q, k, v, options, false);
    return state;
  }
  const auto kind = q.options().dtype(at::kFloat);
  const AttentionBlock state{at::empty(q.sizes(), kind), at::empty({q.size(0), q.size(2), q.size(1)}, kind)};
  update(state, q, k, v, options, true);
  return state;
}

void block_attention_update(AttentionBlock& state, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, const BlockAttentionOptions& options) {
  const at::NoGradGuard no_grad;
  check(q, k, v, options);
  check_state(state, q);
  update(state, q, k, v, options, false);
}

void merge_attention(AttentionBlock& state, const AttentionBlock& other) {
  const at::NoGradGuard no_grad;
  check_state(state, state.out);
  check_state(other, state.out);
  // what has seen nothing weighs nothing, also beside nothing
  const auto difference =
      (other.log_sum - state.log_sum).masked_fill_(other.log_sum.eq(-kInfinity), -kInfinity);
  const auto weight = difference.sigmoid().transpose(1, 2).unsqueeze(3);
  state.out.add_((other.out - state.out).mul_(weight));
  state.log_sum.copy_(at::maximum(state.log_sum, other.log_sum) + difference.abs().neg_().exp_().log1p_());
}

at::Tensor block_attention_delta(const at::Tensor& out, const at::Tensor& grad_out) {
  const at::NoGradGuard no_grad;
  check_shape(out, {-1, -1, -1, -1}, "block_attention: out");
  check_shape(grad_out, {out.size(0), out.size(1), out.size(2), out.size(3)}, "block_attention: grad_out");
  if (!out.is_cpu() || out.scalar_type() != at::kFloat)
    return (out * grad_out).sum(3).transpose(1, 2).contiguous();
  const auto a = readable(out), b = readable(grad_out);
  const std::int64_t queries = out.size(1), heads = out.size(2);
  const auto delta = at::empty({out.size(0), heads, queries}, out.options());
  at::parallel_for(0, out.size(0) * heads, 1, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = begin; i < end; ++i) {
      const auto rows = [&](const at::Tensor& x) {
        return x.const_data_ptr<float>() + i / heads * x.stride(0) + i % heads * x.stride(2);
      };
      dot_rows(rows(a), a.stride(1), rows(b), b.stride(1), queries, out.size(3),
               delta.mutable_data_ptr<float>() + i * queries);
    }
  });
  return delta;
}

void block_attention_backward(const BlockGradients& into, const at::Tensor& q, const at::Tensor& k,
                              const at::Tensor& v, const AttentionBlock& whole, const at::Tensor& grad_out,
                              const at::Tensor& delta, const BlockAttentionOptions& options) {
  add_gradients(into, q, k, v, whole, grad_out, delta, options, /*of_out=*/true);
}

AttentionBlock block_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               const BlockAttentionOptions& options) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("stoa::block_attention", "").typed<decltype(compute)>();
  const auto& mask = options.mask;
  const auto& dropout = options.dropout;
  auto [out, log_sum] =
      op.call(q, k, v, mask.causal, optional(mask.query_positions), optional(mask.key_positions),
              optional(mask.query_documents), optional(mask.key_documents), optional(mask.key_valid),
              options.scale, dropout.rate, dropout.seed, dropout.first_batch, dropout.first_head);
  return {out, log_sum};
}

AttentionBlock block_attention_reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                         const BlockAttentionOptions& options) {
  check(q, k, v, options);
  const Prepared prepared(q, k, v, options);
  const auto& mask = options.mask;
  const std::int64_t queries = q.size(1), keys = k.size(1), group = q.size(2) / k.size(2);
  const auto by_head = [](const at::Tensor& x) { return x.to(sum_type(x)).transpose(1, 2); };
  const auto positions = [&](const at::Tensor& given, std::int64_t count) {
    return (given.defined() ? given : at::arange(count, at::kLong)).to(q.device());
  };
  const auto key_positions = positions(mask.key_positions, keys);
  auto seen = at::ones({1, 1, queries, keys}, q.options().dtype(at::kBool));
  if (mask.causal)
    seen = seen.logical_and(key_positions.le(positions(mask.query_positions, queries).unsqueeze(1)));
  if (mask.query_documents.defined())
    seen =
        seen.logical_and(mask.query_documents.unsqueeze(2).eq(mask.key_documents.unsqueeze(1)).unsqueeze(1));
  if (mask.key_valid.defined()) seen = seen.logical_and(mask.key_valid.unsqueeze(1).unsqueeze(1));
  const auto any = seen.any(3, true);
  const auto scores = by_head(q)
                          .matmul(by_head(k).repeat_interleave(group, 1).transpose(2, 3))
                          .mul(prepared.call.scale)
                          .masked_fill(seen.logical_not().logical_and(any), -kInfinity);
  auto p = scores.softmax(3).mul(any.to(scores.scalar_type()));
  if (options.dropout.rate > 0)
    p = p.mul(
        dropout_factors(dropout_seeds(prepared.call), key_positions, options.dropout.rate, p.scalar_type()));
  const auto out = p.matmul(by_head(v).repeat_interleave(group, 1)).transpose(1, 2);
  return {out, scores.logsumexp(3).masked_fill(any.squeeze(3).logical_not(), -kInfinity)};
}

TORCH_LIBRARY_FRAGMENT(stoa, m) {
  m.def(
      "block_attention(Tensor q, Tensor k, Tensor v, bool causal=False, Tensor? query_positions=None, "
      "Tensor? "
      "key_positions=None, Tensor? query_documents=None, Tensor? key_documents=None, Tensor? key_valid=None, "
      "float "
      "scale=0., float dropout=0., int seed=0, int first_batch=0, int first_head=0) -> (Tensor, Tensor)");
}
TORCH_LIBRARY_IMPL(stoa, CompositeExplicitAutograd, m) {
  m.impl("block_attention", &compute);
}
TORCH_LIBRARY_IMPL(stoa, Autograd, m) {
  m.impl("block_attention", &differentiate);
}
TORCH_LIBRARY_IMPL(stoa, Meta, m) {
  m.impl("block_attention", &shape_only);
}

}  // namespace stoa::ops
