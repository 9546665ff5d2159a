#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "stoa/nn/moe/expert_exchange.h"
#include "stoa/nn/moe/router.h"
#include "stoa/nn/parameters.h"
#include "stoa/nn/weight_split.h"
#include "stoa/ops/mixture.h"
#include "stoa/ops/mixture_int8.h"

namespace stoa::nn {

struct ExpertDropout;  // expert_rows.h

struct MixtureOptions {
  std::int64_t dim = 768;
  std::int64_t hidden = 3072;  ///< f, width of each expert
  double dropout = 0;          ///< behind both activations, inside the experts
  ops::Activation activation = ops::Activation::kGeluTanh;
  ops::Activation output_activation = ops::Activation::kNone;  ///< GELU in the original code
  ops::MixtureBackend backend = ops::MixtureBackend::kSorted;
  RouterOptions router;
};

struct MixtureOutput {
  at::Tensor output;  ///< [samples, tokens, dim]
  RoutingStatistics statistics;
  Routing routing;  ///< the decision itself, for telemetry and tests
};

/// Mixture-of-experts perceptron (widenet.md 2.2). Experts are stacked tensors, each expert initialised on
/// its own: Glorot-uniform weights, biases N(0, 1e-6^2). Several processes may each hold some of the experts,
/// and each have a part of a training batch.
/// Split weights are those of some of each expert's hidden units, where nothing but a sum follows the second
/// product (output_activation = none); else every process has the experts whole.
class MixtureImpl : public torch::nn::Module, public HasSlices, public SplitsWeights {
 public:
  explicit MixtureImpl(MixtureOptions options);
  /// x [samples, tokens, dim]; keys as Router's
  MixtureOutput forward(const at::Tensor& x, const at::Tensor& keys = {});
  std::map<std::string, std::int64_t> slices() const override;
  /// From now on the evaluation mode computes the experts in 8 bits, with their weights as they are now;
  /// training mode and the weights themselves stay as they are. Throws DeviceError where the CPU cannot
  /// (ops::Int8Experts).
  void round_to_int8();
  const MixtureOptions& options() const { return options_; }
  /// From now on tokens and experts of other processes are reached. The caller has left in w_in, b_in, w_out
  /// and b_out the experts that the exchange says are held here. null: all is here again.
  void use_expert_exchange(std::shared_ptr<const ExpertExchange> exchange) {
    exchange_ = std::move(exchange);
  }
  const ExpertExchange* expert_exchange() const { return exchange_.get(); }
  std::map<std::string, WeightCut> cuts() const override;
  void require_parts(std::int64_t parts) const override;
  void use_exchange(std::shared_ptr<const WeightExchange> exchange) override;

  Router router{nullptr};
  /// [E, dim, hidden], [E, hidden], [E, hidden, dim], [E, dim]; E and hidden are those held here
  at::Tensor w_in, b_in, w_out, b_out;

 private:
  bool holds_all() const { return !exchange_ || exchange_->holders() == 1; }
  at::Tensor mix(const at::Tensor& x, ops::Assignments assignments, const ExpertDropout& dropout);

  MixtureOptions options_;
  std::shared_ptr<const ops::Int8Experts> int8_;
  std::shared_ptr<const ExpertExchange> exchange_;
  std::shared_ptr<const WeightExchange> hidden_units_;  ///< null where all of them are here
};
TORCH_MODULE(Mixture);

/// Lets every mixture of a model evaluate in 8 bits. Throws ConfigError for a model that has none,
/// DeviceError as above.
void round_experts_to_int8(torch::nn::Module& model);

}  // namespace stoa::nn
