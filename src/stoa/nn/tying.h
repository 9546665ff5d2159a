#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace stoa::nn {

/// Weights by name.
using Weights = std::map<std::string, at::Tensor>;

/// How the trained modules of several layers become the one that these layers share.
enum class Tying {
  kRefuse,
  kAverage,      ///< their mean
  kFirst,        ///< that of the first of these layers
  kInterpolate,  ///< taken at the middle of these layers, linearly between the two nearest; the depths may
                 ///< differ
};

/// What a model is to do with weights of a relative.
struct AdaptOptions {
  Tying tie = Tying::kRefuse;
  bool upcycle = false;  ///< experts start as copies of the trained perceptron (V-MoE's sparse upcycling)
};

/// Implemented by models that can take the weights of relatives: of another depth, shared otherwise.
class AdaptsWeights {
 public:
  virtual ~AdaptsWeights() = default;
  /// Weights by this model's names from those of a relative. Throws ConfigError where that needs a choice
  /// that `options` does not make. Names that have nothing to do with sharing pass as they are.
  virtual Weights adapt(Weights weights, const AdaptOptions& options) const = 0;
};

/// Takes the modules LIST.0, LIST.1 ... out of `weights`, in order. Throws DataError where one between them
/// is missing.
std::vector<Weights> take_modules(Weights& weights, const std::string& list);

/// Puts modules back under LIST.0, LIST.1 ...
void put_modules(Weights& weights, const std::string& list, const std::vector<Weights>& modules);

/// From modules of `trained` layers those of a model with `layers` layers, where module j serves the layers
/// `served[j]` (ascending, counted from 0). As many modules as there are pass unchanged, one is copied to all
/// (nothing changes by that); otherwise `tie` decides. `list` names them in messages. Throws ConfigError
/// where it may not or cannot, saying what would.
std::vector<Weights> tie_modules(const std::vector<Weights>& trained,
                                 const std::vector<std::vector<std::int64_t>>& served, std::int64_t layers,
                                 Tying tie, const std::string& list);

}  // namespace stoa::nn
