#include "stoa/optim/rules.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"

namespace stoa::optim {
namespace {

std::vector<nn::NamedParameter> tensors_of(const std::vector<PartialParameter>& parameters) {
  std::vector<nn::NamedParameter> tensors;
  for (const auto& [whole, part, begin] : parameters) tensors.push_back({whole.name, part, whole.slices});
  return tensors;
}

}  // namespace

bool is_excluded(const nn::NamedParameter& parameter, const OptimizerOptions& options) {
  const auto& tensor = parameter.tensor;
  // a stack of vectors [slices, size] is made of vectors, a fused matrix [slices * rows, columns] of matrices
  const bool stacked = parameter.slices > 1 && tensor.dim() > 0 && tensor.size(0) == parameter.slices;
  if (options.exclude_vectors && tensor.dim() - (stacked ? 1 : 0) <= 1) return true;
  return std::any_of(options.exclude.begin(), options.exclude.end(),
                     [&](const std::string& part) { return parameter.name.find(part) != std::string::npos; });
}

const at::Tensor& dense_gradient(const nn::NamedParameter& parameter) {
  const at::Tensor& gradient = parameter.tensor.grad();
  if (gradient.defined() && gradient.layout() != at::kStrided)
    throw Error(
        format("parameter `{}` has a sparse gradient; a dense one is needed: build its embedding with sparse "
               "= false",
               parameter.name));
  return gradient;
}

Rule::Rule(Updated updated, const OptimizerOptions& options, std::vector<std::string> states)
    : Optimizer(tensors_of(updated.parameters)),
      options_(options),
      sum_(std::move(updated.sum)),
      joint_(std::move(updated.joint)),
      state_names_(std::move(states)),
      states_(state_names_.size()),
      zero_chunk_(at::zeros({kChunkSize}, at::kDouble)),
      zeros_(zero_chunk_.const_data_ptr()) {
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const auto& [whole, tensor, begin] = updated.parameters[i];
    excluded_.push_back(is_excluded(whole, options_));
    decay_.push_back(excluded_.back() ? 0 : options_.weight_decay);
    const auto type = tensor.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    auto& arrays = arrays_.emplace_back();
    arrays.is_double = type == at::kDouble;
    for (std::size_t k = 0; k < states_.size(); ++k) {
      states_[k].push_back(
          at::zeros_like(tensor.detach(), tensor.options().dtype(type).requires_grad(false)));
      if (is_loopable(tensor)) arrays.states[k] = states_[k].back().mutable_data_ptr();
    }
    sliced_.push_back(
        {tensor, whole.slices, begin, tensor.is_same(whole.tensor) ? -1 : whole.tensor.numel()});
    if (!is_loopable(tensor)) unchunked_.push_back(i);
  }
  chunks_ = make_chunks(sliced_);
  step_ = at::zeros({}, at::kLong);
}

std::map<std::string, at::Tensor> Rule::state() const {
  std::map<std::string, at::Tensor> result{{"step", step_}};
  for (std::size_t k = 0; k < states_.size(); ++k)
    for (std::size_t i = 0; i < parameters_.size(); ++i)
      result[parameters_[i].name + "." + state_names_[k]] = states_[k][i];
  return result;
}

void Rule::collect_arrays() {
  copies_.clear();
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const at::Tensor &tensor = parameters_[i].tensor, &gradient = dense_gradient(parameters_[i]);
    auto& arrays = arrays_[i];
    if (!is_loopable(tensor)) continue;
    arrays.w = tensor.mutable_data_ptr();
    if (!gradient.defined()) {
      arrays.g = nullptr;
    } else if (is_loopable(gradient) && gradient.scalar_type() == tensor.scalar_type()) {
      arrays.g = gradient.const_data_ptr();
    } else {
      copies_.push_back(gradient.to(tensor.options()).contiguous());
      arrays.g = copies_.back().const_data_ptr();
    }
  }
}

std::vector<double> Rule::gradient_squares() const {
  std::vector<Elements> elements;
  elements.reserve(arrays_.size());
  for (const auto& arrays : arrays_) elements.push_back({arrays.g, arrays.is_double});
  auto squares = square_sums(chunks_, elements);
  std::vector<UnchunkedTensor> others;
  for (const auto i : unchunked_)
    if (const auto& gradient = dense_gradient(parameters_[i]); gradient.defined())
      others.push_back(sliced_as(i, gradient));
  add_square_sums(others, squares);
  sum_over_parts(squares);
  return squares;
}

UnchunkedTensor Rule::sliced_as(std::size_t place, const at::Tensor& tensor) const {
  UnchunkedTensor result{sliced_[place], chunks_.first_slice[place]};
  result.sliced.tensor = tensor;
  return result;
}

GradientScale Rule::clipping(double limit, bool each_slice) {
  at::NoGradGuard no_grad;
  collect_arrays();
  auto squares = gradient_squares();
  const auto factor = [limit](double norm) {
    return limit > 0 && norm > limit && std::isfinite(norm) ? limit / norm : 1;
  };
  GradientScale scale;
  scale.norm = joint_norm(squares);
  if (!each_slice) {
    scale.factor = factor(scale.norm);
    scale.scaled_norm = scale.factor * scale.norm;
    return scale;
  }
  for (auto& square : squares) {
    const double by = scale.factors.emplace_back(factor(std::sqrt(square)));
    square = square * by * by;
  }
  scale.scaled_norm = joint_norm(squares);
  return scale;
}

