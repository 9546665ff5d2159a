#include "stoa/ops/bias_activation.h"

#include <ATen/ATen.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/ops/bias_activation_cuda.h"
#include "stoa/ops/bias_activation_kernels.h"
#include "stoa/ops/cuda_call.h"
#include "stoa/ops/mixture_experts.h"
#include "stoa/ops/row_blocks.h"
#include "stoa/tensor/shape.h"

namespace stoa::ops {

namespace {

using OptionalTensor = std::optional<at::Tensor>;

void check(const at::Tensor& x, const at::Tensor& bias) {
  if (!x.defined() || x.dim() == 0)
    throw ShapeError("bias_activation: x has no dimension; [*, dim] is needed");
  if (bias.defined()) {
    check_shape(bias, {x.size(-1)}, "bias_activation: bias");
    if (bias.device() != x.device())
      throw Error(format("bias_activation: bias is on {} and x on {}; move them to one device",
                         bias.device().str(), x.device().str()));
  }
  if (!x.is_floating_point())
    throw Error(format("bias_activation: x is of type {}; a floating-point type is needed",
                       c10::toString(x.scalar_type())));
}

bool fused(const at::Tensor& x) {
  const auto type = x.scalar_type();
  return (x.is_cpu() || has_cuda_kernels(x)) &&
         (type == at::kFloat || type == at::kDouble || type == at::kBFloat16);
}

// Bias in the type of the arithmetic
at::Tensor in_math_type(const at::Tensor& bias, const at::Tensor& x) {
  return bias.defined() ? bias.to(at::toOpMathType(x.scalar_type())).contiguous() : bias;
}

std::int64_t row_count(const at::Tensor& x) {
  return x.numel() == 0 ? 0 : x.numel() / x.size(-1);
}

template <class T>
const T* pointer(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<const T*>(tensor.const_data_ptr()) : nullptr;
}

// Calls work with a number of the kernel's type for tensors like x.
template <class Work>
void with_type(const at::Tensor& x, const Work& work) {
  switch (x.scalar_type()) {
    case at::kDouble:
      return work(double{});
    case at::kBFloat16:
      return work(Bfloat16{});
    default:
      return work(float{});
  }
}

void forward_rows(const at::Tensor& out, const at::Tensor& x, const at::Tensor& bias, Activation activation) {
  const auto f = static_cast<std::int64_t>(activation);
  const auto dim = x.size(-1);
  with_type(x, [&]<class T>(T) {
    const auto* const from = pointer<T>(x);
    const auto* const add = pointer<Math<T>>(bias);
    auto* const to = static_cast<T*>(out.mutable_data_ptr());
#ifdef STOA_CUDA
    if (x.is_cuda())
      return launch_on(x, "bias_activation", [&](void* stream) {
        const auto rows = add == nullptr ? 1 : row_count(x);
        return cuda::bias_activation_forward(from, add, to, rows, add == nullptr ? x.numel() : dim, f,
                                             stream);
      });
#endif
    if (add == nullptr) {  // rows do not matter
      at::parallel_for(0, x.numel(), 32768, [&](std::int64_t begin, std::int64_t end) {
        bias_activation_forward(from + begin, add, to + begin, 1, end - begin, f);
      });
      return;
    }
    for_some_rows(row_count(x), dim, [&](std::int64_t first, std::int64_t rows) {
      bias_activation_forward(from + first * dim, add, to + first * dim, rows, dim, f);
    });
  });
}

#ifdef STOA_CUDA
at::Tensor backward_rows_on_cuda(const at::Tensor& grad_x, const at::Tensor& grad, const at::Tensor& x,
                                 const at::Tensor& bias, Activation activation, bool sum_rows) {
  const bool by_row = bias.defined() || sum_rows;
  const auto rows = by_row ? row_count(x) : 1;
  const auto dim = by_row ? x.size(-1) : x.numel();
  const auto options = x.options().dtype(at::toOpMathType(x.scalar_type()));
  const auto scratch = at::empty({sum_rows ? cuda::bias_activation_scratch(rows, dim) : 0}, options);
  const auto grad_bias = sum_rows ? at::zeros({dim}, options) : at::Tensor();
  with_type(x, [&]<class T>(T) {
    launch_on(x, "bias_activation", [&](void* stream) {
      return cuda::bias_activation_backward(
          pointer<T>(grad), pointer<T>(x), pointer<Math<T>>(bias), static_cast<T*>(grad_x.mutable_data_ptr()),
          sum_rows ? grad_bias.mutable_data_ptr<Math<T>>() : nullptr, rows, dim,
          static_cast<std::int64_t>(activation), scratch.mutable_data_ptr<Math<T>>(), stream);
    });
  });
  return grad_bias;
}
#endif

at::Tensor backward_rows(const at::Tensor& grad_x, const at::Tensor& grad, const at::Tensor& x,
                         const at::Tensor& bias, Activation activation, bool sum_rows) {
#ifdef STOA_CUDA
  if (x.is_cuda()) return backward_rows_on_cuda(grad_x, grad, x, bias, activation, sum_rows);
#endif
  const auto f = static_cast<std::int64_t>(activation);
  const auto dim = x.size(-1);
  const auto count = row_count(x);
  at::Tensor partial;
  if (sum_rows)
    partial = at::zeros({row_blocks(count), dim}, x.options().dtype(at::toOpMathType(x.scalar_type())));
  with_type(x, [&]<class T>(T) {
    const auto* const g = pointer<T>(grad);
    const auto* const from = pointer<T>(x);
    const auto* const add = pointer<Math<T>>(bias);
    auto* const to = static_cast<T*>(grad_x.mutable_data_ptr());
    if (add == nullptr && !sum_rows) {
      at::parallel_for(0, x.numel(), 32768, [&](std::int64_t begin, std::int64_t end) {
        bias_activation_backward(g + begin, from + begin, add, to + begin, nullptr, 1, end - begin, f);
      });
      return;
    }
    auto* const sums = sum_rows ? partial.mutable_data_ptr<Math<T>>() : nullptr;
    for_each_row_block(count, dim, [&](std::int64_t block, std::int64_t first, std::int64_t rows) {
      const auto at = first * dim;
      auto* const sum = sum_rows ? sums + block * dim : nullptr;
      bias_activation_backward(g + at, from + at, add, to + at, sum, rows, dim, f);
    });
  });
  return sum_rows ? add_row_blocks(partial) : at::Tensor();
}

class BiasActivationFunction : public torch::autograd::Function<BiasActivationFunction> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const OptionalTensor& bias, std::int64_t activation) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto rows = x.contiguous();
    const auto add = bias.value_or(at::Tensor());
    context->save_for_backward({rows, add});
    context->saved_data["activation"] = activation;
    const auto out = at::empty_like(rows);
    forward_rows(out, rows, in_math_type(add, rows), static_cast<Activation>(activation));
    return out;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    if (at::GradMode::is_enabled())
      throw Error("bias_activation: second derivatives are only available from bias_activation_reference");
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto saved = context->get_saved_variables();
    const auto& [x, bias] = std::tie(saved[0], saved[1]);
    const bool needs_bias = bias.defined() && context->needs_input_grad(1);
    const auto grad = grads[0].contiguous();
    const auto grad_x = at::empty_like(x);
    auto grad_bias =
        backward_rows(grad_x, grad, x, in_math_type(bias, x),
                      static_cast<Activation>(context->saved_data["activation"].toInt()), needs_bias);
    if (needs_bias) grad_bias = grad_bias.to(bias.scalar_type());
    return {grad_x, grad_bias, at::Tensor()};
  }
};

