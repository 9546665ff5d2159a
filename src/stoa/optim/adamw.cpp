#include <ATen/ATen.h>

#include <cmath>

#include "stoa/optim/rules.h"

namespace stoa::optim {
namespace {

/// Loshchilov and Hutter 2019 as in PyTorch: w *= 1 - lr decay; m, v as Adam's; w -= lr mhat / (sqrt(vhat) + eps).
/// Not decoupled it is Adam: g += decay w instead of the first.
class AdamW final : public Rule {
 public:
  AdamW(std::vector<nn::NamedParameter> parameters, const OptimizerOptions& options)
      : Rule(std::move(parameters), options, {"exp_avg", "exp_avg_sq"}) {}

 protected:
  void prepare(double lr, double t) override {
    lr_ = lr;
    const bool correct = options_.bias_correction;
    step_size_ = lr / (correct ? 1 - std::pow(options_.betas[0], t) : 1);
    root_scale_ = 1 / std::sqrt(correct ? 1 - std::pow(options_.betas[1], t) : 1);
  }

  void update_chunks() override {
    for_each_chunk(chunks_, [&](std::size_t, const Chunk& chunk) {
      with_element_type(parameters_[chunk.tensor].tensor, [&](auto type) { update<decltype(type)>(chunk); });
    });
  }

  void update_lists(Lists& lists) override {
    auto &m = lists.states[0], &v = lists.states[1];
    auto g = lists.g;
    if (options_.decoupled)
      at::_foreach_mul_(lists.w, scalars(lists.decay, [&](double decay) { return 1 - lr_ * decay; }));
    else
      g = at::_foreach_add(g, at::_foreach_mul(lists.w, scalars(lists.decay, [](double decay) { return decay; })));
    at::_foreach_lerp_(m, g, 1 - options_.betas[0]);
    at::_foreach_mul_(v, options_.betas[1]);
    at::_foreach_addcmul_(v, g, g, 1 - options_.betas[1]);
    auto root = at::_foreach_sqrt(v);
    at::_foreach_mul_(root, root_scale_);
    at::_foreach_add_(root, options_.eps);
    at::_foreach_addcdiv_(lists.w, m, root, -step_size_);
  }

 private:
  template <class T>
  void update(const Chunk& chunk) const {
    T* __restrict w = weight<T>(chunk);
    const T* __restrict g = gradient<T>(chunk);
    T* __restrict m = state_of<T>(0, chunk);
    T* __restrict v = state_of<T>(1, chunk);
    const T beta1 = static_cast<T>(options_.betas[0]), rest1 = static_cast<T>(1 - options_.betas[0]);
    const T beta2 = static_cast<T>(options_.betas[1]), rest2 = static_cast<T>(1 - options_.betas[1]);
    const double decay = decay_[chunk.tensor];
    const T keep = static_cast<T>(options_.decoupled ? 1 - lr_ * decay : 1);
    const T coupled = static_cast<T>(options_.decoupled ? 0 : decay), step = static_cast<T>(step_size_);
    const T scale = static_cast<T>(root_scale_), eps = static_cast<T>(options_.eps);
    const auto size = chunk.end - chunk.begin;
#pragma omp simd
    for (std::int64_t i = 0; i < size; ++i) {
      const T slope = g[i] + coupled * w[i];
      m[i] = beta1 * m[i] + rest1 * slope;
      v[i] = beta2 * v[i] + rest2 * slope * slope;
      w[i] = keep * w[i] - step * m[i] / (std::sqrt(v[i]) * scale + eps);
    }
  }

  double lr_ = 0, step_size_ = 0, root_scale_ = 1;
};

}  // namespace

std::unique_ptr<Optimizer> make_adamw(std::vector<nn::NamedParameter> parameters,
                                      const OptimizerOptions& options) {
  return std::make_unique<AdamW>(std::move(parameters), options);
}

}  // namespace stoa::optim
