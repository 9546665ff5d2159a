#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

namespace stoa::nn {

/// Some of a model as a function of tensors. It may use parameters; gradients reach them.
using Block = std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>&)>;

/// block(inputs) that keeps nothing for the backward pass but the inputs: there, the block runs once more,
/// with the same random numbers and under the same autocast, before its gradients are made (activation
/// checkpointing: less memory for another forward pass). Outputs must be defined and differentiable. Where no
/// gradients are recorded, just block(inputs). Second derivatives are refused.
std::vector<at::Tensor> recompute(const Block& block, const std::vector<at::Tensor>& inputs);

}  // namespace stoa::nn
