#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "stoa/optim/optimizer.h"

namespace stoa::optim {

/// A parameter and what of it this process updates: all of it (which may be a share of a larger one, with
/// as many slices), or elements that follow one another.
struct PartialParameter {
  nn::NamedParameter whole;
  at::Tensor part;         ///< the whole's tensor, or [size]: its elements from `begin` on; may have none
  std::int64_t begin = 0;  ///< counted in the flattened whole
};

/// Replaces numbers by their sums over all processes that have parts; equal on all of them to the bit.
using SumOverParts = std::function<void(std::vector<double>&)>;

/// From the squares of the norms of all slices, whole ones, the square of the norm of all gradients together,
/// where other processes have other parameters; equal on all of them to the bit.
using JointSquare = std::function<double(const std::vector<double>&)>;

/// The update rule over parts: gradients are those of the parts, state() is of their sizes, and so memory and
/// work are shared out too. Norms (clipping, LAMB's ratios) are those of the whole parameters and their
/// slices, from sums of squares that `sum` adds up; what decay and ratio spare is decided by the wholes. All
/// processes have the same wholes in the same order, and call clipping() and step() together. `joint` may be
/// empty. Throws as the other make_optimizer(), ShapeError for a part that does not lie in its whole.
std::unique_ptr<Optimizer> make_optimizer(std::vector<PartialParameter> parameters,
                                          const OptimizerOptions& options, SumOverParts sum,
                                          JointSquare joint = {});

/// The same where this process updates all that it has of every parameter. An empty `sum`: nobody has another
/// part of any.
std::unique_ptr<Optimizer> make_optimizer(std::vector<nn::NamedParameter> parameters,
                                          const OptimizerOptions& options, SumOverParts sum,
                                          JointSquare joint = {});

}  // namespace stoa::optim
