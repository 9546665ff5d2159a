#include <ATen/ATen.h>

#include "stoa/optim/rules.h"

namespace stoa::optim {
namespace {

/// w -= lr d with g += decay w, b = momentum b + (1 - dampening) g (b = g at first), d = b, or g + momentum b
/// (Nesterov).
class Sgd final : public Rule {
 public:
  Sgd(std::vector<nn::NamedParameter> parameters, const OptimizerOptions& options)
      : Rule(std::move(parameters), options,
             options.momentum != 0 ? std::vector<std::string>{"momentum_buffer"}
                                   : std::vector<std::string>{}) {}

 protected:
  void prepare(double lr, double t) override {
    lr_ = lr;
    fresh_ = t == 1 ? 1 : 1 - options_.dampening;
  }

  void update_chunks() override {
    for_each_chunk(chunks_, [&](std::size_t, const Chunk& chunk) {
      with_element_type(parameters_[chunk.tensor].tensor, [&](auto type) { update<decltype(type)>(chunk); });
    });
  }

  void update_lists(Lists& lists) override {
    auto& w = lists.w;
    auto g = at::_foreach_add(lists.g,
                              at::_foreach_mul(w, scalars(lists.decay, [](double decay) { return decay; })));
    if (options_.momentum != 0) {
      auto& b = lists.states[0];
      at::_foreach_mul_(b, options_.momentum);
      at::_foreach_add_(b, g, fresh_);
      if (options_.nesterov)
        at::_foreach_add_(g, b, options_.momentum);
      else
        g = b;
    }
    at::_foreach_add_(w, g, -lr_);
  }

 private:
  template <class T>
  void update(const Chunk& chunk) const {
    T* __restrict w = weight<T>(chunk);
    const T* __restrict g = gradient<T>(chunk);
    const auto size = chunk.end - chunk.begin;
    const T lr = static_cast<T>(lr_), decay = static_cast<T>(decay_[chunk.tensor]);
    if (options_.momentum == 0) {
#pragma omp simd
      for (std::int64_t i = 0; i < size; ++i) w[i] -= lr * (g[i] + decay * w[i]);
      return;
    }
    T* __restrict b = state_of<T>(0, chunk);
    const T momentum = static_cast<T>(options_.momentum), fresh = static_cast<T>(fresh_);
    const T of_gradient = options_.nesterov ? 1 : 0, of_buffer = options_.nesterov ? momentum : 1;
#pragma omp simd
    for (std::int64_t i = 0; i < size; ++i) {
      const T slope = g[i] + decay * w[i];
      b[i] = momentum * b[i] + fresh * slope;
      w[i] -= lr * (of_gradient * slope + of_buffer * b[i]);
    }
  }

  double lr_ = 0, fresh_ = 1;
};

}  // namespace

std::unique_ptr<Optimizer> make_sgd(std::vector<nn::NamedParameter> parameters,
                                    const OptimizerOptions& options) {
  return std::make_unique<Sgd>(std::move(parameters), options);
}

}  // namespace stoa::optim
