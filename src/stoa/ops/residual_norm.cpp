#include "stoa/ops/residual_norm.h"

#include <ATen/ATen.h>
#include <ATen/OpMathType.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <array>
#include <tuple>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/ops/cuda_call.h"
#include "stoa/ops/residual_norm_cuda.h"
#include "stoa/ops/residual_norm_kernels.h"
#include "stoa/ops/row_blocks.h"
#include "stoa/tensor/shape.h"

namespace stoa::ops {

namespace {

using OptionalTensor = std::optional<at::Tensor>;

// The arguments of one call; without y a plain layer norm.
struct Call {
  at::Tensor x, gamma, beta, y, bias, scale, factor;
  double eps;
};

void check(const Call& call) {
  const auto& x = call.x;
  if (!x.defined() || x.dim() == 0 || x.size(-1) == 0)
    throw ShapeError("residual_norm: x has no numbers a row; [*, dim] with dim 1 or more is needed");
  if (!x.is_floating_point())
    throw Error(format("residual_norm: x is of type {}; a floating-point type is needed",
                       c10::toString(x.scalar_type())));
  const auto check_row = [&](const at::Tensor& tensor, const char* what, bool needed) {
    if (!needed && !tensor.defined()) return;
    check_shape(tensor, {x.size(-1)}, format("residual_norm: {}", what));
  };
  check_row(call.gamma, "gamma", true);
  check_row(call.beta, "beta", true);
  check_row(call.bias, "bias", false);
  check_row(call.scale, "scale", false);
  if (call.y.defined() && call.y.sizes() != x.sizes())
    throw ShapeError(format("residual_norm: y has shape {}; {}, that of x, is needed",
                            shape_text(call.y.sizes()), shape_text(x.sizes())));
  if (call.factor.defined()) {
    const auto rows = x.numel() / x.size(-1);
    const auto samples = call.factor.numel();
    if (call.factor.dim() != 1 || (samples == 0 ? rows != 0 : rows % samples != 0))
      throw ShapeError(
          format("residual_norm: factor has shape {}; [samples] with samples a divisor of the {} rows is "
                 "needed",
                 shape_text(call.factor.sizes()), rows));
  }
  for (const auto* tensor : {&call.gamma, &call.beta, &call.y, &call.bias, &call.scale, &call.factor})
    if (tensor->defined() && tensor->device() != x.device())
      throw Error(format("residual_norm: x is on {} and an argument beside it on {}; move them to one device",
                         x.device().str(), tensor->device().str()));
}

// Calls work with a number of x's and one of y's kernel type; returns false where there is no kernel for
// them.
template <class Work>
bool with_types(const Call& call, const Work& work) {
  const auto x = call.x.scalar_type();
  const auto y = call.y.defined() ? call.y.scalar_type() : x;
  if (x == at::kFloat && y == at::kFloat)
    work(float{}, float{});
  else if (x == at::kDouble && y == at::kDouble)
    work(double{}, double{});
  else if (x == at::kBFloat16 && y == at::kBFloat16)
    work(Bfloat16{}, Bfloat16{});
  else if (x == at::kFloat && y == at::kBFloat16)
    work(float{}, Bfloat16{});
  else
    return false;
  return true;
}

bool fused(const Call& call) {
  return (call.x.is_cpu() || has_cuda_kernels(call.x)) && with_types(call, [](auto, auto) {});
}

template <class T>
const T* pointer(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<const T*>(tensor.const_data_ptr()) : nullptr;
}
template <class T>
T* target(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<T*>(tensor.mutable_data_ptr()) : nullptr;
}

// The call with rows one behind the other and parameters in the type of the arithmetic.
Call prepare(const Call& call) {
  const auto type = at::toOpMathType(call.x.scalar_type());
  const auto rows = [](const at::Tensor& tensor) { return tensor.defined() ? tensor.contiguous() : tensor; };
  const auto parameter = [&](const at::Tensor& tensor) {
    return tensor.defined() ? tensor.to(type).contiguous() : tensor;
  };
  return {rows(call.x),         parameter(call.gamma), parameter(call.beta),   rows(call.y),
          parameter(call.bias), parameter(call.scale), parameter(call.factor), call.eps};
}

struct Pass {
  at::Tensor sum, normed, mean, rstd;  // sum is x itself in a plain layer norm
};

// The kernels' view of a prepared call and its pass
template <class X, class Y>
NormRows<X, Y> view(const Call& call, const Pass& pass) {
  const auto dim = call.x.size(-1);
  const auto samples = call.factor.defined() ? std::max<std::int64_t>(1, call.factor.numel()) : 1;
  return {.dim = dim,
          .x = pointer<X>(call.x),
          .y = pointer<Y>(call.y),
          .bias = pointer<Math<X>>(call.bias),
          .scale = pointer<Math<X>>(call.scale),
          .factor = pointer<Math<X>>(call.factor),
          .rows_per_factor = std::max<std::int64_t>(1, call.x.numel() / dim / samples),
          .gamma = pointer<Math<X>>(call.gamma),
          .beta = pointer<Math<X>>(call.beta),
          .eps = static_cast<Math<X>>(call.eps),
          .sum = target<X>(pass.sum),
          .normed = target<Y>(pass.normed),
          .mean = target<Math<X>>(pass.mean),
          .rstd = target<Math<X>>(pass.rstd)};
}

// `call` is prepared
Pass run_forward(const Call& call) {
  const auto dim = call.x.size(-1);
  const auto rows = call.x.numel() / dim;
  Pass pass;
  pass.sum = call.y.defined() ? at::empty_like(call.x) : call.x;
  pass.normed = at::empty_like(call.y.defined() ? call.y : call.x);
  pass.mean = at::empty({rows}, call.gamma.options());
  pass.rstd = at::empty({rows}, call.gamma.options());
  with_types(call, [&]<class X, class Y>(X, Y) {
    const auto norm = view<X, Y>(call, pass);
#ifdef STOA_CUDA
    if (call.x.is_cuda())
      return launch_on(call.x, "residual_norm",
                       [&](void* stream) { return cuda::residual_norm_forward(norm, rows, stream); });
#endif
    for_some_rows(rows, dim,
                  [&](std::int64_t first, std::int64_t count) { residual_norm_forward(norm, first, count); });
  });
  return pass;
}

struct Needs {
  bool y, bias, scale;
};

struct Gradients {
  at::Tensor x, gamma, beta, y, bias, scale;
};

// The gradients to be, their sums over rows at `sum`: gamma, beta, then what is needed of bias and scale
template <class X, class Y>
NormGradients<X, Y> targets(const at::Tensor& grad_normed, const at::Tensor& grad_sum, const Gradients& g,
                            Math<X>* sum, std::int64_t dim, const Needs& needs) {
  const auto next = [&](bool needed) { return needed ? std::exchange(sum, sum + dim) : nullptr; };
  return {.grad_normed = pointer<Y>(grad_normed),
          .grad_sum = pointer<X>(grad_sum),
          .grad_x = target<X>(g.x),
          .grad_y = target<Y>(g.y),
          .grad_gamma = next(true),
          .grad_beta = next(true),
          .grad_bias = next(needs.bias),
          .grad_scale = next(needs.scale)};
}

// `call` is prepared; its x only tells shape and type where there is a y, its y may be missing unless scale
// needs it.
Gradients run_backward(const Call& call, const Pass& pass, const at::Tensor& grad_sum,
                       const at::Tensor& grad_normed, const Needs& needs) {
  const auto dim = call.x.size(-1);
  const auto rows = call.x.numel() / dim;
  const bool own_y = needs.y && (call.scale.defined() || call.factor.defined() ||
                                 grad_normed.scalar_type() != call.x.scalar_type());
  const auto sums = 2 + std::int64_t{needs.bias} + std::int64_t{needs.scale};
  // a GPU adds up its own blocks
  const auto blocks = call.x.is_cpu() ? row_blocks(rows) : 1;
  const auto partial = at::zeros({blocks, sums * dim}, call.gamma.options());
  Gradients g;
  g.x = at::empty_like(call.x);
  if (own_y) g.y = at::empty_like(grad_normed);
  with_types(call, [&]<class X, class Y>(X, Y) {
    const auto norm = view<X, Y>(call, pass);
    auto* const sum = target<Math<X>>(partial);
#ifdef STOA_CUDA
    if (call.x.is_cuda()) {
      const auto scratch = at::empty({cuda::residual_norm_scratch(rows, dim)}, partial.options());
      return launch_on(call.x, "residual_norm", [&](void* stream) {
        return cuda::residual_norm_backward(norm, targets<X, Y>(grad_normed, grad_sum, g, sum, dim, needs),
                                            rows, target<Math<X>>(scratch), stream);
      });
    }
#endif
    for_each_row_block(rows, dim, [&](std::int64_t block, std::int64_t first, std::int64_t count) {
      auto* const of_block = sum + block * sums * dim;
      residual_norm_backward(norm, targets<X, Y>(grad_normed, grad_sum, g, of_block, dim, needs), first,
                             count);
    });
  });
  const auto totals = (call.x.is_cpu() ? add_row_blocks(partial) : partial).view({sums, dim});
  g.gamma = totals[0];
  g.beta = totals[1];
  if (needs.bias) g.bias = totals[2];
  if (needs.scale) g.scale = totals[sums - 1];
  if (needs.y && !own_y) g.y = g.x;
  return g;
}

class ResidualNormFunction : public torch::autograd::Function<ResidualNormFunction> {
 public:
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context,
                                                const at::Tensor& x, const at::Tensor& gamma,
                                                const at::Tensor& beta, const OptionalTensor& y,
                                                const OptionalTensor& bias, const OptionalTensor& scale,
                                                const OptionalTensor& factor, double eps) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto given = [](const OptionalTensor& tensor) { return tensor.value_or(at::Tensor()); };
    const auto call = prepare({x, gamma, beta, given(y), given(bias), given(scale), given(factor), eps});
    const auto pass = run_forward(call);
    const bool scale_learns = scale && scale->requires_grad();
    context->set_materialize_grads(false);
    context->save_for_backward({pass.sum, pass.mean, pass.rstd, gamma, beta, given(bias), given(scale),
                                call.factor, scale_learns ? call.y : at::Tensor()});
    context->saved_data["added"] = call.y.defined();
    context->saved_data["type"] = pass.normed.scalar_type();
    if (!call.y.defined()) return {pass.normed};
    return {pass.sum, pass.normed};
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    if (at::GradMode::is_enabled())
      throw Error("residual_norm: second derivatives are only available from the reference form");
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto saved = context->get_saved_variables();
    const auto& sum = saved[0];
    const auto& gamma = saved[3];
    const auto& beta = saved[4];
    const auto& bias = saved[5];
    const auto& scale = saved[6];
    const bool added = context->saved_data["added"].toBool();
    // the context counts the arguments that were given: x, gamma, beta, y, bias, scale
    std::size_t index = 3;
    const auto need = [&](bool given) { return given && context->needs_input_grad(index++); };
    Needs needs{};
    needs.y = need(added);
    needs.bias = need(bias.defined());
    needs.scale = need(scale.defined());

