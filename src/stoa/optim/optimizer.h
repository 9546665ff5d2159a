#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "stoa/base/options.h"
#include "stoa/nn/parameters.h"

namespace stoa::optim {

enum class OptimizerKind { kSgd, kAdamW, kLamb };
enum class LambDialect { kPaper, kNvLamb, kV1, kClip };

/// An update rule and its constants (large-scale-optimisation.md 2.1, 2.2).
struct OptimizerOptions {
  OptimizerKind kind = OptimizerKind::kAdamW;
  double lr = 1e-3;  ///< peak learning rate
  double weight_decay = 0;
  std::vector<double> betas = {0.9, 0.999};  ///< AdamW, LAMB
  double eps = 1e-8;                         ///< AdamW 1e-8; LAMB's papers use 1e-6
  bool bias_correction = true;               ///< AdamW, LAMB
  bool decoupled = true;   ///< AdamW; false is Adam with L2: decay * w is added to the gradient
  bool keras_eps = false;  ///< AdamW; eps is added to sqrt(v), which is corrected after it (cowclip.md 2.5)
  double momentum = 0.9;   ///< SGD
  double dampening = 0;    ///< SGD
  bool nesterov = false;   ///< SGD
  LambDialect dialect = LambDialect::kPaper;  ///< LAMB
  bool use_nvlamb = false;           ///< LAMB nvlamb: ratio also for tensors without decay (apex's switch)
  bool grad_averaging = true;        ///< LAMB nvlamb: m = b1 m + (1 - b1) g; false: + g
  bool exclude_vectors = true;       ///< tensors of one or no dimension get no decay and (LAMB) ratio 1
  std::vector<std::string> exclude;  ///< further parameters without decay and ratio: parts of their names

  void visit(FieldVisitor& v);
  void validate() const;
};

/// The norm of the gradients, and what a step multiplies them by so that clipping costs no pass of its own.
struct GradientScale {
  double norm = 0;              ///< of all gradients together, in fp64, as they are
  double scaled_norm = 0;       ///< the same, times the factors
  double factor = 1;            ///< of every gradient
  std::vector<double> factors;  ///< in place of `factor`: of each slice of each parameter in turn
};

/// Updates parameters in place from their gradients. State is fp32 at least, named after the parameters, and
/// everything a resumed run needs is in state().
class Optimizer {
 public:
  virtual ~Optimizer() = default;
  /// One update with learning rate `lr`. Parameters without gradient count as having a zero one.
  void step(double lr) { update(lr, nullptr); }
  /// The same with gradients times the factors that clipping() gave for them.
  void step(double lr, const GradientScale& scale) { update(lr, &scale); }
  /// The norm of the gradients, and the factors that hold it, or with `each_slice` the norm of each slice of
  /// each parameter, at `limit`; 0 is no limit. Gradients are not changed; norms that are not finite are not
  /// held.
  virtual GradientScale clipping(double limit, bool each_slice) = 0;
  /// State tensors by name ("PARAMETER.exp_avg" ...), sharing storage with the optimiser's own; the step
  /// count is one.
  virtual std::map<std::string, at::Tensor> state() const = 0;
  /// Copies a stored state. Throws DataError naming `source` and the first tensor missing, left over or
  /// misshapen.
  void load(const std::map<std::string, at::Tensor>& state, const std::string& source);
  void zero_grad();
  const std::vector<nn::NamedParameter>& parameters() const { return parameters_; }

 protected:
  explicit Optimizer(std::vector<nn::NamedParameter> parameters) : parameters_(std::move(parameters)) {}
  /// One step; without `scale` gradients count as they are.
  virtual void update(double lr, const GradientScale* scale) = 0;

  std::vector<nn::NamedParameter> parameters_;
};

/// The update rule that the options name. Frozen parameters (requires_grad false) are left out. Throws
/// ConfigError or ShapeError for options out of range, no parameter to train, one tensor under two names, or
/// slices that do not divide.
std::unique_ptr<Optimizer> make_optimizer(std::vector<nn::NamedParameter> parameters,
                                          const OptimizerOptions& options);

}  // namespace stoa::optim
