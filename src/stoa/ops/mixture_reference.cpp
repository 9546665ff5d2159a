#include <ATen/ATen.h>
#include <ATen/OpMathType.h>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/ops/mixture.h"
#include "stoa/ops/mixture_experts.h"

namespace stoa::ops {

namespace {

void check_range(const at::Tensor& index, std::int64_t limit, const char* what) {
  if (index.numel() == 0) return;
  const auto bad = index.masked_select(index.lt(0).logical_or(index.ge(limit)));
  if (bad.numel() > 0)
    throw Error(format("mixture: an assignment names {} {}; there are {} (0 to {})", what,
                       bad[0].item<std::int64_t>(), limit, limit - 1));
}

at::Tensor layer(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, Activation activation,
                 const at::Tensor& mask, const at::Tensor& which) {
  const auto y = activate(at::addmm(bias, x, weight), activation);
  return mask.defined() ? (y * mask.index_select(0, which)).to(y.scalar_type()) : y;
}

}  // namespace

at::Tensor mixture_reference(const at::Tensor& x, const Assignments& assignments,
                             const ExpertWeights& weights, const MixtureSettings& settings,
                             const at::Tensor& hidden_mask, const at::Tensor& output_mask) {
  const auto experts = weights.w_in.size(0);
  check_range(assignments.token, x.size(0), "token");
  check_range(assignments.expert, experts, "expert");
  const auto type = at::toOpMathType(x.scalar_type());
  auto y = at::zeros({x.size(0), weights.w_out.size(2)}, x.options().dtype(type));
  for (std::int64_t e = 0; e < experts; ++e) {
    const auto which = assignments.expert.eq(e).nonzero().squeeze(1);
    const auto token = assignments.token.index_select(0, which);
    const auto hidden = layer(x.index_select(0, token), weights.w_in[e], weights.b_in[e], settings.hidden,
                              hidden_mask, which);
    const auto output =
        layer(hidden, weights.w_out[e], weights.b_out[e], settings.output, output_mask, which);
    const auto gate = assignments.gate.index_select(0, which).to(type).unsqueeze(1);
    y = y.index_add(0, token, output.to(type) * gate);
  }
  return y.to(x.scalar_type());
}

}  // namespace stoa::ops