    auto grad_normed = grads.back();
    auto grad_sum = added ? grads[0] : at::Tensor();
    const auto type = context->saved_data["type"].toScalarType();
    grad_normed =
        grad_normed.defined() ? grad_normed.contiguous() : at::zeros_like(sum, sum.options().dtype(type));
    if (grad_sum.defined()) grad_sum = grad_sum.contiguous();
    // the kernels read y's rows only for scale, and know by `y` that rows were added
    const auto y = !added ? at::Tensor() : saved[8].defined() ? saved[8] : grad_normed;
    const auto call = prepare({sum, gamma, beta, y, bias, scale, saved[7], 0});
    auto g = run_backward(call, {sum, {}, saved[1], saved[2]}, grad_sum, grad_normed, needs);
    const auto as = [](const at::Tensor& grad, const at::Tensor& parameter) {
      return grad.defined() ? grad.to(parameter.scalar_type()) : grad;
    };
    return {g.x,          as(g.gamma, gamma), as(g.beta, beta), g.y, as(g.bias, bias), as(g.scale, scale),
            at::Tensor(), at::Tensor()};
  }
};

// The operators' kernels, by dispatch key: autograd, then the computation itself.

ResidualNorm reference(const Call& call) {
  const auto type = at::toOpMathType(call.x.scalar_type());
  auto sum = call.x;
  if (call.y.defined()) {
    auto branch = call.y.to(type);
    if (call.bias.defined()) branch = branch + call.bias.to(type);
    if (call.scale.defined()) branch = branch * call.scale.to(type);
    if (call.factor.defined() && call.factor.numel() > 0)
      branch =
          (branch.reshape({call.factor.numel(), -1}) * call.factor.to(type).unsqueeze(1)).view_as(call.x);
    sum = (call.x.to(type) + branch).to(call.x.scalar_type());
  }
  const auto normed =
      at::layer_norm(sum.to(type), {call.x.size(-1)}, call.gamma.to(type), call.beta.to(type), call.eps);
  return {sum, normed.to((call.y.defined() ? call.y : call.x).scalar_type())};
}

