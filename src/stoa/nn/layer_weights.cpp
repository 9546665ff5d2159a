#include "stoa/nn/layer_weights.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <utility>

namespace stoa::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Pass = LayerWeights::Pass;

struct Place : torch::CustomClassHolder {
  std::shared_ptr<const LayerWeights> weights;
  std::int64_t layer = 0;
};

void put(AutogradContext* context, const std::shared_ptr<const LayerWeights>& weights, std::int64_t layer) {
  const auto place = c10::make_intrusive<Place>();
  place->weights = weights;
  place->layer = layer;
  context->saved_data["place"] = c10::IValue::make_capsule(place);
  context->set_materialize_grads(false);
}

c10::intrusive_ptr<Place> place_of(AutogradContext* context) {
  return c10::static_intrusive_pointer_cast<Place>(context->saved_data["place"].toCapsule());
}

/// For the weights, the layer and the two arguments themselves.
variable_list with_nothing_for_others(variable_list grads) {
  grads.emplace_back();
  grads.emplace_back();
  return grads;
}

/// Around the inputs of a layer: its backward pass is behind the layer's, since autograd runs what was
/// recorded later first.
class BeginFunction : public torch::autograd::Function<BeginFunction> {
 public:
  static variable_list forward(AutogradContext* context, at::TensorList inputs,
                               const std::shared_ptr<const LayerWeights>& weights, std::int64_t layer) {
    put(context, weights, layer);
    return inputs.vec();
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto place = place_of(context);
    place->weights->leave(place->layer);
    return with_nothing_for_others(grads);
  }
};

/// Around its outputs: its backward pass is in front of the layer's.
class EndFunction : public torch::autograd::Function<EndFunction> {
 public:
  static variable_list forward(AutogradContext* context, at::TensorList outputs,
                               const std::shared_ptr<const LayerWeights>& weights, std::int64_t layer) {
    put(context, weights, layer);
    return outputs.vec();
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto place = place_of(context);
    place->weights->bring(place->layer, Pass::kBackward);
    return with_nothing_for_others(grads);
  }
};

class Brought {
 public:
  Brought(const LayerWeights& weights, std::int64_t layer) : weights_(weights), layer_(layer) {
    weights_.bring(layer_, Pass::kForward);
  }
  ~Brought() { weights_.leave(layer_); }
  Brought(const Brought&) = delete;
  Brought& operator=(const Brought&) = delete;

 private:
  const LayerWeights& weights_;
  std::int64_t layer_;
};

}  // namespace

std::vector<at::Tensor> with_weights(const std::shared_ptr<const LayerWeights>& weights, std::int64_t layer,
                                     const Block& run, const std::vector<at::Tensor>& inputs) {
  if (!weights) return run(inputs);
  const Brought here(*weights, layer);
  if (!at::GradMode::is_enabled()) return run(inputs);
  const auto outputs = run(BeginFunction::apply(at::TensorList(inputs), weights, layer));
  return EndFunction::apply(at::TensorList(outputs), weights, layer);
}

}  // namespace stoa::nn
