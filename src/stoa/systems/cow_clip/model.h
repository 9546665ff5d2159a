#pragma once

#include <torch/nn/pimpl.h>

#include <memory>

#include "stoa/nn/embedding_tables.h"
#include "stoa/systems/cow_clip/config.h"
#include "stoa/systems/cow_clip/layers.h"
#include "stoa/tasks/click_through.h"

namespace stoa::cow_clip {

/// The networks of CowClip (arXiv 2204.06240, cowclip.md 2.2) behind the embedding tables. With u = the row's
/// embeddings and numbers beside one another and h = MLP(u), the logit is
///     sum_j L_j[id_j] + x_num . k_lin + b_0     in all, and
///     + h . k_o                                 Wide&Deep
///     + h . k_o + FM(embeddings)                DeepFM
///     + [x_L ; h] . k_o, x_L = cross(u)         DCN, DCN v2
///     + TwoStream(u)                            final_mlp
class CowClipImpl : public ClickModel {
 public:
  CowClipImpl(const CowClipOptions& options, const ClickModelInput& input);

  /// Throws ShapeError for rows of another shape than the model was built for.
  at::Tensor score(const nn::EmbeddingRows& rows, const at::Tensor& numerics) override;
  at::Tensor penalty(double l2) const override;
  nn::ModelDescription describe() const override;

  const CowClipOptions& options() const { return options_; }

  at::Tensor bias;                      ///< b_0 [1]
  at::Tensor numeric_weight;            ///< k_lin [numerics]; undefined without numerics
  Tower mlp{nullptr};                   ///< not in final_mlp
  std::shared_ptr<CrossNetwork> cross;  ///< DCN and DCN v2
  at::Tensor output_weight;             ///< k_o, that of x_L before that of h; undefined in final_mlp
  TwoStream two_stream{nullptr};        ///< final_mlp

 private:
  at::Tensor first_order(const at::Tensor& linear, const at::Tensor& numerics) const;
  at::Tensor deep(const at::Tensor& u);

  CowClipOptions options_;
  ClickModelInput input_;
  std::int64_t width_;  ///< of u
};
TORCH_MODULE(CowClip);

}  // namespace stoa::cow_clip
