#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <initializer_list>
#include <string>

namespace stoa {

/// Checks a tensor's shape; -1 accepts any size. Throws ShapeError "`what` has shape [2, 3]; [*, 4] is
/// needed".
void check_shape(const at::Tensor& tensor, std::initializer_list<std::int64_t> shape,
                 const std::string& what);

/// "[2, 3, 4]"
std::string shape_text(at::IntArrayRef shape);

}  // namespace stoa
