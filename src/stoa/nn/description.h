#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace stoa::nn {

/// One part of a model, for `stoa info` and reports.
struct ModelPart {
  std::string name;              ///< "patch embedding", "attention", "experts" ...
  std::int64_t parameters = 0;   ///< distinct parameters it owns, counted once however often it is applied
  std::int64_t macs = 0;         ///< multiply-accumulates of one sample's forward pass, all its applications
  std::int64_t activations = 0;  ///< numbers kept for the backward pass of one sample, all its applications
};

/// A model by parts.
struct ModelDescription {
  std::vector<ModelPart> parts;
  std::string input;  ///< e.g. "3 x 224 x 224"

  std::int64_t parameters() const;
  std::int64_t macs() const;
  std::int64_t activations() const;
};

}  // namespace stoa::nn
