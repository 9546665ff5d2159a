#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

namespace stoa::nn {

/// A tensor of zeros [rows, width] in pages of its own: of memory, or where `folder` is not empty
/// of a file there, so that tables can be larger than memory (the kernel then writes pages back and reads
/// them again as it sees fit). The file has no name and vanishes with the tensor, however the process ends;
/// its space is taken at once. `random` says that rows are touched here and there, so that nothing is read
/// ahead. Throws IoError naming the folder, DeviceError where there is no memory.
at::Tensor map_table(std::int64_t rows, std::int64_t width, const std::string& folder, bool random,
                     at::ScalarType type = at::kFloat);

}  // namespace stoa::nn
