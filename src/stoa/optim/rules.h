#pragma once

#include <memory>
#include <string>
#include <vector>

#include "stoa/ops/optimizer_device.h"
#include "stoa/optim/chunks.h"
#include "stoa/optim/optimizer.h"
#include "stoa/optim/part.h"

namespace stoa::optim {

/// What a rule updates: whole parameters, where there is no `sum`, or parts. Without `joint` they are all
/// that there are.
struct Updated {
  std::vector<PartialParameter> parameters;
  SumOverParts sum = {};
  JointSquare joint = {};
};

std::unique_ptr<Optimizer> make_sgd(Updated updated, const OptimizerOptions& options);
std::unique_ptr<Optimizer> make_adamw(Updated updated, const OptimizerOptions& options);
std::unique_ptr<Optimizer> make_lamb(Updated updated, const OptimizerOptions& options);

/// True if the options take weight decay and trust ratio from a parameter: it, or each of its slices, has one
/// dimension or none, or a part of its name is listed.
bool is_excluded(const nn::NamedParameter& parameter, const OptimizerOptions& options);

/// The parameter's gradient. Throws Error if it is sparse.
const at::Tensor& dense_gradient(const nn::NamedParameter& parameter);

/// What the update rules share: state tensors, decay of each parameter, gradients, and three ways through the
/// parameters: chunks for the loops (CPU, fp32 and fp64), the kernels of ops/optimizer_device.h where they
/// are built in, lists for ATen's foreach operators (everything else). parameters() are those that it
/// updates: parts, where that is what it was given.
class Rule : public Optimizer {
 public:
  std::map<std::string, at::Tensor> state() const override;
  GradientScale clipping(double limit, bool each_slice) final;

 protected:
  static constexpr std::size_t kMostStates = 2;

  /// `states` names the state tensors that each parameter has, in fp32 or fp64, starting at 0.
  Rule(Updated updated, const OptimizerOptions& options, std::vector<std::string> states);

  /// Called once per step, before the two below, with `t` from 1.
  virtual void prepare(double lr, double t) = 0;
  /// Updates the parameters that have chunks.
  virtual void update_chunks() = 0;
  /// Updates parameters on a GPU; `places` are theirs among the parameters.
  virtual void update_on_device(std::vector<ops::DeviceParameter>& parameters,
                                const std::vector<std::size_t>& places) = 0;
  /// One foreach step: weights `w`, scaled gradients `g` and states, all of the states' types; `decay` is per
  /// weight.
  struct Lists {
    std::vector<at::Tensor> w, g;
    std::vector<std::vector<at::Tensor>> states;
    std::vector<double> decay;
    std::vector<std::size_t> places;  ///< of the weights among the parameters
  };
  virtual void update_lists(Lists& lists) = 0;
  /// Does update_on_device() take norms of its own? Parts then go through the lists.
  virtual bool takes_norms() const { return false; }

  /// The arrays of one chunk; states that the rule does not have are null.
  template <class T>
  struct Span {
    T* w;
    const T* g;
    T* states[kMostStates];
    std::int64_t size;
    double gradient_scale, decay;
  };
  /// Calls f(number, chunk, span) as for_each_chunk() does.
  template <class F>
  void for_each_span(std::size_t first, std::size_t last, const F& f, Order order = Order::kForwards) const {
    const auto of_type = [&](std::size_t number, const Chunk& chunk) {
      with_element_type(arrays_[chunk.tensor].is_double,
                        [&](auto type) { f(number, chunk, span<decltype(type)>(chunk)); });
    };
    for_each_chunk(chunks_, first, last, of_type, order);
  }
  template <class F>
  void for_each_span(const F& f) const {
    for_each_span(0, chunks_.list.size(), f);
  }

  /// Norm of all gradients together, scaled, of this step.
  double scaled_norm() const;

  bool has_parts() const { return static_cast<bool>(sum_); }
  /// Sums of this process become those of all that have parts.
  void sum_over_parts(std::vector<double>& sums) const {
    if (sum_) sum_(sums);
  }
  /// `tensor` in place of the weights of the parameter at `place`.
  UnchunkedTensor sliced_as(std::size_t place, const at::Tensor& tensor) const;

  OptimizerOptions options_;
  std::vector<bool> excluded_;
  std::vector<double> decay_;
  std::vector<SlicedTensor> sliced_;  // the parameters
  Chunks chunks_;

 private:
  /// What the loops see of a parameter; without gradient `g` is null.
  struct Arrays {
    void* w;
    const void* g;
    void* states[kMostStates];
    bool is_double;
  };

  template <class T>
  Span<T> span(const Chunk& chunk) const {
    const Arrays& arrays = arrays_[chunk.tensor];
    Span<T> span{};
    span.w = static_cast<T*>(arrays.w) + chunk.begin;
    span.g =
        arrays.g == nullptr ? static_cast<const T*>(zeros_) : static_cast<const T*>(arrays.g) + chunk.begin;
    for (std::size_t k = 0; k < states_.size(); ++k)
      span.states[k] = static_cast<T*>(arrays.states[k]) + chunk.begin;
    span.size = chunk.size();
    span.gradient_scale = factor(chunk.slice);
    span.decay = decay_[chunk.tensor];
    return span;
  }
  double factor(std::int64_t slice) const {
    if (scale_ == nullptr) return 1;
    return scale_->factors.empty() ? scale_->factor : scale_->factors[static_cast<std::size_t>(slice)];
  }

  void update(double lr, const GradientScale* scale) final;
  void collect_arrays();
  std::vector<double> gradient_squares() const;
  double joint_norm(const std::vector<double>& squares) const;
  std::vector<double> factors_of(std::size_t place) const;
  at::Tensor scaled_gradient(std::size_t place, at::ScalarType type) const;
  void add_device_parameters(std::size_t place, std::vector<ops::DeviceParameter>& parameters) const;
  void add_to_lists(std::size_t place, Lists& lists) const;
  void update_unchunked();

  SumOverParts sum_;
  JointSquare joint_;
  std::vector<std::string> state_names_;
  std::vector<std::vector<at::Tensor>> states_;  // [state][parameter]
  std::vector<Arrays> arrays_;                   // [parameter]; weights and gradients are those of this step
  std::vector<at::Tensor> copies_;               // of gradients that the loops cannot run over, of this step
  std::vector<std::size_t> unchunked_;
  at::Tensor zero_chunk_, step_;
  const void* zeros_;
  const GradientScale* scale_ = nullptr;  // of this step
};

/// Scalars for the foreach operators: f of each value.
template <class F>
std::vector<at::Scalar> scalars(const std::vector<double>& values, const F& f) {
  std::vector<at::Scalar> result;
  for (const auto value : values) result.emplace_back(f(value));
  return result;
}

}  // namespace stoa::optim
