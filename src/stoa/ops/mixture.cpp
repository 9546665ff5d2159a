#include "stoa/ops/mixture.h"

#include <ATen/ATen.h>
#include <ATen/OpMathType.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/ops/gemm.h"
#include "stoa/ops/mixture_blocks.h"
#include "stoa/ops/mixture_experts.h"
#include "stoa/ops/mixture_rows.h"
#include "stoa/tensor/shape.h"

namespace stoa::ops {

namespace {

// The arguments of one call, as the operator's kernels hand them on.
struct Call {
  at::Tensor x;
  Assignments assignments;
  ExpertWeights weights;
  MixtureSettings settings;
  at::Tensor hidden_mask;
  at::Tensor output_mask;
};

void check_same(const at::Tensor& tensor, const at::Tensor& x, const char* what) {
  if (tensor.device() != x.device())
    throw Error(format("mixture: {} is on {} and x on {}; move them to one device", what,
                       tensor.device().str(), x.device().str()));
  if (tensor.scalar_type() != x.scalar_type())
    throw Error(format("mixture: {} is of type {} and x of type {}; convert one of them", what,
                       c10::toString(tensor.scalar_type()), c10::toString(x.scalar_type())));
}

void check(const Call& call) {
  const auto& [x, assignments, weights, settings, hidden_mask, output_mask] = call;
  check_shape(x, {-1, -1}, "mixture: x");
  check_shape(assignments.token, {-1}, "mixture: token");
  const auto count = assignments.token.size(0);
  check_shape(assignments.expert, {count}, "mixture: expert");
  check_shape(assignments.gate, {count}, "mixture: gate");
  check_shape(weights.w_in, {-1, x.size(1), -1}, "mixture: w_in");
  const auto experts = weights.w_in.size(0);
  const auto hidden = weights.w_in.size(2);
  check_shape(weights.b_in, {experts, hidden}, "mixture: b_in");
  check_shape(weights.w_out, {experts, hidden, -1}, "mixture: w_out");
  check_shape(weights.b_out, {experts, weights.w_out.size(2)}, "mixture: b_out");
  if (experts < 1) throw ShapeError("mixture: w_in has no experts; at least 1 is needed");
  if (hidden_mask.defined()) check_shape(hidden_mask, {count, hidden}, "mixture: hidden_mask");
  if (output_mask.defined()) check_shape(output_mask, {count, weights.w_out.size(2)}, "mixture: output_mask");
  check_same(weights.w_in, x, "w_in");
  check_same(weights.b_in, x, "b_in");
  check_same(weights.w_out, x, "w_out");
  check_same(weights.b_out, x, "b_out");
  if (assignments.token.scalar_type() != at::kLong || assignments.expert.scalar_type() != at::kLong)
    throw Error("mixture: token and expert must be int64 tensors");
}

bool in_blocks(const at::Tensor& x, const ExpertWeights& weights, MixtureBackend backend) {
  return backend == MixtureBackend::kSorted && can_use_blocks(x, weights);
}

struct Pass {
  c10::intrusive_ptr<RowLayout> layout;
  RowMasks masks;
  ExpertTrace trace;
  at::Tensor output;
};

// Forward pass of the padded and the sorted form. `gate` is contiguous and of the type sums are made in.
Pass run_forward(const Call& call, const at::Tensor& gate, bool keep) {
  Pass pass;
  pass.layout = lay_out_rows(call.assignments.token, call.assignments.expert, call.x.size(0),
                             call.weights.w_in.size(0), call.settings.backend == MixtureBackend::kPadded);
  if (call.hidden_mask.defined()) pass.masks.hidden = gather_assignments(call.hidden_mask, *pass.layout);
  if (call.output_mask.defined()) pass.masks.output = gather_assignments(call.output_mask, *pass.layout);
  if (in_blocks(call.x, call.weights, call.settings.backend)) {
    const auto& w = call.weights;
    pass.trace =
        blocks_forward(call.x.contiguous(),
                       {w.w_in.contiguous(), w.b_in.contiguous(), w.w_out.contiguous(), w.b_out.contiguous()},
                       *pass.layout, call.settings, pass.masks, keep);
  } else {
    pass.trace = experts_forward(gather_tokens(call.x, *pass.layout), call.weights, *pass.layout,
                                 call.settings, pass.masks, keep);
  }
  pass.output = combine_rows(pass.trace.output_behind, gate, *pass.layout);
  return pass;
}

class MixtureFunction : public torch::autograd::Function<MixtureFunction> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& gate, const at::Tensor& w_in, const at::Tensor& b_in,
                            const at::Tensor& w_out, const at::Tensor& b_out, const Call& call) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto pass = run_forward(call, gate, true);
    const auto& trace = pass.trace;
    context->save_for_backward({x, gate, w_in, w_out, trace.hidden_before, trace.hidden_behind,
                                trace.output_before, trace.output_behind, pass.masks.hidden,
                                pass.masks.output, b_in, b_out});
    context->saved_data["layout"] = c10::IValue::make_capsule(pass.layout);
    context->saved_data["hidden"] = static_cast<std::int64_t>(call.settings.hidden);
    context->saved_data["output"] = static_cast<std::int64_t>(call.settings.output);
    context->saved_data["backend"] = static_cast<std::int64_t>(call.settings.backend);
    context->saved_data["bf16"] = call.settings.bf16;
    return pass.output;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    if (at::GradMode::is_enabled())
      throw Error("mixture: second derivatives are only available with the naive back end");
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto saved = context->get_saved_variables();
    const auto& x = saved[0];
    const auto& gate = saved[1];
    const ExpertWeights weights{saved[2].contiguous(), saved[10].contiguous(), saved[3].contiguous(),
                                saved[11].contiguous()};
    const ExpertTrace trace{saved[4], saved[5], saved[6], saved[7]};
    const RowMasks masks{saved[8], saved[9]};
    auto& data = context->saved_data;
    const auto layout = c10::static_intrusive_pointer_cast<RowLayout>(data["layout"].toCapsule());
    const MixtureSettings settings{
        static_cast<Activation>(data["hidden"].toInt()), static_cast<Activation>(data["output"].toInt()),
        static_cast<MixtureBackend>(data["backend"].toInt()), data["bf16"].toBool()};
    const auto need = [&](std::size_t i) { return context->needs_input_grad(i); };
    const ExpertNeeds needs{need(0), need(2), need(3), need(4), need(5)};

