#include <ATen/ATen.h>

#include "stoa/ops/optimizer_kernels.h"
#include "stoa/optim/rules.h"

namespace stoa::optim {
namespace {

/// w -= lr d with g += decay w, b = momentum b + (1 - dampening) g (b = g at first), d = b, or g + momentum b
/// (Nesterov).
class Sgd final : public Rule {
 public:
  Sgd(Updated updated, const OptimizerOptions& options)
      : Rule(std::move(updated), options,
             options.momentum != 0 ? std::vector<std::string>{"momentum_buffer"}
                                   : std::vector<std::string>{}) {}

 protected:
  void prepare(double lr, double t) override {
    constants_.lr = lr;
    constants_.momentum = options_.momentum;
    constants_.fresh = t == 1 ? 1 : 1 - options_.dampening;
    constants_.nesterov = options_.nesterov;
  }

  void update_chunks() override {
    for_each_span([&]<class T>(std::size_t, const Chunk&, const Span<T>& span) {
      auto constants = constants_;
      constants.gradient_scale = span.gradient_scale;
      constants.decay = span.decay;
      ops::optimizer_kernels<T>().sgd(span.w, span.g, span.states[0], span.size, constants);
    });
  }

  void update_on_device(std::vector<ops::DeviceParameter>& parameters,
                        const std::vector<std::size_t>&) override {
    ops::sgd_on_device(parameters, constants_);
  }

  void update_lists(Lists& lists) override {
    auto& w = lists.w;
    auto g = at::_foreach_add(lists.g,
                              at::_foreach_mul(w, scalars(lists.decay, [](double decay) { return decay; })));
    if (options_.momentum != 0) {
      auto& b = lists.states[0];
      at::_foreach_mul_(b, options_.momentum);
      at::_foreach_add_(b, g, constants_.fresh);
      if (options_.nesterov)
        at::_foreach_add_(g, b, options_.momentum);
      else
        g = b;
    }
    at::_foreach_add_(w, g, -constants_.lr);
  }

 private:
  ops::SgdConstants constants_;
};

}  // namespace

std::unique_ptr<Optimizer> make_sgd(Updated updated, const OptimizerOptions& options) {
  return std::make_unique<Sgd>(std::move(updated), options);
}

}  // namespace stoa::optim
