#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "stoa/dist/gathered_weights.h"
#include "stoa/dist/gradient_buckets.h"
#include "stoa/dist/group.h"
#include "stoa/dist/shard_state.h"
#include "stoa/optim/optimizer.h"
#include "stoa/optim/part.h"

namespace stoa::dist {

/// An optimiser whose work and state the ranks of a group share out (ZeRO, Rajbhandari et al. 2020): each has
/// its shard (shards.h) of every parameter's moments, updates that shard of the weights, and gets the others
/// from the other ranks. Experts may be shared out among fewer ranks than all else (ShardGroups); what a rank
/// has alone it updates as a whole. Norms, for clipping and LAMB's ratios, are those of whole parameters and
/// slices. parameters() are the whole ones; their gradients are summed by what make_buckets() gives. Every
/// rank makes it of the same parameters and calls its functions at the same points.
class ShardedOptimizer final : public optim::Optimizer {
 public:
  /// Whose gradients are summed: those of make_buckets().
  enum class Gradients { kWhole, kParts };
  using State = dist::State;

  /// `also` adds up sums of squares over processes besides those of the groups, `joint` is that of all ranks
  /// that have other experts; both may be empty. Where `weights` shares out the parameters, its shards are
  /// updated, and it is left to passes to gather them. Throws as optim::make_optimizer() does, ShapeError for
  /// a parameter that is not contiguous.
  ShardedOptimizer(std::vector<nn::NamedParameter> parameters, const optim::OptimizerOptions& options,
                   ShardGroups groups, optim::SumOverParts also = {},
                   const GatheredWeights* weights = nullptr, optim::JointSquare joint = {});

  /// What sums the gradients of the parameters that all ranks have, to be armed and finished in every step.
  /// ZeRO 1 (kWhole) keeps a parameter's own gradient, not summed, until zero_grad(); ZeRO 2 (kParts) gives
  /// it up during the step's last backward pass (of the first step: behind it); between micro-batches it is
  /// kept.
  std::unique_ptr<GradientBuckets> make_buckets(
      Gradients keep, std::int64_t bucket_bytes = GradientBuckets::kBucketBytes) const;
  /// The same of experts; null where a rank has its experts alone.
  std::unique_ptr<GradientBuckets> make_expert_buckets(Gradients keep) const;
  /// What has this rank's gradient of a parameter.
  const at::Tensor& shard(const std::string& parameter) const { return shards_[places_.at(parameter)]; }
  optim::GradientScale clipping(double limit, bool each_slice) override;
  /// This rank's shards, as flat tensors; whole ones of what it has alone.
  State state() const override;
  /// Some of state() as it would be without shards, where gather_state() leaves it. Throws DistributedError.
  State whole_of(const State& shards) const;
  /// The reverse: this rank's of it. Throws DataError that names `source`.
  State own_of(const State& whole, const std::string& source) const;
  /// The first parameter of which any rank's gradient is not finite, or -1; equal on all.
  std::int64_t first_not_finite() const;

 private:
  void update(double lr, const optim::GradientScale* scale) override;
  void gather_weights();
  FindWhole find() const;

  std::unique_ptr<GradientBuckets> buckets_of(bool experts, Group& group, Gradients keep,
                                              std::int64_t bucket_bytes) const;

  ShardGroups groups_;
  bool gathers_;                    // the weights, after each step
  std::vector<at::Tensor> shards_;  // of the weights, views where they are whole; [parameter]
  std::unique_ptr<optim::Optimizer> rule_;
  std::map<std::string, std::size_t> places_;  // of the parameters by name
  std::vector<ShardBatch> batches_;
};

}  // namespace stoa::dist