    if (in_blocks(x, weights, settings.backend)) {
      const auto g = blocks_backward(grads[0].contiguous(), x.contiguous(), gate, trace, weights, *layout,
                                     settings, masks, needs);
      return {needs.rows ? combine_rows(g.rows, {}, *layout) : at::Tensor(),
              need(1) ? g.gate : at::Tensor(),
              g.weights.w_in,
              g.weights.b_in,
              g.weights.w_out,
              g.weights.b_out,
              at::Tensor()};
    }
    const auto [grad_rows, grad_gate] =
        combine_rows_backward(grads[0].contiguous(), trace.output_behind, gate, *layout);
    const auto rows = needs.w_in ? gather_tokens(x, *layout) : at::Tensor();
    const auto g = experts_backward(grad_rows, rows, trace, weights, *layout, settings, masks, needs);
    return {needs.rows ? combine_rows(g.rows, {}, *layout) : at::Tensor(),
            need(1) ? grad_gate : at::Tensor(),
            g.weights.w_in,
            g.weights.b_in,
            g.weights.w_out,
            g.weights.b_out,
            at::Tensor()};
  }
};

// The kernels, by dispatch key: autocast, then autograd, then the computation itself.

at::Tensor compute(const Call& call) {
  check(call);
  if (call.settings.backend == MixtureBackend::kNaive)
    return mixture_reference(call.x, call.assignments, call.weights, call.settings, call.hidden_mask,
                             call.output_mask);
  const auto gate = call.assignments.gate.to(at::toOpMathType(call.x.scalar_type())).contiguous();
  return run_forward(call, gate, false).output;
}

at::Tensor dispatch(const Call& call);

at::Tensor differentiate(const Call& call) {
  const auto& [x, assignments, weights, settings, hidden_mask, output_mask] = call;
  const auto needs_gradient = [](const at::Tensor& tensor) {
    return tensor.defined() && tensor.requires_grad();
  };
  const bool any = needs_gradient(x) || needs_gradient(assignments.gate) || needs_gradient(weights.w_in) ||
                   needs_gradient(weights.b_in) || needs_gradient(weights.w_out) ||
                   needs_gradient(weights.b_out);
  if (!any || !at::GradMode::is_enabled()) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    return dispatch(call);
  }
  check(call);
  if (settings.backend == MixtureBackend::kNaive)
    return mixture_reference(x, assignments, weights, settings, hidden_mask, output_mask);
  const auto gate = assignments.gate.to(at::toOpMathType(x.scalar_type())).contiguous();
  return MixtureFunction::apply(x, gate, weights.w_in, weights.b_in, weights.w_out, weights.b_out, call);
}

