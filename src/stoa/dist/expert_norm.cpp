#include "stoa/dist/expert_norm.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "stoa/optim/clip.h"

namespace stoa::dist {
namespace {

bool exceeds(double norm, double limit) {
  return limit > 0 && norm > limit && std::isfinite(norm);
}

/// The square sum of gradients, each slice held at `limit`.
double clipped_squares(const std::vector<nn::NamedParameter>& parameters, double limit) {
  double sum = 0;
  for (const auto& parameter : parameters) {
    const auto& gradient = parameter.tensor.grad();
    if (!gradient.defined()) continue;
    const auto norms =
        at::linalg_vector_norm(gradient.reshape({parameter.slices, -1}), 2, {1}, false, at::kDouble).cpu();
    for (std::int64_t i = 0; i < norms.numel(); ++i) {
      const double norm = norms.const_data_ptr<double>()[i];
      const double held = exceeds(norm, limit) ? limit : norm;
      sum += held * held;
    }
  }
  return sum;
}

class JointNormOptimizer final : public optim::Optimizer {
 public:
  JointNormOptimizer(std::unique_ptr<optim::Optimizer> rule, const std::vector<bool>& dealt,
                     std::shared_ptr<Group> group)
      : Optimizer(rule->parameters()), rule_(std::move(rule)), group_(std::move(group)) {
    for (std::size_t i = 0; i < parameters_.size(); ++i)
      (dealt[i] ? dealt_ : shared_).push_back(parameters_[i]);
  }

  optim::GradientScale clipping(double limit, bool each_slice) override {
    const at::NoGradGuard no_gradients;
    optim::GradientScale scale;
    if (each_slice) scale.factors = rule_->clipping(limit, true).factors;
    scale.norm = joint(std::pow(optim::gradient_norm(shared_), 2), std::pow(optim::gradient_norm(dealt_), 2));
    scale.factor = !each_slice && exceeds(scale.norm, limit) ? limit / scale.norm : 1;
    scale.scaled_norm = each_slice ? joint(clipped_squares(shared_, limit), clipped_squares(dealt_, limit))
                                   : scale.factor * scale.norm;
    return scale;
  }
  std::map<std::string, at::Tensor> state() const override { return rule_->state(); }

 protected:
  void update(double lr, const optim::GradientScale* scale) override {
    rule_->step(lr, scale != nullptr ? *scale : clipping(0, false));  // some rules look at the joint norm
  }

 private:
  /// The root of the shared square sum and of that of every rank's own.
  double joint(double shared, double own) const {
    const auto device = parameters_.front().tensor.device();
    const auto sum = at::full({1}, own, at::TensorOptions(device).dtype(at::kDouble));
    group_->all_reduce(sum);
    return std::sqrt(shared + sum.item<double>());
  }

  std::unique_ptr<optim::Optimizer> rule_;
  std::shared_ptr<Group> group_;
  std::vector<nn::NamedParameter> dealt_, shared_;
};

}  // namespace

std::unique_ptr<optim::Optimizer> join_norms(std::unique_ptr<optim::Optimizer> rule, std::vector<bool> dealt,
                                             std::shared_ptr<Group> group) {
  return std::make_unique<JointNormOptimizer>(std::move(rule), dealt, std::move(group));
}

}  // namespace stoa::dist
