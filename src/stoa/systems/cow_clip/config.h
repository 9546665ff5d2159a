#pragma once

#include <cstdint>
#include <vector>

#include "stoa/base/options.h"
#include "stoa/tasks/click_through.h"

namespace stoa::cow_clip {

enum class Network {
  kWideDeep,  ///< perceptron beside first-order weights
  kDeepFm,    ///< and the factorisation machine's sum over pairs of embeddings
  kDcn,       ///< and a cross network of vectors
  kDcnV2Mix,  ///< and a cross network of low-rank experts: what the original program calls DCN v2
  kDcnV2,     ///< and a cross network of full matrices: what FuxiCTR and BARS call DCN-V2
  kFinalMlp,  ///< two gated perceptrons and the bilinear form between them
};

/// The part of a click-through model behind its embedding tables (cowclip.md 2.2). The defaults are the
/// published sizes.
struct CowClipOptions {
  Network network = Network::kDeepFm;
  std::vector<std::int64_t> hidden = {400, 400, 400};  ///< widths of the perceptron's layers
  double dropout = 0;                                  ///< behind each of them
  std::int64_t cross_layers = 3;                       ///< DCN, DCN v2
  double cross_l2 = 1e-5;    ///< of the cross kernels' square sum in the loss; not scaled with the batch
  std::int64_t experts = 4;  ///< DCN v2 mixture
  std::int64_t rank = 32;    ///< of its experts
  std::vector<std::int64_t> hidden_2;  ///< final_mlp: layers of the second perceptron; empty: as the first
  std::int64_t gate_hidden = 64;       ///< final_mlp: hidden width of the two feature gates
  std::int64_t fusion_heads = 10;      ///< final_mlp: blocks of the bilinear form

  void visit(FieldVisitor& v);
  /// Throws ConfigError naming the field and a value that would do.
  void validate(const ClickModelInput& input) const;

  bool has_cross() const {
    return network == Network::kDcn || network == Network::kDcnV2Mix || network == Network::kDcnV2;
  }
  /// Layers of final_mlp's second perceptron.
  const std::vector<std::int64_t>& second_hidden() const { return hidden_2.empty() ? hidden : hidden_2; }
};

}  // namespace stoa::cow_clip