at::Tensor autocast(const Call& call) {
  const c10::impl::ExcludeDispatchKeyGuard without_autocast(c10::autocast_dispatch_keyset);
  const auto device = call.x.device().type();
  const auto type = at::autocast::get_autocast_dtype(device);
  const auto cast = [&](at::Tensor& tensor) { tensor = at::autocast::cached_cast(type, tensor, device); };
  auto lower = call;
  if (autocast_in_blocks(call.x.device())) {
    if (lower.x.scalar_type() == at::kBFloat16) lower.x = lower.x.to(at::kFloat);
    lower.settings.bf16 = true;
    if (in_blocks(lower.x, lower.weights, lower.settings.backend)) return dispatch(lower);
  }
  for (auto* tensor :
       {&lower.x, &lower.weights.w_in, &lower.weights.b_in, &lower.weights.w_out, &lower.weights.b_out})
    cast(*tensor);
  return dispatch(lower);
}

at::Tensor shape_only(const Call& call) {
  check(call);
  return at::empty({call.x.size(0), call.weights.w_out.size(2)}, call.x.options());
}

using OptionalTensor = std::optional<at::Tensor>;

template <at::Tensor (*kernel)(const Call&)>
at::Tensor unpack(const at::Tensor& x, const at::Tensor& token, const at::Tensor& expert,
                  const at::Tensor& gate, const at::Tensor& w_in, const at::Tensor& b_in,
                  const at::Tensor& w_out, const at::Tensor& b_out, std::int64_t hidden, std::int64_t output,
                  std::int64_t backend, const OptionalTensor& hidden_mask, const OptionalTensor& output_mask,
                  bool bf16) {
  for (const auto activation : {hidden, output})
    if (activation < 0 || activation > 3)
      throw Error(
          format("mixture: {} is no activation; 0 none, 1 gelu_tanh, 2 gelu_erf, 3 relu", activation));
  if (backend < 0 || backend > 2)
    throw Error(format("mixture: {} is no back end; 0 naive, 1 padded, 2 sorted", backend));
  return kernel({x,
                 {token, expert, gate},
                 {w_in, b_in, w_out, b_out},
                 {static_cast<Activation>(hidden), static_cast<Activation>(output),
                  static_cast<MixtureBackend>(backend), bf16},
                 hidden_mask.value_or(at::Tensor()),
                 output_mask.value_or(at::Tensor())});
}

at::Tensor dispatch(const Call& call) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("stoa::mixture", "").typed<decltype(unpack<compute>)>();
  const auto optional = [](const at::Tensor& mask) {
    return mask.defined() ? OptionalTensor(mask) : std::nullopt;
  };
  const auto& [x, a, w, settings, hidden_mask, output_mask] = call;
  return op.call(x, a.token, a.expert, a.gate, w.w_in, w.b_in, w.w_out, w.b_out,
                 static_cast<std::int64_t>(settings.hidden), static_cast<std::int64_t>(settings.output),
                 static_cast<std::int64_t>(settings.backend), optional(hidden_mask), optional(output_mask),
                 settings.bf16);
}

}  // namespace

at::Tensor mixture(const at::Tensor& x, const Assignments& assignments, const ExpertWeights& weights,
                   const MixtureSettings& settings, const at::Tensor& hidden_mask,
                   const at::Tensor& output_mask) {
  const Call call{x, assignments, weights, settings, hidden_mask, output_mask};
  if (!x.defined()) check(call);  // the dispatcher needs a tensor to choose by
  return dispatch(call);
}

TORCH_LIBRARY_FRAGMENT(stoa, m) {
  m.def(
      "mixture(Tensor x, Tensor token, Tensor expert, Tensor gate, Tensor w_in, Tensor b_in, Tensor w_out, "
      "Tensor b_out, "
      "int hidden=1, int output=0, int backend=2, Tensor? hidden_mask=None, Tensor? output_mask=None, bool "
      "bf16=False) -> "
      "Tensor");
}
TORCH_LIBRARY_IMPL(stoa, CompositeExplicitAutograd, m) {
  m.impl("mixture", &unpack<compute>);
}
TORCH_LIBRARY_IMPL(stoa, Autograd, m) {
  m.impl("mixture", &unpack<differentiate>);
}
TORCH_LIBRARY_IMPL(stoa, AutocastCPU, m) {
  m.impl("mixture", &unpack<autocast>);
}
TORCH_LIBRARY_IMPL(stoa, AutocastCUDA, m) {
  m.impl("mixture", &unpack<autocast>);
}
TORCH_LIBRARY_IMPL(stoa, Meta, m) {
  m.impl("mixture", &unpack<shape_only>);
}

}  // namespace stoa::ops
