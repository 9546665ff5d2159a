#pragma once

#include <torch/nn/module.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace stoa::nn {

/// A parameter as optimisers, checkpoints and counts see it: each distinct tensor once, under its first name,
/// however many modules share it.
struct NamedParameter {
  std::string name;
  at::Tensor tensor;
  /// The tensor stands for this many equal slices along dimension 0 (stacked experts, fused q-k-v).
  /// Layer-wise optimisers (LAMB, LARS) take norms per slice, so that a fused tensor trains as its parts
  /// would.
  std::int64_t slices = 1;
};

/// Implemented by modules that own fused parameters.
class HasSlices {
 public:
  virtual ~HasSlices() = default;
  /// Local parameter name -> number of slices along dimension 0.
  virtual std::map<std::string, std::int64_t> slices() const = 0;
};

/// Distinct parameters of a module tree, in order of registration.
std::vector<NamedParameter> distinct_parameters(const torch::nn::Module& module);

/// Distinct buffers, likewise.
std::vector<NamedParameter> distinct_buffers(const torch::nn::Module& module);

/// Number of elements in all distinct parameters.
std::int64_t count_parameters(const torch::nn::Module& module);

/// All distinct parameters and buffers by name, detached: what a checkpoint stores.
std::map<std::string, at::Tensor> module_state(const torch::nn::Module& module);

/// Copies a stored state into a module. Throws DataError naming the first tensor that is missing, left over,
/// or of another shape; `source` (a file) stands in front of the message.
void load_module_state(torch::nn::Module& module, const std::map<std::string, at::Tensor>& state,
                       const std::string& source);

}  // namespace stoa::nn
