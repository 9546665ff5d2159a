#pragma once

#include <torch/nn/module.h>

#include <map>
#include <string>
#include <vector>

#include "stoa/optim/chunks.h"

namespace stoa::optim {

/// Exponential moving average of a model's parameters and buffers: a = decay a + (1 - decay) w, with
/// decay_t = min(decay, (1 + t) / (10 + t)) at update t (from 1), so that the first values are soon
/// forgotten.
class MovingAverage {
 public:
  /// Throws ConfigError unless 0 <= decay < 1.
  MovingAverage(const torch::nn::Module& module, double decay);
  /// The same of tensors by name, which may be parts of a model's.
  MovingAverage(std::map<std::string, at::Tensor> live, double decay);
  void update();
  /// Exchanges the averages with the model's own values; a second call exchanges them back.
  void swap();
  /// Averages by parameter name and the number of updates, for checkpoints.
  std::map<std::string, at::Tensor> state() const;
  void load(const std::map<std::string, at::Tensor>& state, const std::string& source);

 private:
  std::map<std::string, at::Tensor> live_, average_;
  /// Those that the loops run over, their chunks, and the names of the others.
  std::vector<at::Tensor> looped_averages_, looped_values_;
  Chunks chunks_;
  std::vector<std::string> others_;
  double decay_;
  at::Tensor updates_;
};

}  // namespace stoa::optim
