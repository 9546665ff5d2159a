#include "stoa/ops/attention.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/ops/attention_kernels.h"
#include "stoa/ops/gemm.h"
#include "stoa/ops/gemm_kernels.h"
#include "stoa/tensor/shape.h"

namespace stoa::ops {
namespace {

void check(const at::Tensor& qkv, std::int64_t heads) {
  check_shape(qkv, {-1, -1, -1}, "attention: qkv");
  if (heads < 1 || qkv.size(2) == 0 || qkv.size(2) % (3 * heads) != 0)
    throw ShapeError(format("attention: qkv has width {}, which must be a multiple of 3 x heads = {}",
                            qkv.size(2), 3 * heads));
}

bool in_blocks(const at::Tensor& qkv) {
  return has_gemm_blocks() && qkv.is_cpu() && qkv.scalar_type() == at::kFloat;
}

/// Sizes, and where a head's numbers lie. All strides are between tokens.
struct Layout {
  std::int64_t batch, tokens, heads, dim, head_dim;
  float scale;

  Layout(const at::Tensor& qkv, std::int64_t heads)
      : batch(qkv.size(0)),
        tokens(qkv.size(1)),
        heads(heads),
        dim(qkv.size(2) / 3),
        head_dim(dim / heads),
        scale(static_cast<float>(1 / std::sqrt(static_cast<double>(head_dim)))) {}

  std::int64_t qkv_stride() const { return 3 * dim; }
  std::int64_t query(std::int64_t sample, std::int64_t head) const {
    return sample * tokens * 3 * dim + head * head_dim;
  }
  std::int64_t output(std::int64_t sample, std::int64_t head) const {
    return sample * tokens * dim + head * head_dim;
  }
  /// Queries whose scores against all tokens stay in the cache.
  std::int64_t queries() const {
    return std::clamp<std::int64_t>(64 * 1024 / std::max<std::int64_t>(1, tokens) / 16 * 16, 16, 64);
  }
};

/// A right-hand side whose rows lie `stride` apart.
RightHandSide strided(const float* data, std::int64_t k, std::int64_t n, std::int64_t stride) {
  return {data, k, n, stride, kPanel};
}

float* sized(std::vector<float>& buffer, std::int64_t numbers) {
  if (std::ssize(buffer) < numbers) buffer.resize(static_cast<std::size_t>(numbers));
  return buffer.data();
}

/// Calls work(sample, head) for each pair on all threads.
template <class Work>
void for_each_head(const Layout& at, const Work& work) {
  at::parallel_for(0, at.batch * at.heads, 1, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = begin; i < end; ++i) work(i / at.heads, i % at.heads);
  });
}

void forward_head(const Layout& l, const float* q, float* out, float* log_sum) {
  thread_local std::vector<float> turned_keys, scores;
  const float* const k = q + l.dim;
  const float* const v = k + l.dim;
  float* const kt = sized(turned_keys, l.head_dim * l.tokens);
  transpose_block(k, l.qkv_stride(), l.tokens, l.head_dim, kt, l.tokens);
  for (std::int64_t first = 0; first < l.tokens; first += l.queries()) {
    const std::int64_t count = std::min(l.queries(), l.tokens - first);
    float* const s = sized(scores, count * l.tokens);
    gemm_rows(q + first * l.qkv_stride(), l.qkv_stride(), count, strided(kt, l.head_dim, l.tokens, l.tokens),
              s, l.tokens, false);
    softmax_rows(s, l.scale, log_sum + first, count, l.tokens);
    gemm_rows(s, l.tokens, count, strided(v, l.tokens, l.head_dim, l.qkv_stride()), out + first * l.dim,
              l.dim, false);
  }
}

/// A head's part of the gradient of qkv. Scores are made anew, a column a query, so that the probabilities
/// are what the products for keys and values need on their left.
void backward_head(const Layout& l, const float* q, const float* out, const float* grad, const float* log_sum,
                   float* grad_q) {
  thread_local std::vector<float> turned, scores, gradients, dots;
  const float* const k = q + l.dim;
  const float* const v = k + l.dim;
  float* const grad_k = grad_q + l.dim;
  float* const grad_v = grad_k + l.dim;
  float* const dot = sized(dots, l.tokens);
  dot_rows(out, l.dim, grad, l.dim, l.tokens, l.head_dim, dot);
  for (std::int64_t first = 0; first < l.tokens; first += l.queries()) {
    const std::int64_t count = std::min(l.queries(), l.tokens - first);
    const float* const qi = q + first * l.qkv_stride();
    const float* const gi = grad + first * l.dim;
    float* const s = sized(scores, count * l.tokens);
    float* const g = sized(gradients, count * l.tokens);
    float* const t = sized(turned, count * std::max(l.tokens, l.head_dim));
    transpose_block(qi, l.qkv_stride(), count, l.head_dim, t, count);
    gemm_rows(k, l.qkv_stride(), l.tokens, strided(t, l.head_dim, count, count), s, count, false);
    transpose_block(gi, l.dim, count, l.head_dim, t, count);
    gemm_rows(v, l.qkv_stride(), l.tokens, strided(t, l.head_dim, count, count), g, count, false);
    softmax_backward_columns(s, g, log_sum + first, dot + first, l.scale, l.tokens, count);
    const bool add = first > 0;
    gemm_rows(s, count, l.tokens, strided(gi, count, l.head_dim, l.dim), grad_v, l.qkv_stride(), add);
    gemm_rows(g, count, l.tokens, strided(qi, count, l.head_dim, l.qkv_stride()), grad_k, l.qkv_stride(),
              add);
    transpose_block(g, count, l.tokens, count, t, l.tokens);
    gemm_rows(t, l.tokens, count, strided(k, l.tokens, l.head_dim, l.qkv_stride()),
              grad_q + first * l.qkv_stride(), l.qkv_stride(), false);
  }
}