ResidualNorm compute(const Call& call) {
  check(call);
  if (!fused(call)) return reference(call);
  const auto pass = run_forward(prepare(call));
  return {pass.sum, pass.normed};
}

ResidualNorm shape_only(const Call& call) {
  check(call);
  const auto like = [](const at::Tensor& tensor) { return at::empty(tensor.sizes(), tensor.options()); };
  return {like(call.x), like(call.y.defined() ? call.y : call.x)};
}

ResidualNorm dispatch(const Call& call);

ResidualNorm differentiate(const Call& call) {
  const auto learns = [](const at::Tensor& tensor) { return tensor.defined() && tensor.requires_grad(); };
  const bool any = std::ranges::any_of(
      std::array{call.x, call.gamma, call.beta, call.y, call.bias, call.scale, call.factor}, learns);
  if (!any || !at::GradMode::is_enabled()) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    return dispatch(call);
  }
  check(call);
  if (!fused(call) || learns(call.factor)) return reference(call);
  const auto optional = [](const at::Tensor& tensor) {
    return tensor.defined() ? OptionalTensor(tensor) : std::nullopt;
  };
  const auto out =
      ResidualNormFunction::apply(call.x, call.gamma, call.beta, optional(call.y), optional(call.bias),
                                  optional(call.scale), optional(call.factor), call.eps);
  return {out.front(), out.back()};
}

