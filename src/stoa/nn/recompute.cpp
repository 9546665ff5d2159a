#include "stoa/nn/recompute.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <memory>
#include <mutex>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/ops/dropout.h"
#include "stoa/tensor/runtime.h"

namespace stoa::nn {
namespace {

at::Tensor random_state(at::Generator generator) {
  const std::scoped_lock lock(generator.mutex());
  return generator.get_state();
}

/// Puts a generator into a state, and back at the end of the scope.
class RandomScope {
 public:
  RandomScope(at::Generator generator, const at::Tensor& state)
      : generator_(std::move(generator)), before_(random_state(generator_)) {
    set(state);
  }
  ~RandomScope() { set(before_); }
  RandomScope(const RandomScope&) = delete;
  RandomScope& operator=(const RandomScope&) = delete;

 private:
  void set(const at::Tensor& state) {
    const std::scoped_lock lock(generator_.mutex());
    generator_.set_state(state);
  }
  at::Generator generator_;
  at::Tensor before_;
};

/// What a second run of a block needs beside its inputs.
struct Again : torch::CustomClassHolder {
  Block block;
  Runtime runtime;  // device and precision of the first run
  at::Tensor random;
  ops::BatchPart part;
};

class RecomputeFunction : public torch::autograd::Function<RecomputeFunction> {
 public:
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context,
                                                at::TensorList inputs, const Block& block) {
    const auto again = c10::make_intrusive<Again>();
    again->block = block;
    again->runtime.device = inputs.front().device();
    again->runtime.bf16 = at::autocast::is_autocast_enabled(again->runtime.device.type());
    again->random = random_state(at::globalContext().defaultGenerator(again->runtime.device));
    again->part = ops::batch_part();
    const std::vector<at::Tensor> kept(inputs.begin(), inputs.end());
    context->save_for_backward(kept);
    context->saved_data["again"] = c10::IValue::make_capsule(again);
    return block(kept);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    if (at::GradMode::is_enabled()) throw Error("recompute: second derivatives are not available");
    const auto again = c10::static_intrusive_pointer_cast<Again>(context->saved_data["again"].toCapsule());
    std::vector<at::Tensor> inputs;
    for (const auto& saved : context->get_saved_variables())
      inputs.push_back(saved.detach().requires_grad_(saved.requires_grad()));
    std::vector<at::Tensor> outputs;
    {
      const at::AutoGradMode record(true);
      const RandomScope random(at::globalContext().defaultGenerator(again->runtime.device), again->random);
      const ops::BatchPartScope part(again->part);
      const AutocastScope autocast(again->runtime);
      outputs = again->block(inputs);
    }
    std::vector<at::Tensor> ends, end_grads;
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      if (!grads[i].defined() || !outputs[i].requires_grad()) continue;
      ends.push_back(outputs[i]);
      end_grads.push_back(grads[i]);
    }
    if (!ends.empty()) torch::autograd::backward(ends, end_grads);
    torch::autograd::variable_list result;
    for (const auto& input : inputs) result.push_back(input.grad());
    result.emplace_back();  // the block
    return result;
  }
};

}  // namespace

std::vector<at::Tensor> recompute(const Block& block, const std::vector<at::Tensor>& inputs) {
  return at::GradMode::is_enabled() ? RecomputeFunction::apply(at::TensorList(inputs), block) : block(inputs);
}

}  // namespace stoa::nn
