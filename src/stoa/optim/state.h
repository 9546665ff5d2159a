#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>

namespace stoa::optim {

/// Copies stored tensors into those of the same names. Throws DataError naming `source` and the first tensor
/// missing, left over or misshapen; nothing is copied then.
void copy_state(const std::map<std::string, at::Tensor>& stored,
                const std::map<std::string, at::Tensor>& targets, const std::string& source);

}  // namespace stoa::optim
