#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <vector>

#include "stoa/base/options.h"
#include "stoa/nn/moe/expert_exchange.h"
#include "stoa/nn/outputs.h"
#include "stoa/ops/mixture.h"

namespace stoa::nn {

/// Under expert choice every expert takes its surest `capacity` tokens of a group (2202.09368): loads are
/// equal, no balance, importance or load loss applies, and a token's result depends on its group by nature,
/// in evaluation too.
enum class RoutingKind { kTokenChoice, kExpertChoice };
enum class FillOrder { kToken, kChoice, kPriority };
enum class CapacityRounding { kFloor, kCeilTo4 };
enum class BalanceReduce { kSum, kMean };
enum class BalanceScope { kCall, kDepth };

/// How tokens find their experts and what keeps the experts busy (widenet.md 2.2, 2.4).
struct RouterOptions {
  std::int64_t experts = 4;
  std::int64_t top_k = 2;
  RoutingKind routing = RoutingKind::kTokenChoice;
  double noise = 1.0;  ///< deviation of the training noise on the logits, in units of 1 / experts
  double capacity_factor =
      1.2;  ///< training: slots per expert = factor * tokens * K / experts; 0 drops nothing
  /// The same in evaluation; 0 drops nothing and is independent of the batch (expert choice: 0 takes
  /// capacity_factor), -1 is the same as capacity_factor.
  double eval_capacity_factor = 0;
  CapacityRounding capacity_rounding = CapacityRounding::kFloor;
  bool reserve_first_slot = false;  ///< the original code's off-by-one: each expert holds one token less
  FillOrder fill = FillOrder::kChoice;
  bool renormalise_gates = false;  ///< gates of a token's K experts sum to 1
  std::int64_t group_size =
      0;  ///< samples that share one capacity and one balance loss; 0 is the whole batch
  double balance_weight = 0.01;                        ///< alpha of the load-balance loss
  BalanceReduce balance_reduce = BalanceReduce::kSum;  ///< over the calls (depths)
  BalanceScope balance_scope = BalanceScope::kCall;  ///< statistics per call, or pooled over all depths first
  double z_weight = 0;  ///< router z-loss: mean(logsumexp(logits)^2), reduced over calls like the balance
  double importance_weight = 0;  ///< V-MoE's importance loss (2.4)
  double load_weight = 0;        ///< V-MoE's load loss (2.4); needs noise

  void visit(FieldVisitor& v);
  /// Throws ConfigError naming the field as a key of `table`, e.g. "model.router" where recipes have it
  /// there.
  void validate(const char* table = "router") const;
};

/// Slots per expert for a group of `tokens`: floor(tokens * factor * K / E), or V-MoE's ceil rounded up to a
/// multiple of 4. Throws ConfigError if that is 0 (or 1 with the first slot reserved): every token would be
/// dropped.
std::int64_t expert_capacity(std::int64_t tokens, double factor, const RouterOptions& options);

/// What one call of a router says of itself; `groups` is the number of routing groups. Where groups have
/// tokens of several processes, everything but `kept` is about the tokens of all.
struct RoutingStatistics {
  at::Tensor fraction;     ///< m [groups, E]: share of assignments before dropping, constant for the gradient
  at::Tensor probability;  ///< p [groups, E]: mean router probability (noisy in training); differentiable
  at::Tensor z;            ///< scalar: mean logsumexp^2; differentiable
  at::Tensor importance;   ///< scalar, V-MoE's importance loss; undefined unless its weight is set
  at::Tensor load_loss;    ///< scalar, V-MoE's load loss; undefined unless its weight is set
  at::Tensor kept;         ///< [E] int64: assignments each expert computes
  at::Tensor drop_rate;  ///< scalar: share of assignments dropped; expert choice: of tokens that nobody took
  at::Tensor entropy;    ///< scalar: mean entropy of the routing probabilities, in nats
};

/// Where every token goes, and the statistics of deciding it.
struct Routing {
  ops::Assignments assignments;  ///< kept ones only
  at::Tensor probabilities;      ///< P [tokens, E], fp32 (or fp64)
  at::Tensor index;              ///< [tokens, K] chosen experts in falling order (token choice)
  at::Tensor slot;  ///< [tokens, K] place within the expert counted from 0, -1 where dropped (token choice)
  RoutingStatistics statistics;
};

/// Routes from logits [samples, tokens, E] (fp32 or fp64). `noise` is added in training by the caller of this
/// function through `noisy`: pass the noisy logits as `logits` and the clean ones as `clean` (needed for
/// V-MoE's losses; may be undefined). `training` picks the capacity factor. With an exchange, a training
/// batch's tokens are routed as if all parts were here.
Routing route(const at::Tensor& logits, const at::Tensor& clean, const RouterOptions& options, bool training,
              const ExpertExchange* exchange = nullptr);

/// s = x W + noise, then route(). W [dim, E], no bias, Glorot-uniform. Softmax and all losses are computed in
/// fp32 at least, also under autocast. On the CPU the noise of a token depends, as dropout does, on the
/// call's number and the token's key alone, not on how batches are cut or dealt out.
class RouterImpl : public torch::nn::Module {
 public:
  RouterImpl(std::int64_t dim, RouterOptions options);
  /// x [samples, tokens, dim]; keys [samples * tokens] as token_keys() makes them, where given: `x` is then
  /// packed sequences, which are one group.
  Routing forward(const at::Tensor& x, const at::Tensor& keys = {}, const ExpertExchange* exchange = nullptr);
  const RouterOptions& options() const { return options_; }

  at::Tensor weight;  ///< [dim, E]

 private:
  RouterOptions options_;
};
TORCH_MODULE(Router);

/// Numbers of the tokens of x [samples, tokens, ...] in the whole step's batch (ops::BatchPart): [samples *
/// tokens] int64 on the CPU.
at::Tensor token_keys(const at::Tensor& x);

/// The losses of all calls of one forward pass (weights applied: "balance", "router_z", "importance", "load",
/// each only where its weight is set) and their statistics by depth: "router.load" [calls, E] (shares before
/// dropping), "router.drop_rate", "router.entropy" [calls], "router.balance" [calls] (alpha not included),
/// "router.imbalance" [calls]: E times the largest share, 1 for equal shares, E / K where K experts take all.
/// Groups are averaged. Pooled over depth, each call counts with the pooled value, so weights mean the same
/// in both scopes.
SideOutputs routing_outputs(const std::vector<RoutingStatistics>& calls, const RouterOptions& options);

}  // namespace stoa::nn