struct Pass {
  at::Tensor output;   // [batch, tokens, dim]
  at::Tensor log_sum;  // [batch, heads, tokens]
};

Pass run_forward(const at::Tensor& qkv, std::int64_t heads) {
  const Layout l(qkv, heads);
  Pass pass{at::empty({l.batch, l.tokens, l.dim}, qkv.options()),
            at::empty({l.batch, heads, l.tokens}, qkv.options())};
  const auto* const from = qkv.const_data_ptr<float>();
  auto* const to = pass.output.mutable_data_ptr<float>();
  auto* const sums = pass.log_sum.mutable_data_ptr<float>();
  for_each_head(l, [&](std::int64_t sample, std::int64_t head) {
    forward_head(l, from + l.query(sample, head), to + l.output(sample, head),
                 sums + (sample * heads + head) * l.tokens);
  });
  return pass;
}

at::Tensor run_backward(const at::Tensor& grad, const at::Tensor& qkv, const Pass& pass, std::int64_t heads) {
  const Layout l(qkv, heads);
  const auto result = at::empty_like(qkv);
  for_each_head(l, [&](std::int64_t sample, std::int64_t head) {
    backward_head(l, qkv.const_data_ptr<float>() + l.query(sample, head),
                  pass.output.const_data_ptr<float>() + l.output(sample, head),
                  grad.const_data_ptr<float>() + l.output(sample, head),
                  pass.log_sum.const_data_ptr<float>() + (sample * heads + head) * l.tokens,
                  result.mutable_data_ptr<float>() + l.query(sample, head));
  });
  return result;
}

class AttentionFunction : public torch::autograd::Function<AttentionFunction> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& qkv,
                            std::int64_t heads) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto input = qkv.contiguous();
    const auto pass = run_forward(input, heads);
    context->save_for_backward({input, pass.output, pass.log_sum});
    context->saved_data["heads"] = heads;
    return pass.output;
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    if (at::GradMode::is_enabled())
      throw Error("attention: second derivatives are only available from attention_reference");
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto saved = context->get_saved_variables();
    return {run_backward(grads[0].contiguous(), saved[0], {saved[1], saved[2]},
                         context->saved_data["heads"].toInt()),
            at::Tensor()};
  }
};

at::Tensor by_heads(const at::Tensor& qkv, std::int64_t heads, double dropout) {
  const std::int64_t batch = qkv.size(0), tokens = qkv.size(1), dim = qkv.size(2) / 3;
  const auto parts = qkv.view({batch, tokens, 3, heads, dim / heads}).permute({2, 0, 3, 1, 4});
  const auto mixed = at::scaled_dot_product_attention(parts[0], parts[1], parts[2], {}, dropout);
  return mixed.transpose(1, 2).reshape({batch, tokens, dim});
}

at::Tensor compute(const at::Tensor& qkv, std::int64_t heads) {
  check(qkv, heads);
  return in_blocks(qkv) ? run_forward(qkv.contiguous(), heads).output : by_heads(qkv, heads, 0);
}

at::Tensor call(const at::Tensor& qkv, std::int64_t heads) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("stoa::attention", "").typed<decltype(compute)>();
  return op.call(qkv, heads);
}

at::Tensor differentiate(const at::Tensor& qkv, std::int64_t heads) {
  if (!qkv.requires_grad() || !at::GradMode::is_enabled()) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    return call(qkv, heads);
  }
  check(qkv, heads);
  return in_blocks(qkv) ? AttentionFunction::apply(qkv, heads) : by_heads(qkv, heads, 0);
}

at::Tensor shape_only(const at::Tensor& qkv, std::int64_t heads) {
  check(qkv, heads);
  return at::empty({qkv.size(0), qkv.size(1), qkv.size(2) / 3}, qkv.options());
}

}  // namespace

at::Tensor attention(const at::Tensor& qkv, std::int64_t heads, double dropout) {
  if (dropout == 0) return call(qkv, heads);
  check(qkv, heads);
  return by_heads(qkv, heads, dropout);
}

at::Tensor attention_reference(const at::Tensor& qkv, std::int64_t heads) {
  check(qkv, heads);
  const std::int64_t batch = qkv.size(0), tokens = qkv.size(1), dim = qkv.size(2) / 3;
  const auto parts = qkv.reshape({batch, tokens, 3, heads, dim / heads}).permute({2, 0, 3, 1, 4});
  const auto scores = parts[0].matmul(parts[1].transpose(2, 3)) / std::sqrt(static_cast<double>(dim / heads));
  return scores.softmax(-1).matmul(parts[2]).transpose(1, 2).reshape({batch, tokens, dim});
}

TORCH_LIBRARY_FRAGMENT(stoa, m) {
  m.def("attention(Tensor qkv, int heads) -> Tensor");
}
TORCH_LIBRARY_IMPL(stoa, CompositeExplicitAutograd, m) {
  m.impl("attention", &compute);
}
TORCH_LIBRARY_IMPL(stoa, Autograd, m) {
  m.impl("attention", &differentiate);
}
TORCH_LIBRARY_IMPL(stoa, Meta, m) {
  m.impl("attention", &shape_only);
}

}  // namespace stoa::ops
