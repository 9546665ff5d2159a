#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

// Safetensors files of tensors that are not in memory all at once.
namespace stoa {

/// Takes elements of a tensor that follow those taken before; they may be given up as soon as it returns.
using PutElements = std::function<void(const at::Tensor& elements)>;

/// A tensor of which a file's header is written before the tensor is there.
struct StreamedTensor {
  at::ScalarType type = at::kFloat;
  std::vector<std::int64_t> sizes;
  at::Tensor tensor;  ///< where it is here already
  /// Otherwise: gives all elements of the flattened tensor in their order, in pieces of any number.
  std::function<void(const PutElements& put)> bring;
};
using StreamedTensors = std::map<std::string, StreamedTensor>;

/// Tensors that are here already.
StreamedTensors streamed(const std::map<std::string, at::Tensor>& tensors);

/// The file that save_safetensors() writes of the same tensors, byte for byte, and what it throws. One tensor
/// is brought, in the order of names, written and given up before the next. Throws Error, and whatever
/// bringing throws; the old file then stays.
std::uint32_t stream_safetensors(const std::filesystem::path& file, const StreamedTensors& tensors,
                                 const std::map<std::string, std::string>& metadata = {});

}  // namespace stoa