// The kernels, by dispatch key: autograd, then the computation itself.

Activation to_activation(std::int64_t activation) {
  if (activation < 0 || activation > 3)
    throw Error(
        format("bias_activation: {} is no activation; 0 none, 1 gelu_tanh, 2 gelu_erf, 3 relu", activation));
  return static_cast<Activation>(activation);
}

at::Tensor compute(const at::Tensor& x, const OptionalTensor& bias, std::int64_t activation) {
  const auto f = to_activation(activation);
  const auto add = bias.value_or(at::Tensor());
  check(x, add);
  if (!fused(x)) return bias_activation_reference(x, add, f);
  const auto rows = x.contiguous();
  const auto out = at::empty_like(rows);
  forward_rows(out, rows, in_math_type(add, rows), f);
  return out;
}

at::Tensor shape_only(const at::Tensor& x, const OptionalTensor& bias, std::int64_t activation) {
  to_activation(activation);
  check(x, bias.value_or(at::Tensor()));
  return at::empty(x.sizes(), x.options());
}

at::Tensor call(const at::Tensor& x, const OptionalTensor& bias, std::int64_t activation) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("stoa::bias_activation", "").typed<decltype(compute)>();
  return op.call(x, bias, activation);
}

at::Tensor differentiate(const at::Tensor& x, const OptionalTensor& bias, std::int64_t activation) {
  const auto add = bias.value_or(at::Tensor());
  if (!at::GradMode::is_enabled() || !(x.requires_grad() || (add.defined() && add.requires_grad()))) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    return call(x, bias, activation);
  }
  const auto f = to_activation(activation);
  check(x, add);
  if (!fused(x)) return bias_activation_reference(x, add, f);
  return BiasActivationFunction::apply(x, bias, activation);
}

OptionalTensor optional(const at::Tensor& tensor) {
  return tensor.defined() ? OptionalTensor(tensor) : std::nullopt;
}

}  // namespace

at::Tensor bias_activation(const at::Tensor& x, const at::Tensor& bias, Activation activation) {
  if (!x.defined()) check(x, bias);  // the dispatcher needs a tensor to choose by
  return call(x, optional(bias), static_cast<std::int64_t>(activation));
}

at::Tensor bias_activation_reference(const at::Tensor& x, const at::Tensor& bias, Activation activation) {
  const auto type = at::toOpMathType(x.scalar_type());
  const auto sum = bias.defined() ? x.to(type) + bias.to(type) : x.to(type);
  return activate(sum, activation).to(x.scalar_type());
}

TORCH_LIBRARY_FRAGMENT(stoa, m) {
  m.def("bias_activation(Tensor x, Tensor? bias, int activation=1) -> Tensor");
}
TORCH_LIBRARY_IMPL(stoa, CompositeExplicitAutograd, m) {
  m.impl("bias_activation", &compute);
}
TORCH_LIBRARY_IMPL(stoa, Autograd, m) {
  m.impl("bias_activation", &differentiate);
}
TORCH_LIBRARY_IMPL(stoa, Meta, m) {
  m.impl("bias_activation", &shape_only);
}

}  // namespace stoa::ops
