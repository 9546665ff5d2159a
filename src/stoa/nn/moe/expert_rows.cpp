#include "stoa/nn/moe/expert_rows.h"

#include <ATen/ATen.h>
#include <ATen/OpMathType.h>
#include <torch/csrc/autograd/custom_function.h>

#include <utility>

#include "stoa/ops/dropout.h"
#include "stoa/ops/mixture_rows.h"

namespace stoa::nn {
namespace {

using Counts = ExpertExchange::Counts;

/// The way of a batch's rows to the holders of their experts.
struct Trip : torch::CustomClassHolder {
  std::shared_ptr<const ExpertExchange> exchange;
  c10::intrusive_ptr<ops::RowLayout> layout;  // rows by expert, and so by holder
  Counts sent, received;                      // rows by holder

  at::Tensor there(const at::Tensor& rows) const { return exchange->trade(rows, sent, received); }
  at::Tensor back(const at::Tensor& rows) const { return exchange->trade(rows, received, sent); }
};

c10::intrusive_ptr<Trip> trip_of(torch::autograd::AutogradContext* context) {
  return c10::static_intrusive_pointer_cast<Trip>(context->saved_data["trip"].toCapsule());
}

/// x [tokens, dim] -> the rows that came to this holder.
class SendFunction : public torch::autograd::Function<SendFunction> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const c10::intrusive_ptr<Trip>& trip) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    context->saved_data["trip"] = c10::IValue::make_capsule(trip);
    return trip->there(ops::gather_tokens(x.contiguous(), *trip->layout));
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto trip = trip_of(context);
    return {ops::combine_rows(trip->back(grads[0].contiguous()), {}, *trip->layout), {}};
  }
};

/// The answers of this holder's experts -> y [tokens, dim_out], the sums of each token's answers times gates.
class ReturnFunction : public torch::autograd::Function<ReturnFunction> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& answers,
                            const at::Tensor& gate, const c10::intrusive_ptr<Trip>& trip) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto rows = trip->back(answers.contiguous());
    context->save_for_backward({rows, gate});
    context->saved_data["trip"] = c10::IValue::make_capsule(trip);
    return ops::combine_rows(rows, gate, *trip->layout);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto saved = context->get_saved_variables();
    const auto trip = trip_of(context);
    const auto [grad_rows, grad_gate] =
        ops::combine_rows_backward(grads[0].contiguous(), saved[0], saved[1], *trip->layout);
    return {trip->there(grad_rows.contiguous()), grad_gate, {}};
  }
};

at::Tensor mask_of(const at::Tensor& keys, std::int64_t width, double rate, const at::TensorOptions& options,
                   std::int64_t first_column) {
  const auto ones = at::ones({keys.numel(), width}, options);
  if (!options.device().is_cpu()) return at::dropout(ones, rate, /*train=*/true);
  const auto call = ops::dropout_seed(rate);  // also where no row came: calls are counted alike everywhere
  return keys.numel() == 0 ? ones
                           : ops::dropout_reference(ones, rate, ops::row_seeds(call, keys, first_column));
}

/// Sets how many rows go and come, and returns the local expert of each row that comes.
at::Tensor plan(Trip& trip, std::int64_t experts, at::Device device) {
  const auto holders = trip.exchange->holders(), share = experts / holders;
  const auto counts = at::tensor(trip.layout->count, at::kLong).view({holders, share});
  const Counts one(static_cast<std::size_t>(holders), 1);
  const auto coming = trip.exchange->trade(counts.to(device), one, one).cpu();
  const auto rows = [](const at::Tensor& by_expert) {
    const auto sums = by_expert.sum(1).contiguous();
    const auto* const sum = sums.const_data_ptr<std::int64_t>();
    return Counts(sum, sum + sums.numel());
  };
  trip.sent = rows(counts);
  trip.received = rows(coming);
  return at::arange(share, at::kLong).repeat({holders}).repeat_interleave(coming.flatten()).to(device);
}

/// Keys of assignments, which are on the CPU, to the holders of their experts.
at::Tensor send_keys(const at::Tensor& keys, const Trip& trip, at::Device device) {
  const auto by_row = keys.index_select(0, at::tensor(trip.layout->source, at::kLong));
  return trip.there(by_row.to(device)).cpu();
}

}  // namespace

at::Tensor mix_here(const at::Tensor& x, const ops::Assignments& assignments,
                    const ops::ExpertWeights& weights, const ops::MixtureSettings& settings,
                    const ExpertDropout& dropout) {
  at::Tensor hidden_mask, output_mask;
  if (dropout.rate > 0) {
    const auto mask = [&](const at::Tensor& bias, std::int64_t first_column) {
      return mask_of(dropout.keys, bias.size(1), dropout.rate, bias.options().requires_grad(false),
                     first_column);
    };
    hidden_mask = mask(weights.b_in, dropout.first_hidden);
    output_mask = mask(weights.b_out, 0);
  }
  return ops::mixture(x, assignments, weights, settings, hidden_mask, output_mask);
}

at::Tensor mix_at_holders(const at::Tensor& x, const ops::Assignments& assignments, std::int64_t experts,
                          const ops::ExpertWeights& weights, const ops::MixtureSettings& settings,
                          const ExpertDropout& dropout, std::shared_ptr<const ExpertExchange> exchange) {
  const auto trip = c10::make_intrusive<Trip>();
  trip->exchange = std::move(exchange);
  trip->layout =
      ops::lay_out_rows(assignments.token, assignments.expert, x.size(0), experts, /*padded=*/false);
  const auto expert = plan(*trip, experts, x.device());
  const auto rows = SendFunction::apply(x, trip);
  auto row_dropout = dropout;
  if (dropout.rate > 0) row_dropout.keys = send_keys(dropout.keys, *trip, x.device());
  // gates are applied where the tokens are
  const auto type = at::toOpMathType(rows.scalar_type());
  const ops::Assignments arrived{at::arange(rows.size(0), expert.options()), expert,
                                 at::ones({rows.size(0)}, rows.options().dtype(type).requires_grad(false))};
  const auto answers = mix_here(rows, arrived, weights, settings, row_dropout);
  const auto gate = assignments.gate.to(at::toOpMathType(answers.scalar_type())).contiguous();
  return ReturnFunction::apply(answers, gate, trip);
}

}  // namespace stoa::nn
