#include "stoa/ops/mlp.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "stoa/base/errors.h"
#include "stoa/ops/bias_activation.h"
#include "stoa/ops/bias_activation_kernels.h"
#include "stoa/ops/gemm.h"
#include "stoa/ops/linear.h"
#include "stoa/tensor/shape.h"

namespace stoa::ops {
namespace {

void check(const at::Tensor& x, const MlpWeights& w) {
  if (x.dim() < 1) throw ShapeError("mlp: x has no dimension; [*, dim] is needed");
  check_shape(w.w_in, {-1, x.size(-1)}, "mlp: w_in");
  check_shape(w.b_in, {w.w_in.size(0)}, "mlp: b_in");
  check_shape(w.w_out, {-1, w.w_in.size(0)}, "mlp: w_out");
  check_shape(w.b_out, {w.w_out.size(0)}, "mlp: b_out");
}

bool in_blocks(const at::Tensor& x, const MlpWeights& w) {
  const auto plain = [](const at::Tensor& t) { return t.is_cpu() && t.scalar_type() == at::kFloat; };
  return has_gemm_blocks() && plain(x) && plain(w.w_in) && plain(w.b_in) && plain(w.w_out) &&
         plain(w.b_out) && w.w_in.numel() > 0 && w.w_out.numel() > 0;
}

at::Tensor rows_of(const at::Tensor& x) {
  return x.reshape({-1, x.size(-1)}).contiguous();
}

std::vector<std::int64_t> shape_of(const at::Tensor& x, std::int64_t width) {
  auto shape = x.sizes().vec();
  shape.back() = width;
  return shape;
}

at::Tensor layer_by_layer(const at::Tensor& x, const MlpWeights& w, Activation activation, bool bf16) {
  return linear(linear(x, w.w_in, w.b_in, activation, bf16), w.w_out, w.b_out, Activation::kNone, bf16);
}

/// Enough blocks of rows to occupy all threads; fewer rows are cut by columns too, which linear() does.
constexpr std::int64_t kBlocksWanted = 16;

/// Both layers by blocks of rows, so that f(...) of a block is in the cache when the second layer reads it
/// and no array of [rows, hidden] is made for it. Where `before` is defined it gets what f was given.
at::Tensor forward_in_blocks(const at::Tensor& x, const MlpWeights& w, Activation activation,
                             Operands operands, const at::Tensor& before) {
  const std::int64_t rows = x.size(0), in = x.size(1), hidden = w.w_in.size(0), out = w.w_out.size(0);
  const auto matrix = [&](const at::Tensor& m) {
    return pack_for(m.const_data_ptr<float>(), 1, m.size(1), m.size(0), /*transposed=*/true, operands, rows);
  };
  const auto first_layer = matrix(w.w_in), second_layer = matrix(w.w_out);
  const auto* const b_in = w.b_in.const_data_ptr<float>();
  const auto* const b_out = w.b_out.const_data_ptr<float>();
  const auto* const from = x.const_data_ptr<float>();
  auto* const kept = before.defined() ? before.mutable_data_ptr<float>() : nullptr;
  const auto output = at::empty({rows, out}, x.options());
  auto* const to = output.mutable_data_ptr<float>();
  const std::int64_t size = rows_at_once(in + 2 * hidden + out);
  at::parallel_for(0, (rows + size - 1) / size, 1, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> active(static_cast<std::size_t>(size * hidden));
    for (auto block = begin; block < end; ++block) {
      const std::int64_t first = block * size, count = std::min(size, rows - first);
      float* const product = kept == nullptr ? active.data() : kept + first * hidden;
      gemm_rows(from + first * in, in, count, first_layer[0], product, hidden, false);
      bias_activation_forward(product, b_in, active.data(), count, hidden,
                              static_cast<std::int64_t>(activation));
      float* const answer = to + first * out;
      gemm_rows(active.data(), hidden, count, second_layer[0], answer, out, false);
      bias_activation_forward(answer, b_out, answer, count, out,
                              static_cast<std::int64_t>(Activation::kNone));
    }
  });
  return output;
}

bool enough_for_blocks(const at::Tensor& rows, const MlpWeights& w) {
  return rows.size(0) >= kBlocksWanted * rows_at_once(rows.size(1) + 2 * w.w_in.size(0) + w.w_out.size(0));
}

class MlpFunction : public torch::autograd::Function<MlpFunction> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& w_in, const at::Tensor& b_in, const at::Tensor& w_out,
                            const at::Tensor& b_out, std::int64_t activation, bool bf16) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto rows = rows_of(x);
    const MlpWeights w{w_in.contiguous(), b_in.contiguous(), w_out.contiguous(), b_out.contiguous()};
    const auto operands = choose_operands(bf16);
    const auto f = static_cast<Activation>(activation);
    at::Tensor output, before;
    if (enough_for_blocks(rows, w)) {
      before = at::empty({rows.size(0), w_in.size(0)}, rows.options());
      output = forward_in_blocks(rows, w, f, operands, before);
    } else {
      const auto hidden = linear_forward(rows, w.w_in, w.b_in, f, operands);
      output = linear_forward(hidden.output, w.w_out, w.b_out, Activation::kNone, operands).output;
      before = hidden.before;
    }
    context->save_for_backward({rows, w.w_in, w.b_in, w.w_out, w.b_out, before});
    context->saved_data["activation"] = activation;
    context->saved_data["bf16"] = bf16;
    context->saved_data["shape"] = x.sizes().vec();
    return output.view(shape_of(x, w_out.size(0)));
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    if (at::GradMode::is_enabled())
      throw Error("mlp: second derivatives are only available from mlp_reference");
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto saved = context->get_saved_variables();
    const auto& [x, w_in, b_in, w_out, b_out, before] =
        std::tie(saved[0], saved[1], saved[2], saved[3], saved[4], saved[5]);
    const auto activation = static_cast<Activation>(context->saved_data["activation"].toInt());
    const auto operands = choose_operands(context->saved_data["bf16"].toBool());
    const auto need = [&](std::size_t i) { return context->needs_input_grad(i); };
    const bool need_hidden = need(0) || need(1) || need(2);
    const auto grad = rows_of(grads[0]);
    LinearGradients out;
    {
      const auto hidden = need(3) ? bias_activation(before, b_in, activation) : before;
      out = linear_backward(grad, hidden, w_out, b_out, {}, Activation::kNone, operands, need_hidden, need(3),
                            need(4));
    }
    LinearGradients in;
    if (need_hidden)
      in = linear_backward(out.x, x, w_in, b_in, before, activation, operands, need(0), need(1), need(2));
    if (in.x.defined()) in.x = in.x.view(context->saved_data["shape"].toIntVector());
    return {in.x, in.weight, in.bias, out.weight, out.bias, at::Tensor(), at::Tensor()};
  }
};

