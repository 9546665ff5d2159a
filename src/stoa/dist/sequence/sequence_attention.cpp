#include "stoa/dist/sequence/sequence_attention.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/dist/sequence/sequence_call.h"
#include "stoa/tensor/shape.h"

namespace stoa::dist {
namespace {

using CallHandle = c10::intrusive_ptr<SequenceCall>;

void check_whole(const at::Tensor& t, std::int64_t batch, std::int64_t length, at::ScalarType type,
                 const char* what) {
  if (!t.defined()) return;
  check_shape(t, {batch, length}, format("sequence_attention: {}", what));
  if (t.scalar_type() != type)
    throw ShapeError(format("sequence_attention: {} are of type {}; {} is needed", what,
                            c10::toString(t.scalar_type()), c10::toString(type)));
}

void check(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, SequenceCall& call) {
  const auto& options = call.options;
  check_shape(q, {-1, -1, -1, -1}, "sequence_attention: q");
  check_shape(k, {q.size(0), q.size(1), -1, q.size(3)}, "sequence_attention: k");
  check_shape(v, {k.size(0), k.size(1), k.size(2), k.size(3)}, "sequence_attention: v");
  if (q.numel() == 0 || k.numel() == 0 || q.size(2) % k.size(2) != 0)
    throw ShapeError(
        format("sequence_attention: q has shape {} and k {}; nothing may be empty, and q's heads must be a "
               "multiple of k's",
               shape_text(q.sizes()), shape_text(k.sizes())));
  for (const auto* x : {&k, &v})
    if (x->scalar_type() != q.scalar_type() || x->device() != q.device() || !q.is_floating_point())
      throw ShapeError(
          format("sequence_attention: q is of type {} on {} and a tensor beside it of type {} on {}; one "
                 "floating-point "
                 "type and one device are needed",
                 c10::toString(q.scalar_type()), q.device().str(), c10::toString(x->scalar_type()),
                 x->device().str()));
  call.chunk = q.size(1);
  call.heads = q.size(2);
  call.kv_heads = k.size(2);
  const std::int64_t length = call.chunk * call.group.size();
  check_length(length, options.order, call.group.size());
  check_whole(options.documents, q.size(0), length, at::kLong, "documents");
  check_whole(options.valid, q.size(0), length, at::kBool, "valid");
  if (!(options.dropout.rate >= 0 && options.dropout.rate < 1) || !std::isfinite(options.scale))
    throw ShapeError(format(
        "sequence_attention: dropout is {} and scale {}; at least 0 and below 1, and a finite number are "
        "needed",
        options.dropout.rate, options.scale));
  check_heads(call);
}

Attended attend(const SequenceCall& call, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  switch (call.options.method) {
    case SequenceMethod::kRsa:
      return attend_by_rsa(call, q, k, v);
    case SequenceMethod::kUlysses:
    case SequenceMethod::kHybrid:
      return attend_by_heads(call, q, k, v);
    case SequenceMethod::kGatherKv:
      return attend_by_gather(call, q, k, v);
    default:
      return attend_by_ring(call, q, k, v);
  }
}

ops::BlockGradients gradients(const SequenceCall& call, const std::vector<at::Tensor>& kept,
                              const at::Tensor& grad_out) {
  switch (call.options.method) {
    case SequenceMethod::kRsa:
      return rsa_gradients(call, kept, grad_out);
    case SequenceMethod::kUlysses:
    case SequenceMethod::kHybrid:
      return head_gradients(call, kept, grad_out);
    case SequenceMethod::kGatherKv:
      return gather_gradients(call, kept, grad_out);
    default:
      return ring_gradients(call, kept, grad_out);
  }
}

class SequenceAttention : public torch::autograd::Function<SequenceAttention> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& q,
                            const at::Tensor& k, const at::Tensor& v, const CallHandle& call) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    auto [out, kept] = attend(*call, q, k, v);
    context->save_for_backward(kept);
    context->saved_data["call"] = c10::IValue::make_capsule(call);
    return out.to(q.scalar_type());
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    if (at::GradMode::is_enabled())
      throw Error("sequence_attention: second derivatives are not available; use one process");
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto handle = context->saved_data["call"].toCapsule();
    const auto& call = static_cast<const SequenceCall&>(*handle);
    const auto found = gradients(call, context->get_saved_variables(), grads[0]);
    const auto type = grads[0].scalar_type();
    return {found.q.to(type), found.k.to(type), found.v.to(type), at::Tensor()};
  }
};

}  // namespace

const char* name_of(SequenceMethod method) {
  switch (method) {
    case SequenceMethod::kRsa:
      return "rsa";
    case SequenceMethod::kUlysses:
      return "ulysses";
    case SequenceMethod::kHybrid:
      return "hybrid";
    case SequenceMethod::kGatherKv:
      return "gather_kv";
    default:
      return "ring";
  }
}

at::Tensor sequence_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, Group& group,
                              const SequenceAttentionOptions& options) {
  const auto call = c10::make_intrusive<SequenceCall>(group, options);
  check(q, k, v, *call);
  return SequenceAttention::apply(q, k, v, call);
}

}  // namespace stoa::dist
