#include "stoa/ops/linear.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/ops/bias_activation.h"
#include "stoa/ops/bias_activation_kernels.h"
#include "stoa/ops/gemm.h"
#include "stoa/ops/gemm_kernels.h"
#include "stoa/ops/mixture_experts.h"
#include "stoa/ops/row_blocks.h"
#include "stoa/tensor/shape.h"

namespace stoa::ops {
namespace {

using OptionalTensor = std::optional<at::Tensor>;

constexpr std::int64_t kPiecesWanted = 16;
constexpr std::int64_t kFewRows = 8;  // a copy of the weights in panels would take longer than their products

at::Tensor or_undefined(const OptionalTensor& tensor) {
  return tensor.value_or(at::Tensor());
}
OptionalTensor optional(const at::Tensor& tensor) {
  return tensor.defined() ? OptionalTensor(tensor) : std::nullopt;
}

void check(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  if (x.dim() < 1) throw ShapeError("linear: x has no dimension; [*, in] is needed");
  check_shape(weight, {-1, x.size(-1)}, "linear: weight");
  if (bias.defined()) check_shape(bias, {weight.size(0)}, "linear: bias");
}

bool in_blocks(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const auto plain = [](const at::Tensor& t) { return t.is_cpu() && t.scalar_type() == at::kFloat; };
  return has_gemm_blocks() && plain(x) && plain(weight) && (!bias.defined() || plain(bias)) &&
         weight.numel() > 0;
}

const float* pointer(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.const_data_ptr<float>() : nullptr;
}

/// Calls work(block, first row, rows) for blocks of `size` rows on all threads.
template <class Work>
void for_each_block(std::int64_t rows, std::int64_t size, const Work& work) {
  at::parallel_for(0, (rows + size - 1) / size, 1, [&](std::int64_t begin, std::int64_t end) {
    for (auto block = begin; block < end; ++block)
      work(block, block * size, std::min(size, rows - block * size));
  });
}

/// linear_forward(); without `keep_before` the activation works in place, which saves an array of the
/// result's size.
LinearPass forward(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                   Activation activation, Operands operands, bool keep_before) {
  const std::int64_t rows = x.size(0), in = weight.size(1), out = weight.size(0);
  const bool few = rows <= kFewRows && operands == Operands::kFloat && in > 0;
  const auto w =
      few ? PackedMatrices() : pack_for(pointer(weight), 1, in, out, /*transposed=*/true, operands, rows);
  LinearPass pass;
  pass.output = at::empty({rows, out}, x.options());
  if (keep_before && activation != Activation::kNone) pass.before = at::empty({rows, out}, x.options());
  auto* const output = pass.output.mutable_data_ptr<float>();
  auto* const before = pass.before.defined() ? pass.before.mutable_data_ptr<float>() : output;
  const auto* const from = pointer(x);
  const auto* const b = pointer(bias);
  // few rows are cut by columns too, so that there is work for all threads
  const std::int64_t size = rows_at_once(in + 2 * out), down = (rows + size - 1) / size;
  const std::int64_t wide =
      down < kPiecesWanted ? kPanel * std::max<std::int64_t>(1, out / (kPanel * kPiecesWanted)) : out;
  const std::int64_t across = (out + wide - 1) / wide;
  at::parallel_for(0, down * across, 1, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = begin; i < end; ++i) {
      const std::int64_t first = i / across * size, count = std::min(size, rows - first);
      const std::int64_t column = i % across * wide, columns = std::min(wide, out - column);
      const std::int64_t at = first * out + column;
      if (few)
        dot_products(from + first * in, count, pointer(weight) + column * in, columns, in, before + at, out);
      else
        gemm_rows(from + first * in, in, count, w[0].columns(column, columns), before + at, out, false);
      if (b == nullptr && activation == Activation::kNone) continue;
      const auto finish = [&](std::int64_t place, std::int64_t lines, std::int64_t width) {
        bias_activation_forward(before + place, b == nullptr ? nullptr : b + column, output + place, lines,
                                width, static_cast<std::int64_t>(activation));
      };
      if (columns == out)
        finish(at, count, out);
      else
        for (std::int64_t r = 0; r < count; ++r) finish(at + r * out, 1, columns);
    }
  });
  return pass;
}

class LinearFunction : public torch::autograd::Function<LinearFunction> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& weight, const OptionalTensor& bias, std::int64_t activation,
                            bool bf16) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto rows = x.reshape({-1, x.size(-1)}).contiguous();
    const auto w = weight.contiguous();
    const auto b = bias ? bias->contiguous() : at::Tensor();
    auto pass = linear_forward(rows, w, b, static_cast<Activation>(activation), choose_operands(bf16));
    context->save_for_backward({rows, w, b, pass.before});
    context->saved_data["activation"] = activation;
    context->saved_data["bf16"] = bf16;
    context->saved_data["shape"] = x.sizes().vec();
    auto shape = x.sizes().vec();
    shape.back() = weight.size(0);
    return pass.output.view(shape);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    if (at::GradMode::is_enabled())
      throw Error("linear: second derivatives are only available from linear_reference");
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto saved = context->get_saved_variables();
    const auto activation = static_cast<Activation>(context->saved_data["activation"].toInt());
    const auto need = [&](std::size_t i) { return context->needs_input_grad(i); };
    const auto grad = grads[0].reshape({-1, grads[0].size(-1)}).contiguous();
    auto g = linear_backward(grad, saved[0], saved[1], saved[2], saved[3], activation,
                             choose_operands(context->saved_data["bf16"].toBool()), need(0), need(1),
                             saved[2].defined() && need(2));
    if (g.x.defined()) g.x = g.x.view(context->saved_data["shape"].toIntVector());
    return {g.x, g.weight, g.bias, at::Tensor(), at::Tensor()};
  }
};

