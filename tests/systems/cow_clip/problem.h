#pragma once

#include <ATen/ATen.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <memory>

#include "stoa/nn/parameters.h"
#include "stoa/systems/cow_clip/model.h"

namespace stoa::cow_clip {

inline constexpr Network kNetworks[] = {Network::kWideDeep, Network::kDeepFm, Network::kDcn,
                                        Network::kDcnV2Mix, Network::kDcnV2,  Network::kFinalMlp};

/// 4 fields and 2 numerics at tiny sizes.
inline constexpr ClickModelInput kInput{4, 2, 3};

inline CowClipOptions tiny(Network network) {
  CowClipOptions o;
  o.network = network;
  o.hidden = {6, 5, 4};
  o.experts = 3;
  o.rank = 2;
  o.hidden_2 = {5, 6};
  o.gate_hidden = 3;
  o.fusion_heads = 2;
  return o;
}

/// A model with larger weights than the initial ones, so that every part matters.
inline std::shared_ptr<CowClipImpl> make(const CowClipOptions& options, at::ScalarType type = at::kDouble,
                                         const ClickModelInput& input = kInput) {
  torch::manual_seed(1);
  auto model = std::make_shared<CowClipImpl>(options, input);
  model->to(type);
  const torch::NoGradGuard no_grad;
  for (auto& parameter : nn::distinct_parameters(*model))
    parameter.tensor.add_(at::randn_like(parameter.tensor), 0.2);
  return model;
}

/// Rows and numerics of a batch, leaves that ask for gradients.
struct Rows {
  explicit Rows(std::int64_t batch, at::ScalarType type = at::kDouble,
                const ClickModelInput& input = kInput) {
    torch::manual_seed(2);
    rows.embeddings = at::randn({batch, input.fields, input.dim}, type).set_requires_grad(true);
    rows.linear = at::randn({batch, input.fields}, type).set_requires_grad(true);
    numerics = at::rand({batch, input.numerics}, type);
  }
  nn::EmbeddingRows rows;
  at::Tensor numerics;
};

inline double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  return (a.detach().to(at::kDouble) - b.detach().to(at::kDouble)).abs().max().item<double>();
}

}  // namespace stoa::cow_clip
