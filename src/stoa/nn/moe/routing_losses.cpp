#include <ATen/ATen.h>

#include "stoa/nn/moe/router.h"

namespace stoa::nn {

namespace {

// One statistic of all calls: [calls, ...].
at::Tensor collect(const std::vector<RoutingStatistics>& calls, at::Tensor RoutingStatistics::*member) {
  std::vector<at::Tensor> values;
  for (const auto& call : calls) values.push_back(call.*member);
  return at::stack(values);
}

}  // namespace

SideOutputs routing_outputs(const std::vector<RoutingStatistics>& calls, const RouterOptions& options) {
  SideOutputs outputs;
  if (calls.empty()) return outputs;
  const auto fraction = collect(calls, &RoutingStatistics::fraction);        // m [calls, groups, E]
  const auto probability = collect(calls, &RoutingStatistics::probability);  // p
  const auto experts = static_cast<double>(options.experts);
  const auto balance = (fraction * probability).sum(-1).mean(-1) * experts;  // [calls]

  const auto add_loss = [&](const char* name, double weight, const at::Tensor& by_call) {
    outputs.losses.push_back(
        {name, (options.balance_reduce == BalanceReduce::kSum ? by_call.sum() : by_call.mean()) * weight});
  };
  const bool token_choice = options.routing == RoutingKind::kTokenChoice;
  if (options.balance_weight > 0 && token_choice) {
    // pooled over depth, every call counts with the pooled value: weights mean the same in both scopes
    const auto pooled = [&] { return (fraction.mean(0) * probability.mean(0)).sum(-1).mean() * experts; };
    add_loss("balance", options.balance_weight,
             options.balance_scope == BalanceScope::kCall ? balance : pooled().expand_as(balance));
  }
  if (options.z_weight > 0) add_loss("router_z", options.z_weight, collect(calls, &RoutingStatistics::z));
  if (options.importance_weight > 0 && token_choice)
    add_loss("importance", options.importance_weight, collect(calls, &RoutingStatistics::importance));
  if (options.load_weight > 0 && token_choice)
    add_loss("load", options.load_weight, collect(calls, &RoutingStatistics::load_loss));

  const auto load = fraction.mean(1);  // [calls, E]
  outputs.statistics = {{"router.load", load},
                        {"router.drop_rate", collect(calls, &RoutingStatistics::drop_rate)},
                        {"router.entropy", collect(calls, &RoutingStatistics::entropy)},
                        {"router.balance", balance.detach()},
                        {"router.imbalance", load.amax(-1) * experts}};
  return outputs;
}

}  // namespace stoa::nn
