#include "stoa/dist/expert_norm.h"

#include <ATen/ATen.h>

#include <cmath>
#include <cstdint>
#include <utility>

namespace stoa::dist {
namespace {

/// Sum of squares of each slice of each gradient in turn; 0 for those that there are not.
std::vector<double> squares_of(const std::vector<nn::NamedParameter>& parameters) {
  std::vector<at::Tensor> norms;  // on the device: one copy brings all of them
  for (const auto& [name, tensor, slices] : parameters) {
    const auto& gradient = tensor.grad();
    norms.push_back(gradient.defined() && gradient.numel() > 0
                        ? at::linalg_vector_norm(gradient.reshape({slices, -1}), 2, {1}, false, at::kDouble)
                        : at::zeros({slices}, tensor.options().dtype(at::kDouble).requires_grad(false)));
  }
  const auto squares = at::cat(norms).square().cpu();
  const auto* const square = squares.const_data_ptr<double>();
  return {square, square + squares.numel()};
}

double factor_of(double norm, double limit) {
  return limit > 0 && norm > limit && std::isfinite(norm) ? limit / norm : 1;
}

class JointNormOptimizer final : public optim::Optimizer {
 public:
  JointNormOptimizer(std::unique_ptr<optim::Optimizer> rule, const std::vector<bool>& dealt,
                     std::shared_ptr<Group> group, optim::SumOverParts within)
      : Optimizer(rule->parameters()),
        rule_(std::move(rule)),
        group_(std::move(group)),
        within_(std::move(within)) {
    for (std::size_t i = 0; i < parameters_.size(); ++i)
      dealt_.insert(dealt_.end(), static_cast<std::size_t>(parameters_[i].slices), dealt[i]);
  }

  optim::GradientScale clipping(double limit, bool each_slice) override {
    const at::NoGradGuard no_gradients;
    auto squares = squares_of(parameters_);
    if (within_) within_(squares);
    optim::GradientScale scale;
    scale.norm = joint_norm(squares);
    if (!each_slice) {
      scale.factor = factor_of(scale.norm, limit);
      scale.scaled_norm = scale.factor * scale.norm;
      return scale;
    }
    for (auto& square : squares) {
      const double factor = scale.factors.emplace_back(factor_of(std::sqrt(square), limit));
      square *= factor * factor;
    }
    scale.scaled_norm = joint_norm(squares);
    return scale;
  }
  std::map<std::string, at::Tensor> state() const override { return rule_->state(); }

 protected:
  void update(double lr, const optim::GradientScale* scale) override {
    rule_->step(lr, scale != nullptr ? *scale : clipping(0, false));  // some rules look at the joint norm
  }

 private:
  /// The root of the shared square sum and of that of every rank's own.
  double joint_norm(const std::vector<double>& squares) const {
    double shared = 0, own = 0;
    for (std::size_t i = 0; i < squares.size(); ++i) (dealt_[i] ? own : shared) += squares[i];
    const auto device = parameters_.front().tensor.device();
    const auto sum = at::full({1}, own, at::TensorOptions(device).dtype(at::kDouble));
    group_->all_reduce(sum);
    return std::sqrt(shared + sum.item<double>());
  }

  std::unique_ptr<optim::Optimizer> rule_;
  std::shared_ptr<Group> group_;
  optim::SumOverParts within_;
  std::vector<bool> dealt_;  // by slice
};

}  // namespace

std::unique_ptr<optim::Optimizer> join_norms(std::unique_ptr<optim::Optimizer> rule, std::vector<bool> dealt,
                                             std::shared_ptr<Group> group, optim::SumOverParts within) {
  return std::make_unique<JointNormOptimizer>(std::move(rule), dealt, std::move(group), std::move(within));
}

}  // namespace stoa::dist
