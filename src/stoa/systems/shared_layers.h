#pragma once

#include <torch/nn/modules/container/modulelist.h>

#include <cstdint>
#include <vector>

#include "stoa/nn/layer_split.h"
#include "stoa/nn/outputs.h"
#include "stoa/train/exhibit.h"

// What models whose layers share modules show of them: WideNet on images and on text.
namespace stoa {

/// Spread of layer-norm weights, layer by layer: for layer i 1 / (d D) sum over layers j and coordinates m of
/// (gamma_im - gamma_jm)^2. norms [layers, d] -> [layers]; the mean is the spread of the whole (widenet.md 5:
/// over ordered pairs of layers). Zero where all layers are alike.
at::Tensor ln_spread(const at::Tensor& norms);

/// Weights of a list of layer norms, or of some of them, [layers, d].
at::Tensor norm_weights(const torch::nn::ModuleList& norms);
at::Tensor norm_weights(const torch::nn::ModuleList& norms, nn::LayerRange layers);

/// The loads of the experts by depth, from the statistic "router.load" of the layers `mixing` (counted from
/// 0), and the spread of the layer norms where there are several: from the statistics "norm1.spread" and
/// "norm2.spread" if they are given, as where other processes hold some of the norms.
std::vector<Exhibit> shared_layer_exhibits(const std::vector<nn::NamedTensor>& statistics,
                                           const std::vector<std::int64_t>& mixing,
                                           const torch::nn::ModuleList& norm1,
                                           const torch::nn::ModuleList& norm2);

}  // namespace stoa
