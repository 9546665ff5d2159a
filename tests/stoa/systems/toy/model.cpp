#include "stoa/systems/toy/model.h"

#include <ATen/ATen.h>

namespace stoa::toy {

Toy::Toy(const ToyOptions& options, const ImageClassifierInput& input)
    : in_(input.channels * input.image_size * input.image_size, options.hidden),
      out_(options.hidden, input.classes) {
  register_module("in", in_);
  register_module("out", out_);
}

ImageClassifierOutput Toy::classify(const at::Tensor& images) {
  return {out_->forward(in_->forward(images.flatten(1)).relu()), {}};
}

nn::ModelDescription Toy::describe() const {
  return {{{"layers", nn::count_parameters(*this), in_->weight.numel() + out_->weight.numel(),
            in_->weight.size(0)}},
          "pixels"};
}

}  // namespace stoa::toy
