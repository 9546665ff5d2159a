#pragma once

#include "stoa/systems/text_transformer/config.h"

namespace stoa::wide_net {

/// WideNet's text model (widenet.md 2.5): ALBERT's skeleton, one attention and one mixture of experts for all
/// layers, layer norms of their own. The class is text_transformer::TextTransformer.
struct WideNetTextOptions : text_transformer::TextTransformerOptions {
  WideNetTextOptions() { preset = text_transformer::Preset::kWideNet; }
};

}  // namespace stoa::wide_net
