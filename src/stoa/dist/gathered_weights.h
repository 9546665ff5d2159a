#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <memory>
#include <string>

#include "stoa/dist/group.h"
#include "stoa/dist/shard_state.h"
#include "stoa/nn/parameters.h"

namespace stoa::dist {

/// A model whose weights the ranks of a group share out (ZeRO stage 3, Rajbhandari et al. 2020): each keeps
/// its shard (shards.h) of every parameter, trained or not. A layer's weights come together right before its
/// forward pass and right before its backward pass, the next layer's while it computes, and are given up
/// behind each; what no single layer owns (embeddings, heads, norms, shared modules, all of a model that is
/// no nn::BringsWeights) is here as long as a Pass is. In between parameters keep their shapes, but have no
/// memory: reading them throws. Experts may be dealt out among fewer ranks than all else (ShardGroups); those
/// that a rank holds alone stay whole. Every rank calls the same functions and makes the same passes in the
/// same order.
class GatheredWeights {
 public:
  /// Nothing is shared out.
  GatheredWeights() = default;
  /// Keeps this rank's shards. The ranks must hold equal models, without gradients; the groups must outlive
  /// this. Throws ShapeError for a parameter that is not contiguous.
  GatheredWeights(torch::nn::Module& model, ShardGroups groups);
  ~GatheredWeights();
  GatheredWeights(GatheredWeights&&) noexcept;
  GatheredWeights& operator=(GatheredWeights&&) noexcept;

  bool is_shared() const { return weights_ != nullptr; }

  /// As long as it lives the model can be run, forward and backward. At its end all weights are given up.
  class Pass {
   public:
    ~Pass();
    Pass(Pass&& other) noexcept;
    Pass(const Pass&) = delete;

   private:
    friend class GatheredWeights;
    struct Release;
    explicit Pass(std::unique_ptr<Release> release);
    std::unique_ptr<Release> release_;
  };
  /// Brings what all of the model needs. Throws DistributedError.
  Pass pass() const;

  /// This rank's shard of a parameter, flat (one that it holds alone: the parameter). The next pass sees what
  /// changes in it.
  at::Tensor shard(const std::string& parameter) const;
  /// The model's buffers and this rank's shards of its parameters, as averages of weights are made of them.
  State own(const torch::nn::Module& model) const;
  /// Parameters and buffers as one process has them, on rank 0; nothing on the others.
  State whole(const torch::nn::Module& model) const;
  /// The same of some of own(), or of averages of it. Experts are where gather_state() leaves them.
  State whole_of(const State& own) const;
  /// The reverse: this rank's of it. Throws DataError that names `source`.
  State own_of(const State& whole, const std::string& source) const;
  /// Ends the sharing, if there is any. The model is whole where gather_state() leaves its weights, and of no
  /// more use on other ranks. Returns what is there: its state, some of it or nothing.
  State join(torch::nn::Module& model);

 private:
  FindWhole find() const;

  class Weights;
  std::shared_ptr<Weights> weights_;
};

}  // namespace stoa::dist
