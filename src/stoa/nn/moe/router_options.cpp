#include <cmath>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/nn/moe/router.h"

namespace stoa::nn {

namespace {

// Checks fields of one table of a recipe, so that messages name the keys as users write them.
struct Check {
  const char* table;

  void at_least(const char* field, std::int64_t value, std::int64_t least) const {
    if (value < least)
      throw ConfigError(format("`{}.{}` is {}; at least {} is needed", table, field, value, least));
  }
  void not_negative(const char* field, double value) const {
    if (!std::isfinite(value) || value < 0)
      throw ConfigError(
          format("`{}.{}` is {}; a finite number of at least 0 is needed", table, field, value));
  }
};

}  // namespace

void RouterOptions::visit(FieldVisitor& v) {
  v.field("experts", experts, "number of experts E; 1 is a dense perceptron");
  v.field("top_k", top_k, "experts that each token is sent to (expert choice: on average)");
  v.choice("routing", routing,
           {{"token_choice", RoutingKind::kTokenChoice}, {"expert_choice", RoutingKind::kExpertChoice}},
           "who chooses; with expert choice a token's result depends on its batch, in evaluation too");
  v.field("noise", noise, "deviation of the training noise on the router's logits, in units of 1 / experts");
  v.field("capacity_factor", capacity_factor,
          "training: slots per expert = factor * tokens * top_k / experts; 0 drops nothing");
  v.field("eval_capacity_factor", eval_capacity_factor,
          "the same in evaluation; 0 drops nothing (expert choice: 0 takes capacity_factor), -1 is the same "
          "as capacity_factor");
  v.choice("capacity_rounding", capacity_rounding,
           {{"floor", CapacityRounding::kFloor}, {"ceil_to_4", CapacityRounding::kCeilTo4}},
           "slots rounded down (WideNet) or up to a multiple of 4 (V-MoE)");
  v.field("reserve_first_slot", reserve_first_slot,
          "each expert holds one token less, as in WideNet's original code");
  v.choice(
      "fill", fill,
      {{"token", FillOrder::kToken}, {"choice", FillOrder::kChoice}, {"priority", FillOrder::kPriority}},
      "who comes first to the slots: earlier tokens, first choices, or first choices of the surest tokens");
  v.field("renormalise_gates", renormalise_gates, "scale each token's gates to sum to 1");
  v.field("group_size", group_size,
          "samples that share one capacity and one balance loss; 0 is the whole batch");
  v.field("balance_weight", balance_weight, "weight alpha of the load-balance loss; 0 for none");
  v.choice("balance_reduce", balance_reduce, {{"sum", BalanceReduce::kSum}, {"mean", BalanceReduce::kMean}},
           "how the router losses of all depths are put together");
  v.choice("balance_scope", balance_scope, {{"call", BalanceScope::kCall}, {"depth", BalanceScope::kDepth}},
           "balance experts at every depth, or over all depths together");
  v.field("z_weight", z_weight,
          "weight of the router z-loss, the mean squared logsumexp of the logits; 0 for none");
  v.field("importance_weight", importance_weight, "weight of V-MoE's importance loss; 0 for none");
  v.field("load_weight", load_weight, "weight of V-MoE's load loss; 0 for none; needs noise");
}

void RouterOptions::validate(const char* table) const {
  const Check check{table};
  check.at_least("experts", experts, 1);
  check.at_least("top_k", top_k, 1);
  if (top_k > experts)
    throw ConfigError(
        format("`{0}.top_k` is {1} but there are only `{0}.experts` = {2}; lower top_k or add experts", table,
               top_k, experts));
  check.at_least("group_size", group_size, 0);
  check.not_negative("noise", noise);
  check.not_negative("capacity_factor", capacity_factor);
  if (eval_capacity_factor != -1 && !(eval_capacity_factor >= 0 && std::isfinite(eval_capacity_factor)))
    throw ConfigError(
        format("`{}.eval_capacity_factor` is {}; a finite number of at least 0, or -1 (the same as "
               "capacity_factor), is needed",
               table, eval_capacity_factor));
  check.not_negative("balance_weight", balance_weight);
  check.not_negative("z_weight", z_weight);
  check.not_negative("importance_weight", importance_weight);
  check.not_negative("load_weight", load_weight);
  if (routing == RoutingKind::kExpertChoice && capacity_factor == 0)
    throw ConfigError(
        format("`{0}.capacity_factor` is 0 with `{0}.routing` = \"expert_choice\"; a positive factor is "
               "needed, 1 lets tokens have top_k experts on average",
               table));
  if (load_weight > 0 && noise == 0)
    throw ConfigError(
        format("`{0}.load_weight` is {1} but `{0}.noise` is 0; the load loss is the chance of being chosen "
               "under noise: set noise, or load_weight to 0",
               table, load_weight));
}

std::int64_t expert_capacity(std::int64_t tokens, double factor, const RouterOptions& options) {
  const double share = static_cast<double>(tokens) * factor * static_cast<double>(options.top_k) /
                       static_cast<double>(options.experts);
  // a hair of slack, so that 0.29 * 100 is 29 and not 28.999...
  const double hair = 1e-12 * share;
  const auto capacity = options.capacity_rounding == CapacityRounding::kFloor
                            ? static_cast<std::int64_t>(std::floor(share + hair))
                            : 4 * static_cast<std::int64_t>(std::ceil(std::ceil(share - hair) / 4));
  if (capacity <= (options.reserve_first_slot ? 1 : 0))
    throw ConfigError(format(
        "the capacity factor {} (the router's `capacity_factor`, in evaluation `eval_capacity_factor`) "
        "gives each of {} experts {} of {} tokens' slots{}, so that every token would be dropped; raise "
        "it, or set it to 0 to drop nothing",
        factor, options.experts, capacity, tokens,
        options.reserve_first_slot ? " with the first one reserved" : ""));
  return capacity;
}

}  // namespace stoa::nn
