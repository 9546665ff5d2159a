#pragma once

#include <vector>

#include "stoa/nn/parameters.h"

namespace stoa::optim {

/// Norm of all gradients together, in fp64 (each distinct tensor once; parameters without gradient count as
/// 0).
double gradient_norm(const std::vector<nn::NamedParameter>& parameters);

/// Scales all gradients by limit / norm where the joint norm exceeds `limit` (> 0). Returns the norm before;
/// where it is not finite the gradients stay as they are.
double clip_global_norm(const std::vector<nn::NamedParameter>& parameters, double limit);

/// The same for each tensor (each slice of a fused one) by its own norm. Returns the joint norm before.
double clip_each_norm(const std::vector<nn::NamedParameter>& parameters, double limit);

}  // namespace stoa::optim
