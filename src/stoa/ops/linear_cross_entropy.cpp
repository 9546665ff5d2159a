#include "stoa/ops/linear_cross_entropy.h"

#include <ATen/ATen.h>
#include <ATen/OpMathType.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <tuple>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/ops/gemm.h"
#include "stoa/ops/linear_cross_entropy_blocks.h"
#include "stoa/tensor/shape.h"

namespace stoa::ops {
namespace {

using OptionalTensor = std::optional<at::Tensor>;
using Results = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

// The arguments of one call
struct Call {
  at::Tensor x, weight, bias, target;
  double smoothing;
  std::int64_t ignore_index;
  bool bf16;
};

void check(const Call& call) {
  check_shape(call.x, {-1, -1}, "linear_cross_entropy: x");
  check_shape(call.weight, {-1, call.x.size(1)}, "linear_cross_entropy: weight");
  const std::int64_t classes = call.weight.size(0);
  if (classes == 0) throw ShapeError("linear_cross_entropy: weight has no row; one for each class is needed");
  if (call.bias.defined()) check_shape(call.bias, {classes}, "linear_cross_entropy: bias");
  check_shape(call.target, {call.x.size(0)}, "linear_cross_entropy: target");
  if (call.target.scalar_type() != at::kLong)
    throw Error(format("linear_cross_entropy: target is of type {}; int64 is needed",
                       c10::toString(call.target.scalar_type())));
  const auto type = call.x.scalar_type();
  for (const auto* tensor : {&call.x, &call.weight, &call.bias})
    if (tensor->defined() && (!tensor->is_floating_point() || tensor->scalar_type() != type))
      throw Error(
          format("linear_cross_entropy: x is of type {} and an argument beside it of type {}; one "
                 "floating-point type for all, or autocast, is needed",
                 c10::toString(type), c10::toString(tensor->scalar_type())));
  if (!(call.smoothing >= 0 && call.smoothing <= 1))
    throw Error(format("linear_cross_entropy: label_smoothing is {}; 0 to 1 is needed", call.smoothing));
}

bool in_blocks(const Call& call) {
  return has_gemm_blocks() && call.x.is_cpu() && call.weight.is_cpu() &&
         (!call.bias.defined() || call.bias.is_cpu()) && call.x.scalar_type() == at::kFloat &&
         call.weight.numel() > 0;
}

/// The call with tensors one row behind the other, and the rows that count with their targets, checked.
CrossEntropyCall prepare(const Call& call) {
  CrossEntropyCall result{call.x.contiguous(),
                          call.weight.contiguous(),
                          call.bias.defined() ? call.bias.contiguous() : call.bias,
                          {},
                          {},
                          call.smoothing};
  const std::int64_t classes = call.weight.size(0);
  const auto target = call.target.to(at::kCPU).contiguous();
  const auto* const of_row = target.const_data_ptr<std::int64_t>();
  for (std::int64_t row = 0; row < target.numel(); ++row) {
    if (of_row[row] == call.ignore_index) continue;
    if (of_row[row] < 0 || of_row[row] >= classes)
      throw DataError(
          format("linear_cross_entropy: the target of row {} is {}; a class from 0 to {} is "
                 "needed, or {} for a row that does not count",
                 row, of_row[row], classes - 1, call.ignore_index));
    result.row.push_back(row);
    result.target.push_back(of_row[row]);
  }
  return result;
}

/// The scores of a chunk of rows in memory, and the gradients while they are there. Gradients are divided by
/// the number of rows at the end: in half precision, a row's share may be too small for its scores' type.
CrossEntropyPass by_chunks(const CrossEntropyCall& call) {
  auto pass = CrossEntropyPass::zeros(call);
  const auto on_device = [&](const std::vector<std::int64_t>& numbers) {
    return at::tensor(numbers, at::kLong).to(call.x.device());
  };
  const auto rows = on_device(call.row), targets = on_device(call.target).unsqueeze(1);
  const auto type = call.x.scalar_type(), math = pass.loss.scalar_type();
  const std::int64_t classes = call.weight.size(0), step = rows_of_chunk(classes);
  const OptionalTensor bias = call.bias.defined() ? OptionalTensor(call.bias) : std::nullopt;
  for (std::int64_t first = 0; first < call.counted(); first += step) {
    const std::int64_t count = std::min(step, call.counted() - first);
    const auto row = rows.narrow(0, first, count), target = targets.narrow(0, first, count);
    const auto x = call.x.index_select(0, row);
    auto log_p = at::log_softmax(at::linear(x, call.weight, bias), 1, math);
    const auto of_target = log_p.gather(1, target);
    auto loss = of_target * (call.smoothing - 1);
    if (call.smoothing > 0) loss.sub_(log_p.mean(1, true), call.smoothing);
    pass.row_loss.index_copy_(0, row, loss.squeeze(1));
    pass.correct.index_copy_(0, row, of_target.ge(log_p.amax(1, true)).squeeze(1));
    pass.loss.add_(loss.sum());
    if (!call.need_any()) continue;
    const auto grad = log_p.exp_().sub_(call.smoothing / static_cast<double>(classes));
    grad.scatter_add_(1, target, at::full_like(of_target, call.smoothing - 1));
    const auto g = grad.to(type);
    if (call.need_x) pass.x.index_copy_(0, row, g.mm(call.weight).to(math));
    if (call.need_weight && type == math) pass.weight.addmm_(g.t(), x);
    if (call.need_weight && type != math) pass.weight.add_(g.t().mm(x));
    if (call.need_bias) pass.bias.add_(grad.sum(0));
  }
  for (const auto* tensor : {&pass.loss, &pass.x, &pass.weight, &pass.bias})
    if (tensor->defined() && call.counted() > 0) tensor->div_(call.counted());
  return pass;
}

CrossEntropyPass run(const CrossEntropyCall& prepared, const Call& call) {
  return in_blocks(call) ? cross_entropy_blocks(prepared, choose_operands(call.bf16)) : by_chunks(prepared);
}

class LinearCrossEntropyFunction : public torch::autograd::Function<LinearCrossEntropyFunction> {
 public:
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context,
                                                const at::Tensor& x, const at::Tensor& weight,
                                                const OptionalTensor& bias, const at::Tensor& target,
                                                double smoothing, std::int64_t ignore_index, bool bf16) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const Call call{x, weight, bias.value_or(at::Tensor()), target, smoothing, ignore_index, bf16};
    auto prepared = prepare(call);
    prepared.need_x = x.requires_grad();
    prepared.need_weight = weight.requires_grad();
    prepared.need_bias = bias && bias->requires_grad();
    auto pass = run(prepared, call);
    context->save_for_backward({pass.x, pass.weight, pass.bias});
    context->saved_data["type"] = x.scalar_type();
    context->mark_non_differentiable({pass.row_loss, pass.correct});
    return {pass.loss, pass.row_loss, pass.correct};
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    if (at::GradMode::is_enabled())
      throw Error(
          "linear_cross_entropy: second derivatives are only available from linear_cross_entropy_reference");
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto saved = context->get_saved_variables();
    const auto type = context->saved_data["type"].toScalarType();
    // a loss usually has the gradient 1, which spares a copy; asking a GPU for it would cost more than that
    const bool as_they_are = grads[0].is_cpu() && grads[0].item<double>() == 1;
    const auto scaled = [&](const at::Tensor& gradient) {
      if (!gradient.defined()) return gradient;
      return (as_they_are ? gradient : gradient * grads[0]).to(type);
    };
    return {scaled(saved[0]), scaled(saved[1]), scaled(saved[2]), at::Tensor(),
            at::Tensor(),     at::Tensor(),     at::Tensor()};
  }
};