at::Tensor compute(const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& bias,
                   std::int64_t activation, bool bf16) {
  const auto f = static_cast<Activation>(activation);
  const auto b = or_undefined(bias);
  check(x, weight, b);
  if (!in_blocks(x, weight, b)) return linear_reference(x, weight, b, f);
  auto shape = x.sizes().vec();
  shape.back() = weight.size(0);
  return forward(x.reshape({-1, x.size(-1)}).contiguous(), weight.contiguous(),
                 b.defined() ? b.contiguous() : b, f, choose_operands(bf16), /*keep_before=*/false)
      .output.view(shape);
}

at::Tensor call(const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& bias,
                std::int64_t activation, bool bf16) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("stoa::linear", "").typed<decltype(compute)>();
  return op.call(x, weight, bias, activation, bf16);
}

at::Tensor differentiate(const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& bias,
                         std::int64_t activation, bool bf16) {
  const auto b = or_undefined(bias);
  const bool any = x.requires_grad() || weight.requires_grad() || (b.defined() && b.requires_grad());
  if (!any || !at::GradMode::is_enabled()) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    return call(x, weight, bias, activation, bf16);
  }
  check(x, weight, b);
  if (in_blocks(x, weight, b)) return LinearFunction::apply(x, weight, bias, activation, bf16);
  if (activation == 0) return at::linear(x, weight, bias);
  return bias_activation(at::linear(x, weight), b, static_cast<Activation>(activation));
}

at::Tensor autocast(const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& bias,
                    std::int64_t activation, bool) {
  const auto b = or_undefined(bias);
  if (autocast_in_blocks(x.device())) {
    const auto rows = x.scalar_type() == at::kBFloat16 ? x.to(at::kFloat) : x;
    if (in_blocks(rows, weight, b)) {
      const c10::impl::ExcludeDispatchKeyGuard without_autocast(c10::autocast_dispatch_keyset);
      return call(rows, weight, bias, activation, /*bf16=*/true);
    }
  }
  if (activation == 0) return at::linear(x, weight, bias);
  return bias_activation(at::linear(x, weight), b, static_cast<Activation>(activation));
}

at::Tensor shape_only(const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& bias, std::int64_t,
                      bool) {
  check(x, weight, or_undefined(bias));
  auto shape = x.sizes().vec();
  shape.back() = weight.size(0);
  return at::empty(shape, x.options());
}

}  // namespace

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                  Activation activation, bool bf16) {
  return call(x, weight, optional(bias), static_cast<std::int64_t>(activation), bf16);
}

at::Tensor linear_reference(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                            Activation activation) {
  return activate(at::linear(x, weight, optional(bias)), activation);
}

LinearPass linear_forward(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                          Activation activation, Operands operands) {
  return forward(x, weight, bias, activation, operands, /*keep_before=*/true);
}

LinearGradients linear_backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight,
                                const at::Tensor& bias, const at::Tensor& before, Activation activation,
                                Operands operands, bool need_x, bool need_weight, bool need_bias) {
  const std::int64_t rows = grad.size(0), in = weight.size(1), out = weight.size(0);
  const bool plain = activation == Activation::kNone;
  LinearGradients result;
  const auto g = plain ? grad : at::empty_like(grad);  // the gradient of x W^T + b
  PackedMatrices w;
  if (need_x) {
    w = pack(pointer(weight), 1, out, in, /*transposed=*/false, operands);
    result.x = at::empty({rows, in}, grad.options());
  }
  const std::int64_t size = rows_at_once(in + 3 * out);
  const auto sums = need_bias ? at::zeros({(rows + size - 1) / size, out}, grad.options()) : at::Tensor();
  for_each_block(rows, size, [&](std::int64_t block, std::int64_t first, std::int64_t count) {
    const std::int64_t at = first * out;
    float* const sum = need_bias ? sums.mutable_data_ptr<float>() + block * out : nullptr;
    if (plain && need_bias)
      add_columns(pointer(grad) + at, sum, count, out);
    else if (!plain)
      bias_activation_backward(pointer(grad) + at, pointer(before) + at, pointer(bias),
                               g.mutable_data_ptr<float>() + at, sum, count, out,
                               static_cast<std::int64_t>(activation));
    if (need_x)
      gemm_rows(pointer(g) + at, out, count, w[0], result.x.mutable_data_ptr<float>() + first * in, in,
                false);
  });
  if (need_bias) result.bias = add_row_blocks(sums);
  if (need_weight) result.weight = transposed_products(g, x, {0}, {rows}, operands).squeeze(0);
  return result;
}

TORCH_LIBRARY_FRAGMENT(stoa, m) {
  m.def("linear(Tensor x, Tensor weight, Tensor? bias=None, int activation=0, bool bf16=False) -> Tensor");
}
TORCH_LIBRARY_IMPL(stoa, CompositeExplicitAutograd, m) {
  m.impl("linear", &compute);
}
TORCH_LIBRARY_IMPL(stoa, Autograd, m) {
  m.impl("linear", &differentiate);
}
TORCH_LIBRARY_IMPL(stoa, AutocastCPU, m) {
  m.impl("linear", &autocast);
}
TORCH_LIBRARY_IMPL(stoa, AutocastCUDA, m) {
  m.impl("linear", &autocast);
}
TORCH_LIBRARY_IMPL(stoa, Meta, m) {
  m.impl("linear", &shape_only);
}

}  // namespace stoa::ops
