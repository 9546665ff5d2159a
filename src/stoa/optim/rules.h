#pragma once

#include <memory>
#include <string>
#include <vector>

#include "stoa/optim/chunks.h"
#include "stoa/optim/optimizer.h"

namespace stoa::optim {

std::unique_ptr<Optimizer> make_sgd(std::vector<nn::NamedParameter> parameters,
                                    const OptimizerOptions& options);
std::unique_ptr<Optimizer> make_adamw(std::vector<nn::NamedParameter> parameters,
                                      const OptimizerOptions& options);
std::unique_ptr<Optimizer> make_lamb(std::vector<nn::NamedParameter> parameters,
                                     const OptimizerOptions& options);

/// True if the options take weight decay and trust ratio from a parameter: it, or each of its slices, has one
/// dimension or none, or a part of its name is listed.
bool is_excluded(const nn::NamedParameter& parameter, const OptimizerOptions& options);

/// The parameter's gradient. Throws Error if it is sparse.
at::Tensor dense_gradient(const nn::NamedParameter& parameter);

/// What the update rules share: state tensors, decay of each parameter, gradients, and two ways through the
/// parameters: chunks for the loops (CPU, fp32 and fp64), lists for ATen's foreach operators (everything
/// else).
class Rule : public Optimizer {
 public:
  std::map<std::string, at::Tensor> state() const override;
  void step(double lr) final;

 protected:
  /// `states` names the state tensors that each parameter has, in fp32 or fp64, starting at 0.
  Rule(std::vector<nn::NamedParameter> parameters, const OptimizerOptions& options,
       std::vector<std::string> states);

  /// Called once per step, before the two below, with `t` from 1.
  virtual void prepare(double lr, double t) = 0;
  /// Updates the parameters that have chunks.
  virtual void update_chunks() = 0;
  /// One foreach step: weights `w`, gradients `g` and states, all of the states' types; `decay` is per
  /// weight.
  struct Lists {
    std::vector<at::Tensor> w, g;
    std::vector<std::vector<at::Tensor>> states;
    std::vector<double> decay;
    std::vector<std::size_t> places;  ///< of the weights among the parameters
  };
  virtual void update_lists(Lists& lists) = 0;

  template <class T>
  T* weight(const Chunk& chunk) const {
    return parameters_[chunk.tensor].tensor.mutable_data_ptr<T>() + chunk.begin;
  }
  template <class T>
  const T* gradient(const Chunk& chunk) const {
    return gradients_[chunk.tensor].const_data_ptr<T>() + chunk.begin;
  }
  template <class T>
  T* state_of(std::size_t which, const Chunk& chunk) const {
    return states_[which][chunk.tensor].mutable_data_ptr<T>() + chunk.begin;
  }

  OptimizerOptions options_;
  std::vector<bool> excluded_;
  std::vector<double> decay_;
  Chunks chunks_;

 private:
  void collect_gradients();
  Lists make_lists() const;

  std::vector<std::string> state_names_;
  std::vector<std::vector<at::Tensor>> states_;  // [state][parameter]
  std::vector<at::Tensor> gradients_;            // of this step
  std::vector<std::size_t> unchunked_;
  at::Tensor step_;
};

/// Scalars for the foreach operators: f of each value.
template <class F>
std::vector<at::Scalar> scalars(const std::vector<double>& values, const F& f) {
  std::vector<at::Scalar> result;
  for (const auto value : values) result.emplace_back(f(value));
  return result;
}

}  // namespace stoa::optim