// The operator's kernels, by dispatch key: autocast, then autograd, then the computation itself.

Results compute(const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& bias,
                const at::Tensor& target, double smoothing, std::int64_t ignore_index, bool bf16) {
  const Call call{x, weight, bias.value_or(at::Tensor()), target, smoothing, ignore_index, bf16};
  check(call);
  const auto pass = run(prepare(call), call);
  return {pass.loss, pass.row_loss, pass.correct};
}

Results dispatch(const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& bias,
                 const at::Tensor& target, double smoothing, std::int64_t ignore_index, bool bf16) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("stoa::linear_cross_entropy", "")
                             .typed<decltype(compute)>();
  return op.call(x, weight, bias, target, smoothing, ignore_index, bf16);
}

Results differentiate(const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& bias,
                      const at::Tensor& target, double smoothing, std::int64_t ignore_index, bool bf16) {
  const bool any = x.requires_grad() || weight.requires_grad() || (bias && bias->requires_grad());
  if (!any || !at::GradMode::is_enabled()) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    return dispatch(x, weight, bias, target, smoothing, ignore_index, bf16);
  }
  check({x, weight, bias.value_or(at::Tensor()), target, smoothing, ignore_index, bf16});
  if (x.is_meta()) {
    const auto plain = linear_cross_entropy_reference(x, weight, bias.value_or(at::Tensor()), target,
                                                      smoothing, ignore_index);
    return {plain.loss, plain.row_loss, plain.correct};
  }
  const auto out = LinearCrossEntropyFunction::apply(x, weight, bias, target, smoothing, ignore_index, bf16);
  return {out[0], out[1], out[2]};
}

