#include <ATen/ATen.h>

#include <cmath>

#include "stoa/ops/optimizer_kernels.h"
#include "stoa/optim/rules.h"

namespace stoa::optim {
namespace {

/// Loshchilov and Hutter 2019 as in PyTorch: w *= 1 - lr decay; m, v as Adam's; w -= lr mhat / (sqrt(vhat) +
/// eps), in Keras' form eps / sqrt(1 - beta2^t) in place of eps. Not decoupled it is Adam: g += decay w
/// instead of the first.
class AdamW final : public Rule {
 public:
  AdamW(Updated updated, const OptimizerOptions& options)
      : Rule(std::move(updated), options, {"exp_avg", "exp_avg_sq"}) {}

 protected:
  void prepare(double lr, double t) override {
    const bool correct = options_.bias_correction;
    lr_ = lr;
    constants_.beta1 = options_.betas[0];
    constants_.beta2 = options_.betas[1];
    constants_.step = lr / (correct ? 1 - std::pow(options_.betas[0], t) : 1);
    constants_.root_scale = 1 / std::sqrt(correct ? 1 - std::pow(options_.betas[1], t) : 1);
    constants_.eps = options_.keras_eps ? options_.eps * constants_.root_scale : options_.eps;
  }

  void update_chunks() override {
    for_each_span([&]<class T>(std::size_t, const Chunk&, const Span<T>& span) {
      auto constants = constants_;
      constants.gradient_scale = span.gradient_scale;
      (options_.decoupled ? constants.keep : constants.coupled_decay) =
          options_.decoupled ? 1 - lr_ * span.decay : span.decay;
      ops::optimizer_kernels<T>().adamw(span.w, span.g, span.states[0], span.states[1], span.size, constants);
    });
  }

  void update_on_device(std::vector<ops::DeviceParameter>& parameters,
                        const std::vector<std::size_t>&) override {
    ops::adamw_on_device(parameters, constants_, lr_, options_.decoupled);
  }

  void update_lists(Lists& lists) override {
    auto &m = lists.states[0], &v = lists.states[1];
    auto g = lists.g;
    if (options_.decoupled)
      at::_foreach_mul_(lists.w, scalars(lists.decay, [&](double decay) { return 1 - lr_ * decay; }));
    else
      g = at::_foreach_add(
          g, at::_foreach_mul(lists.w, scalars(lists.decay, [](double decay) { return decay; })));
    at::_foreach_lerp_(m, g, 1 - options_.betas[0]);
    at::_foreach_mul_(v, options_.betas[1]);
    at::_foreach_addcmul_(v, g, g, 1 - options_.betas[1]);
    auto root = at::_foreach_sqrt(v);
    at::_foreach_mul_(root, constants_.root_scale);
    at::_foreach_add_(root, constants_.eps);
    at::_foreach_addcdiv_(lists.w, m, root, -constants_.step);
  }

 private:
  double lr_ = 0;
  ops::AdamWConstants constants_;
};

}  // namespace

std::unique_ptr<Optimizer> make_adamw(Updated updated, const OptimizerOptions& options) {
  return std::make_unique<AdamW>(std::move(updated), options);
}

}  // namespace stoa::optim
