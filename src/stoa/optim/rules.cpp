#include "stoa/optim/rules.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"

namespace stoa::optim {

bool is_excluded(const nn::NamedParameter& parameter, const OptimizerOptions& options) {
  const auto& tensor = parameter.tensor;
  // a stack of vectors [slices, size] is made of vectors, a fused matrix [slices * rows, columns] of matrices
  const bool stacked = parameter.slices > 1 && tensor.dim() > 0 && tensor.size(0) == parameter.slices;
  if (options.exclude_vectors && tensor.dim() - (stacked ? 1 : 0) <= 1) return true;
  return std::any_of(options.exclude.begin(), options.exclude.end(),
                     [&](const std::string& part) { return parameter.name.find(part) != std::string::npos; });
}

at::Tensor dense_gradient(const nn::NamedParameter& parameter) {
  const auto gradient = parameter.tensor.grad();
  if (gradient.defined() && gradient.layout() != at::kStrided)
    throw Error(
        format("parameter `{}` has a sparse gradient; a dense one is needed: build its embedding with sparse "
               "= false",
               parameter.name));
  return gradient;
}

Rule::Rule(std::vector<nn::NamedParameter> parameters, const OptimizerOptions& options,
           std::vector<std::string> states)
    : Optimizer(std::move(parameters)),
      options_(options),
      state_names_(std::move(states)),
      states_(state_names_.size()) {
  std::vector<SlicedTensor> tensors;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const auto& [name, tensor, slices] = parameters_[i];
    excluded_.push_back(is_excluded(parameters_[i], options_));
    decay_.push_back(excluded_.back() ? 0 : options_.weight_decay);
    const auto type = tensor.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    for (auto& state : states_)
      state.push_back(at::zeros_like(tensor.detach(), tensor.options().dtype(type).requires_grad(false)));
    tensors.push_back({tensor, slices});
    if (!is_loopable(tensor)) unchunked_.push_back(i);
  }
  chunks_ = make_chunks(tensors);
  step_ = at::zeros({}, at::kLong);
}

std::map<std::string, at::Tensor> Rule::state() const {
  std::map<std::string, at::Tensor> result{{"step", step_}};
  for (std::size_t k = 0; k < states_.size(); ++k)
    for (std::size_t i = 0; i < parameters_.size(); ++i)
      result[parameters_[i].name + "." + state_names_[k]] = states_[k][i];
  return result;
}

void Rule::collect_gradients() {
  gradients_.clear();
  for (const auto& parameter : parameters_) {
    auto gradient = dense_gradient(parameter);
    if (!gradient.defined()) gradient = at::zeros_like(parameter.tensor.detach());
    gradients_.push_back(is_loopable(parameter.tensor) ? gradient.contiguous() : gradient);
  }
}

Rule::Lists Rule::make_lists() const {
  Lists lists;
  lists.states.resize(states_.size());
  for (const auto i : unchunked_) {
    const auto& tensor = parameters_[i].tensor;
    const auto type = tensor.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    lists.w.push_back(tensor.detach().to(type));
    lists.g.push_back(gradients_[i].to(type));
    for (std::size_t k = 0; k < states_.size(); ++k) lists.states[k].push_back(states_[k][i]);
    lists.decay.push_back(decay_[i]);
    lists.places.push_back(i);
  }
  return lists;
}

void Rule::step(double lr) {
  if (!(std::isfinite(lr) && lr >= 0))
    throw ConfigError(format("learning rate is {}; it must be >= 0: look at lr and schedule", lr));
  at::NoGradGuard no_grad;
  collect_gradients();
  step_.add_(1);
  prepare(lr, step_.item<double>());
  update_chunks();
  if (!unchunked_.empty()) {
    auto lists = make_lists();
    update_lists(lists);
    for (std::size_t k = 0; k < lists.places.size(); ++k) {
      const auto& tensor = parameters_[lists.places[k]].tensor;
      if (lists.w[k].scalar_type() != tensor.scalar_type()) tensor.copy_(lists.w[k]);
    }
  }
  // the loops write behind autograd's back: let it notice stale saved tensors
  for (const auto& parameter : parameters_) parameter.tensor.unsafeGetTensorImpl()->bump_version();
  gradients_.clear();
}

}  // namespace stoa::optim