Results autocast(const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& bias,
                 const at::Tensor& target, double smoothing, std::int64_t ignore_index, bool) {
  const c10::impl::ExcludeDispatchKeyGuard without_autocast(c10::autocast_dispatch_keyset);
  const auto device = x.device().type();
  const bool rounds = autocast_in_blocks(x.device());  // in the cache, so that tensors stay in fp32
  const auto lower = at::autocast::get_autocast_dtype(device);
  const auto cast = [&](const at::Tensor& tensor) {
    if (!rounds) return at::autocast::cached_cast(lower, tensor, device);
    return tensor.scalar_type() == at::kBFloat16 ? tensor.to(at::kFloat) : tensor;
  };
  return dispatch(cast(x), cast(weight), bias ? OptionalTensor(cast(*bias)) : bias, target, smoothing,
                  ignore_index, rounds);
}

Results shape_only(const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& bias,
                   const at::Tensor& target, double smoothing, std::int64_t ignore_index, bool bf16) {
  check({x, weight, bias.value_or(at::Tensor()), target, smoothing, ignore_index, bf16});
  const auto options = x.options().dtype(at::toOpMathType(x.scalar_type()));
  return {at::empty({}, options), at::empty({x.size(0)}, options),
          at::empty({x.size(0)}, options.dtype(at::kBool))};
}

}  // namespace

LinearCrossEntropy linear_cross_entropy(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                                        const at::Tensor& target, double label_smoothing,
                                        std::int64_t ignore_index, bool bf16) {
  const auto optional = bias.defined() ? OptionalTensor(bias) : std::nullopt;
  const auto [loss, row_loss, correct] =
      dispatch(x, weight, optional, target, label_smoothing, ignore_index, bf16);
  return {loss, row_loss, correct};
}

LinearCrossEntropy linear_cross_entropy_reference(const at::Tensor& x, const at::Tensor& weight,
                                                  const at::Tensor& bias, const at::Tensor& target,
                                                  double label_smoothing, std::int64_t ignore_index) {
  check({x, weight, bias, target, label_smoothing, ignore_index, false});
  const auto scores = at::linear(x, weight, bias.defined() ? OptionalTensor(bias) : std::nullopt)
                          .to(at::toOpMathType(x.scalar_type()));
  const auto counts = target.ne(ignore_index);
  const auto row_loss =
      at::cross_entropy_loss(scores, target, {}, at::Reduction::None, ignore_index, label_smoothing);
  const auto of_target = scores.gather(1, target.masked_fill(~counts, 0).unsqueeze(1));
  return {row_loss.sum() / counts.sum().clamp_min(1), row_loss.detach(),
          counts & of_target.ge(scores.amax(1, true)).squeeze(1)};
}

TORCH_LIBRARY_FRAGMENT(stoa, m) {
  m.def(
      "linear_cross_entropy(Tensor x, Tensor weight, Tensor? bias, Tensor target, float label_smoothing=0., "
      "int ignore_index=-100, bool bf16=False) -> (Tensor loss, Tensor row_loss, Tensor correct)");
}
TORCH_LIBRARY_IMPL(stoa, CompositeExplicitAutograd, m) {
  m.impl("linear_cross_entropy", &compute);
}
TORCH_LIBRARY_IMPL(stoa, Autograd, m) {
  m.impl("linear_cross_entropy", &differentiate);
}
TORCH_LIBRARY_IMPL(stoa, AutocastCPU, m) {
  m.impl("linear_cross_entropy", &autocast);
}
TORCH_LIBRARY_IMPL(stoa, AutocastCUDA, m) {
  m.impl("linear_cross_entropy", &autocast);
}
TORCH_LIBRARY_IMPL(stoa, Meta, m) {
  m.impl("linear_cross_entropy", &shape_only);
}

}  // namespace stoa::ops
