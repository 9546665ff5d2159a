#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>

namespace stoa {

/// What a task reads in one step: named tensors whose first dimension counts the samples.
struct Batch {
  std::map<std::string, at::Tensor> tensors;
  std::int64_t samples = 0;

  /// The tensor of that name. Throws Error naming it where the batch has none.
  const at::Tensor& operator[](const std::string& name) const;
  bool has(const std::string& name) const { return tensors.count(name) != 0; }
  /// Samples `begin` to `end` - 1, as views.
  Batch slice(std::int64_t begin, std::int64_t end) const;
  /// All tensors on `device`.
  Batch to(at::Device device) const;
};

/// Batches one after the other. A batch of 0 samples marks the end; sources for training never end.
class BatchSource {
 public:
  virtual ~BatchSource() = default;
  virtual Batch next() = 0;
};

}  // namespace stoa
