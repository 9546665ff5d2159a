#include "stoa/ops/mixture_experts.h"

#include <ATen/ATen.h>

namespace stoa::ops {

namespace {

void activate_in_place(at::Tensor& tensor, Activation activation) {
  switch (activation) {
    case Activation::kNone:
      break;
    case Activation::kGeluTanh:
      at::gelu_(tensor, "tanh");
      break;
    case Activation::kGeluErf:
      at::gelu_(tensor, "none");
      break;
    case Activation::kRelu:
      tensor.relu_();
      break;
  }
}

// Gradient in front of an activation, written over the gradient behind it.
void activate_backward_in_place(at::Tensor& grad, const at::Tensor& input, Activation activation) {
  switch (activation) {
    case Activation::kNone:
      break;
    case Activation::kGeluTanh:
      at::gelu_backward_out(grad, grad, input, "tanh");
      break;
    case Activation::kGeluErf:
      at::gelu_backward_out(grad, grad, input, "none");
      break;
    case Activation::kRelu:
      at::threshold_backward_out(grad, grad, input, 0);
      break;
  }
}

at::Tensor activate_and_mask(const at::Tensor& before, Activation activation, const at::Tensor& mask,
                             bool keep) {
  auto behind = before;
  if (keep)
    behind = activate(before, activation);
  else
    activate_in_place(behind, activation);
  if (!mask.defined()) return behind;
  if (keep && behind.is_same(before)) return at::mul(behind, mask).to(behind.scalar_type());
  return behind.mul_(mask);
}

// The three products of a linear layer that every expert has its own of, over rows that lie by expert: on
// slices of the sorted layout, or batched over the padded one.
class GroupedLinear {
 public:
  GroupedLinear(const RowLayout& layout, MixtureBackend backend)
      : layout_(layout),
        experts_(static_cast<std::int64_t>(layout.count.size())),
        padded_(backend == MixtureBackend::kPadded) {}

  // rows W + b
  at::Tensor forward(const at::Tensor& rows, const at::Tensor& weight, const at::Tensor& bias) const {
    if (padded_) return flat(at::baddbmm(bias.unsqueeze(1), batched(rows), weight));
    const auto result = at::empty({rows.size(0), weight.size(2)}, rows.options());
    for (std::int64_t e = 0; e < experts_; ++e) {
      if (count(e) == 0) continue;
      auto out = slice(result, e);
      at::addmm_out(out, bias.select(0, e), slice(rows, e), weight.select(0, e));
    }
    return result;
  }

  // grad W^T
  at::Tensor input_gradient(const at::Tensor& grad, const at::Tensor& weight) const {
    if (padded_) return flat(at::bmm(batched(grad), weight.transpose(1, 2)));
    const auto result = at::empty({grad.size(0), weight.size(1)}, grad.options());
    for (std::int64_t e = 0; e < experts_; ++e) {
      if (count(e) == 0) continue;
      auto out = slice(result, e);
      at::mm_out(out, slice(grad, e), weight.select(0, e).t());
    }
    return result;
  }

  // rows^T grad, one an expert
  at::Tensor weight_gradient(const at::Tensor& rows, const at::Tensor& grad) const {
    if (padded_) return at::bmm(batched(rows).transpose(1, 2), batched(grad));
    const auto result = at::empty({experts_, rows.size(1), grad.size(1)}, grad.options());
    for (std::int64_t e = 0; e < experts_; ++e) {
      auto out = result.select(0, e);
      if (count(e) == 0)
        out.zero_();
      else
        at::mm_out(out, slice(rows, e).t(), slice(grad, e));
    }
    return result;
  }

  at::Tensor bias_gradient(const at::Tensor& grad) const {
    if (padded_) return batched(grad).sum(1);
    const auto result = at::empty({experts_, grad.size(1)}, grad.options());
    for (std::int64_t e = 0; e < experts_; ++e) {
      auto out = result.select(0, e);
      at::sum_out(out, slice(grad, e), 0);
    }
    return result;
  }

 private:
  std::int64_t count(std::int64_t e) const { return layout_.count[static_cast<std::size_t>(e)]; }
  at::Tensor slice(const at::Tensor& rows, std::int64_t e) const {
    return rows.narrow(0, layout_.start[static_cast<std::size_t>(e)], count(e));
  }
  at::Tensor batched(const at::Tensor& rows) const {
    return rows.view({experts_, layout_.rows / experts_, rows.size(1)});
  }
  static at::Tensor flat(const at::Tensor& batch) { return batch.flatten(0, 1); }

  const RowLayout& layout_;
  std::int64_t experts_;
  bool padded_;
};

}  // namespace

at::Tensor activate(const at::Tensor& input, Activation activation) {
  switch (activation) {
    case Activation::kNone:
      break;
    case Activation::kGeluTanh:
      return at::gelu(input, "tanh");
    case Activation::kGeluErf:
      return at::gelu(input, "none");
    case Activation::kRelu:
      return at::relu(input);
  }
  return input;
}

ExpertTrace experts_forward(const at::Tensor& rows, const ExpertWeights& weights, const RowLayout& layout,
                            const MixtureSettings& settings, const RowMasks& masks, bool keep) {
  const GroupedLinear linear(layout, settings.backend);
  ExpertTrace trace;
  trace.hidden_before = linear.forward(rows, weights.w_in, weights.b_in);
  trace.hidden_behind = activate_and_mask(trace.hidden_before, settings.hidden, masks.hidden, keep);
  trace.output_before = linear.forward(trace.hidden_behind, weights.w_out, weights.b_out);
  trace.output_behind = activate_and_mask(trace.output_before, settings.output, masks.output, keep);
  return trace;
}

ExpertGradients experts_backward(at::Tensor grad, const at::Tensor& rows, const ExpertTrace& trace,
                                 const ExpertWeights& weights, const RowLayout& layout,
                                 const MixtureSettings& settings, const RowMasks& masks,
                                 const ExpertNeeds& needs) {
  const GroupedLinear linear(layout, settings.backend);
  ExpertGradients result;
  if (masks.output.defined()) grad.mul_(masks.output);
  activate_backward_in_place(grad, trace.output_before, settings.output);
  if (needs.w_out) result.weights.w_out = linear.weight_gradient(trace.hidden_behind, grad);
  if (needs.b_out) result.weights.b_out = linear.bias_gradient(grad);
  if (!needs.rows && !needs.w_in && !needs.b_in) return result;

  grad = linear.input_gradient(grad, weights.w_out);
  if (masks.hidden.defined()) grad.mul_(masks.hidden);
  activate_backward_in_place(grad, trace.hidden_before, settings.hidden);
  if (needs.w_in) result.weights.w_in = linear.weight_gradient(rows, grad);
  if (needs.b_in) result.weights.b_in = linear.bias_gradient(grad);
  if (needs.rows) result.rows = linear.input_gradient(grad, weights.w_in);
  return result;
}

}  // namespace stoa::ops