template <ResidualNorm (*kernel)(const Call&)>
std::tuple<at::Tensor, at::Tensor> unpack(const at::Tensor& x, const at::Tensor& y,
                                          const OptionalTensor& bias, const at::Tensor& gamma,
                                          const at::Tensor& beta, double eps, const OptionalTensor& scale,
                                          const OptionalTensor& factor) {
  const auto given = [](const OptionalTensor& tensor) { return tensor.value_or(at::Tensor()); };
  const auto result = kernel({x, gamma, beta, y, given(bias), given(scale), given(factor), eps});
  return {result.sum, result.normed};
}

template <ResidualNorm (*kernel)(const Call&)>
at::Tensor unpack_plain(const at::Tensor& x, const at::Tensor& gamma, const at::Tensor& beta, double eps) {
  return kernel({x, gamma, beta, {}, {}, {}, {}, eps}).normed;
}

ResidualNorm dispatch(const Call& call) {
  auto& all = c10::Dispatcher::singleton();
  static const auto with_sum =
      all.findSchemaOrThrow("stoa::residual_norm", "").typed<decltype(unpack<compute>)>();
  static const auto plain =
      all.findSchemaOrThrow("stoa::layer_norm", "").typed<decltype(unpack_plain<compute>)>();
  if (!call.y.defined()) return {{}, plain.call(call.x, call.gamma, call.beta, call.eps)};
  const auto optional = [](const at::Tensor& tensor) {
    return tensor.defined() ? OptionalTensor(tensor) : std::nullopt;
  };
  const auto [sum, normed] = with_sum.call(call.x, call.y, optional(call.bias), call.gamma, call.beta,
                                           call.eps, optional(call.scale), optional(call.factor));
  return {sum, normed};
}

}  // namespace

ResidualNorm residual_norm(const at::Tensor& x, const at::Tensor& y, const at::Tensor& bias,
                           const at::Tensor& gamma, const at::Tensor& beta, double eps,
                           const at::Tensor& scale, const at::Tensor& factor) {
  const Call call{x, gamma, beta, y, bias, scale, factor, eps};
  if (!x.defined()) check(call);  // the dispatcher needs a tensor to choose by
  if (!y.defined())
    throw ShapeError("residual_norm: y is an undefined tensor; call layer_norm where nothing is added");
  return dispatch(call);
}

ResidualNorm residual_norm_reference(const at::Tensor& x, const at::Tensor& y, const at::Tensor& bias,
                                     const at::Tensor& gamma, const at::Tensor& beta, double eps,
                                     const at::Tensor& scale, const at::Tensor& factor) {
  return reference({x, gamma, beta, y, bias, scale, factor, eps});
}

at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& gamma, const at::Tensor& beta, double eps) {
  const Call call{x, gamma, beta, {}, {}, {}, {}, eps};
  if (!x.defined()) check(call);
  return dispatch(call).normed;
}

at::Tensor layer_norm_reference(const at::Tensor& x, const at::Tensor& gamma, const at::Tensor& beta,
                                double eps) {
  return reference({x, gamma, beta, {}, {}, {}, {}, eps}).normed;
}

TORCH_LIBRARY_FRAGMENT(stoa, m) {
  m.def(
      "residual_norm(Tensor x, Tensor y, Tensor? bias, Tensor gamma, Tensor beta, float eps=1e-6, Tensor? "
      "scale=None, "
      "Tensor? factor=None) -> (Tensor, Tensor)");
  m.def("layer_norm(Tensor x, Tensor gamma, Tensor beta, float eps=1e-6) -> Tensor");
}
TORCH_LIBRARY_IMPL(stoa, CompositeExplicitAutograd, m) {
  m.impl("residual_norm", &unpack<compute>);
  m.impl("layer_norm", &unpack_plain<compute>);
}
TORCH_LIBRARY_IMPL(stoa, Autograd, m) {
  m.impl("residual_norm", &unpack<differentiate>);
  m.impl("layer_norm", &unpack_plain<differentiate>);
}
TORCH_LIBRARY_IMPL(stoa, Meta, m) {
  m.impl("residual_norm", &unpack<shape_only>);
  m.impl("layer_norm", &unpack_plain<shape_only>);
}

}  // namespace stoa::ops
