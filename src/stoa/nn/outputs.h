#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

namespace stoa::nn {

struct NamedTensor {
  std::string name;
  at::Tensor value;
};

/// What a forward pass gives beside its result. Nothing of it is kept in modules.
struct SideOutputs {
  std::vector<NamedTensor>
      losses;  ///< scalars that are added to the task's loss, weights applied; differentiable
  std::vector<NamedTensor>
      statistics;  ///< scalars, vectors or matrices [depth, ...] for logs and reports; detached
};

}  // namespace stoa::nn