double Rule::scaled_norm() const {
  if (scale_ != nullptr) return scale_->scaled_norm;
  return joint_norm(gradient_squares());
}

double Rule::joint_norm(const std::vector<double>& squares) const {
  return std::sqrt(joint_ ? joint_(squares) : std::accumulate(squares.begin(), squares.end(), 0.0));
}

/// What scales the gradient: one factor, or one for each slice, or piece of a slice that a part has.
std::vector<double> Rule::factors_of(std::size_t place) const {
  if (scale_ == nullptr) return {1};
  if (scale_->factors.empty()) return {scale_->factor};
  const auto first = scale_->factors.begin() + chunks_.first_slice[place];
  if (sliced_[place].whole < 0) return {first, first + parameters_[place].slices};
  std::vector<double> factors;
  for (const auto& piece : pieces_of(sliced_[place])) factors.push_back(first[piece.slice]);
  return factors;
}

at::Tensor Rule::scaled_gradient(std::size_t place, at::ScalarType type) const {
  const auto& [name, tensor, slices] = parameters_[place];
  const auto& gradient = dense_gradient(parameters_[place]);
  if (!gradient.defined()) return at::zeros_like(tensor.detach(), tensor.options().dtype(type));
  const auto wide = gradient.to(type);
  const auto factors = factors_of(place);
  if (factors.empty()) return wide;  // a part without elements
  if (factors.size() == 1) return factors[0] == 1 ? wide : wide * factors[0];
  if (sliced_[place].whole >= 0) {
    const auto scaled = sliced_as(place, wide.clone()).sliced;
    const auto pieces = pieces_of(scaled);
    for (std::size_t k = 0; k < pieces.size(); ++k) cut(scaled, pieces[k]).mul_(factors[k]);
    return scaled.tensor;
  }
  const auto column = at::tensor(factors).to(wide.options()).unsqueeze(1);
  return (wide.reshape({slices, -1}) * column).reshape(wide.sizes());
}

/// One parameter; a part whose pieces have factors of their own piece by piece.
void Rule::add_device_parameters(std::size_t place, std::vector<ops::DeviceParameter>& parameters) const {
  const auto& [name, tensor, slices] = parameters_[place];
  const auto factors = factors_of(place);
  const bool is_whole = sliced_[place].whole < 0;
  ops::DeviceParameter parameter{tensor.detach(), {},   {}, is_whole ? slices : 1, factors,
                                 decay_[place],   false};
  if (const auto& gradient = dense_gradient(parameters_[place]); gradient.defined())
    parameter.g = gradient.to(tensor.options()).contiguous();
  for (const auto& state : states_) parameter.states.push_back(state[place]);
  if (is_whole || factors.size() == 1) {
    parameters.push_back(std::move(parameter));
    return;
  }
  const auto pieces = pieces_of(sliced_[place]);
  for (std::size_t k = 0; k < pieces.size(); ++k) {
    const auto piece_of = [&](const at::Tensor& t) {
      return t.defined() ? cut(sliced_as(place, t).sliced, pieces[k]) : t;
    };
    auto piece = parameter;
    piece.w = piece_of(piece.w);
    piece.g = piece_of(piece.g);
    for (auto& state : piece.states) state = piece_of(state);
    piece.gradient_scales = {factors[k]};
    parameters.push_back(std::move(piece));
  }
}

void Rule::add_to_lists(std::size_t place, Lists& lists) const {
  const auto& tensor = parameters_[place].tensor;
  const auto type = tensor.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  lists.w.push_back(tensor.detach().to(type));
  lists.g.push_back(scaled_gradient(place, type));
  for (std::size_t k = 0; k < states_.size(); ++k) lists.states[k].push_back(states_[k][place]);
  lists.decay.push_back(decay_[place]);
  lists.places.push_back(place);
}

void Rule::update_unchunked() {
  std::vector<ops::DeviceParameter> on_device;
  std::vector<std::size_t> places;
  Lists lists;
  lists.states.resize(states_.size());
  for (const auto place : unchunked_) {
    const bool cannot = has_parts() && takes_norms();
    if (ops::has_optimizer_kernels(parameters_[place].tensor) && !cannot) {
      add_device_parameters(place, on_device);
      places.resize(on_device.size(), place);
    } else {
      add_to_lists(place, lists);
    }
  }
  if (!on_device.empty()) update_on_device(on_device, places);
  if (lists.places.empty()) return;
  update_lists(lists);
  for (std::size_t k = 0; k < lists.places.size(); ++k) {
    const auto& tensor = parameters_[lists.places[k]].tensor;
    if (lists.w[k].scalar_type() != tensor.scalar_type()) tensor.copy_(lists.w[k]);
  }
}

void Rule::update(double lr, const GradientScale* scale) {
  if (!(std::isfinite(lr) && lr >= 0))
    throw ConfigError(format("learning rate is {}; it must be >= 0: look at lr and schedule", lr));
  at::NoGradGuard no_grad;
  scale_ = scale;
  collect_arrays();
  step_.add_(1);
  prepare(lr, step_.item<double>());
  update_chunks();
  update_unchunked();
  // the loops write behind autograd's back: let it notice stale saved tensors
  for (const auto& parameter : parameters_) parameter.tensor.unsafeGetTensorImpl()->bump_version();
  copies_.clear();
  scale_ = nullptr;
}

}  // namespace stoa::optim