at::Tensor compute(const at::Tensor& x, const at::Tensor& w_in, const at::Tensor& b_in,
                   const at::Tensor& w_out, const at::Tensor& b_out, std::int64_t activation, bool bf16) {
  const MlpWeights w{w_in, b_in, w_out, b_out};
  check(x, w);
  const auto f = static_cast<Activation>(activation);
  if (!in_blocks(x, w)) return layer_by_layer(x, w, f, bf16);
  const auto rows = rows_of(x);
  if (!enough_for_blocks(rows, w)) return layer_by_layer(x, w, f, bf16);
  const MlpWeights whole{w_in.contiguous(), b_in.contiguous(), w_out.contiguous(), b_out.contiguous()};
  return forward_in_blocks(rows, whole, f, choose_operands(bf16), {}).view(shape_of(x, w_out.size(0)));
}

at::Tensor call(const at::Tensor& x, const MlpWeights& w, std::int64_t activation, bool bf16) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("stoa::mlp", "").typed<decltype(compute)>();
  return op.call(x, w.w_in, w.b_in, w.w_out, w.b_out, activation, bf16);
}

at::Tensor differentiate(const at::Tensor& x, const at::Tensor& w_in, const at::Tensor& b_in,
                         const at::Tensor& w_out, const at::Tensor& b_out, std::int64_t activation,
                         bool bf16) {
  const MlpWeights w{w_in, b_in, w_out, b_out};
  check(x, w);
  const auto learns = [](const at::Tensor& t) { return t.requires_grad(); };
  const bool any = learns(x) || learns(w_in) || learns(b_in) || learns(w_out) || learns(b_out);
  if (any && at::GradMode::is_enabled() && in_blocks(x, w) && activation != 0)
    return MlpFunction::apply(x, w_in, b_in, w_out, b_out, activation, bf16);
  return layer_by_layer(x, w, static_cast<Activation>(activation), bf16);
}

at::Tensor autocast(const at::Tensor& x, const at::Tensor& w_in, const at::Tensor& b_in,
                    const at::Tensor& w_out, const at::Tensor& b_out, std::int64_t activation, bool) {
  const MlpWeights w{w_in, b_in, w_out, b_out};
  if (autocast_in_blocks(x.device())) {
    const auto rows = x.scalar_type() == at::kBFloat16 ? x.to(at::kFloat) : x;
    if (in_blocks(rows, w)) {
      const c10::impl::ExcludeDispatchKeyGuard without_autocast(c10::autocast_dispatch_keyset);
      return call(rows, w, activation, /*bf16=*/true);
    }
  }
  return layer_by_layer(x, w, static_cast<Activation>(activation), false);
}

at::Tensor shape_only(const at::Tensor& x, const at::Tensor&, const at::Tensor&, const at::Tensor& w_out,
                      const at::Tensor&, std::int64_t, bool) {
  return at::empty(shape_of(x, w_out.size(0)), x.options());
}

}  // namespace

at::Tensor mlp(const at::Tensor& x, const MlpWeights& weights, Activation activation) {
  return call(x, weights, static_cast<std::int64_t>(activation), false);
}

at::Tensor mlp_reference(const at::Tensor& x, const MlpWeights& weights, Activation activation) {
  return at::linear(linear_reference(x, weights.w_in, weights.b_in, activation), weights.w_out,
                    weights.b_out);
}

TORCH_LIBRARY_FRAGMENT(stoa, m) {
  m.def(
      "mlp(Tensor x, Tensor w_in, Tensor b_in, Tensor w_out, Tensor b_out, int activation, bool bf16=False) "
      "-> "
      "Tensor");
}
TORCH_LIBRARY_IMPL(stoa, CompositeExplicitAutograd, m) {
  m.impl("mlp", &compute);
}
TORCH_LIBRARY_IMPL(stoa, Autograd, m) {
  m.impl("mlp", &differentiate);
}
TORCH_LIBRARY_IMPL(stoa, AutocastCPU, m) {
  m.impl("mlp", &autocast);
}
TORCH_LIBRARY_IMPL(stoa, AutocastCUDA, m) {
  m.impl("mlp", &autocast);
}
TORCH_LIBRARY_IMPL(stoa, Meta, m) {
  m.impl("mlp", &shape_only);
}

}  // namespace stoa::ops
