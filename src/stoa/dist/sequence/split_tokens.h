#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "stoa/dist/group.h"
#include "stoa/dist/sequence/sequence_attention.h"
#include "stoa/nn/packed_tokens.h"

namespace stoa::dist {

/// Who has which tokens of every sequence, and how they attend to one another.
struct SequenceSplit {
  std::shared_ptr<Group> group;  ///< null where nothing is split
  SequenceMethod method = SequenceMethod::kRing;
  TokenOrder order = TokenOrder::kContiguous;
  int ulysses = 1;

  explicit operator bool() const { return group != nullptr; }
};

/// This rank's tokens of a padded batch, as nn::pack_tokens takes it: C tokens of each sequence, padding
/// among them, which no token sees. The batch is padded further where its length cannot be split. Throws
/// ShapeError.
nn::PackedTokens split_tokens(const at::Tensor& ids, const at::Tensor& lengths, const at::Tensor& segments,
                              const SequenceSplit& split);

/// Per-token values [sequences, padded] of the whole batch -> those of this rank's tokens [sequences x C];
/// `fill` where the batch was padded further.
at::Tensor split_values(const at::Tensor& values, double fill, const SequenceSplit& split);

}  // namespace stoa::dist
