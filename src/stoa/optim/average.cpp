#include "stoa/optim/average.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/nn/parameters.h"
#include "stoa/ops/optimizer_kernels.h"
#include "stoa/optim/state.h"

namespace stoa::optim {
namespace {

constexpr const char* kUpdates = "updates";

}  // namespace

MovingAverage::MovingAverage(const torch::nn::Module& module, double decay)
    : MovingAverage(nn::module_state(module), decay) {}

MovingAverage::MovingAverage(std::map<std::string, at::Tensor> live, double decay)
    : live_(std::move(live)), decay_(decay), updates_(at::zeros({}, at::kLong)) {
  if (!(decay >= 0 && decay < 1))
    throw ConfigError(format("decay of the moving average is {}; it must be >= 0 and below 1", decay));
  std::vector<SlicedTensor> looped;
  for (const auto& [name, value] : live_) {
    const auto& average = average_[name] = value.clone();
    if (is_loopable(value) && is_loopable(average)) {
      looped.push_back({average});
      looped_averages_.push_back(average);
      looped_values_.push_back(value);
    } else {
      others_.push_back(name);
    }
  }
  chunks_ = make_chunks(looped);
}

void MovingAverage::update() {
  at::NoGradGuard no_grad;
  updates_.add_(1);
  const double t = updates_.item<double>(), share = 1 - std::min(decay_, (1 + t) / (10 + t));
  for_each_chunk(chunks_, [&](std::size_t, const Chunk& chunk) {
    const auto &average = looped_averages_[chunk.tensor], &value = looped_values_[chunk.tensor];
    with_element_type(average.scalar_type() == at::kDouble, [&](auto type) {
      using T = decltype(type);
      ops::optimizer_kernels<T>().average(average.mutable_data_ptr<T>() + chunk.begin,
                                          value.const_data_ptr<T>() + chunk.begin, chunk.size(), share);
    });
  });
  for (const auto& name : others_) {
    auto& average = average_.at(name);
    if (average.is_floating_point())
      average.lerp_(live_.at(name), share);
    else
      average.copy_(live_.at(name));  // counters have no average
  }
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
