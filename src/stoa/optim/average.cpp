#include "stoa/optim/average.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/nn/parameters.h"
#include "stoa/optim/chunks.h"
#include "stoa/optim/state.h"

namespace stoa::optim {
namespace {

constexpr const char* kUpdates = "updates";

}  // namespace

MovingAverage::MovingAverage(const torch::nn::Module& module, double decay)
    : live_(nn::module_state(module)), decay_(decay), updates_(at::zeros({}, at::kLong)) {
  if (!(decay >= 0 && decay < 1))
    throw ConfigError(format("decay of the moving average is {}; it must be >= 0 and below 1", decay));
  for (const auto& [name, tensor] : live_) average_[name] = tensor.clone();
}

void MovingAverage::update() {
  at::NoGradGuard no_grad;
  updates_.add_(1);
  const double t = updates_.item<double>(), share = 1 - std::min(decay_, (1 + t) / (10 + t));
  std::vector<SlicedTensor> averages;
  std::vector<at::Tensor> values;
  for (auto& [name, average] : average_) {
    const auto& value = live_.at(name);
    if (is_loopable(average) && is_loopable(value)) {
      averages.push_back({average});
      values.push_back(value);
    } else if (average.is_floating_point()) {
      average.lerp_(value, share);
    } else {
      average.copy_(value);  // counters have no average
    }
  }
  for_each_chunk(make_chunks(averages), [&](std::size_t, const Chunk& chunk) {
    with_element_type(averages[chunk.tensor].tensor, [&](auto type) {
      using T = decltype(type);
      T* __restrict a = averages[chunk.tensor].tensor.mutable_data_ptr<T>();
      const T* __restrict w = values[chunk.tensor].const_data_ptr<T>();
      const T part = static_cast<T>(share);
#pragma omp simd
      for (std::int64_t i = chunk.begin; i < chunk.end; ++i) a[i] += part * (w[i] - a[i]);
    });
  });
}

void MovingAverage::swap() {
  at::NoGradGuard no_grad;
  for (auto& [name, average] : average_) {
    auto& value = live_.at(name);
    const auto kept = value.clone();
    value.copy_(average);
    average.copy_(kept);
  }
}

std::map<std::string, at::Tensor> MovingAverage::state() const {
  auto result = average_;
  result[kUpdates] = updates_;
  return result;
}

void MovingAverage::load(const std::map<std::string, at::Tensor>& state, const std::string& source) {
  copy_state(state, this->state(), source);
}

}  // namespace stoa::optim
