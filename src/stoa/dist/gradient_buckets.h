#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "stoa/dist/group.h"
#include "stoa/nn/parameters.h"

namespace stoa::dist {

/// Where the sums of gradients go that every rank needs only a part of (ZeRO).
struct GradientParts {
  std::vector<at::Tensor> parts;  ///< for each parameter this rank's shard of it (shards.h)
  bool release =
      false;  ///< give up a parameter's own gradient as soon as it is on its way to those who add it
};

/// Sums gradients over a group in buckets of some megabytes, each on its way as soon as the backward pass has
/// made all of it. The first pass only counts how often every gradient is added to (layers that share modules
/// or run again add several times) and in which order gradients become complete; buckets are cut in that
/// order, rank 0's. All ranks go through the same calls. Gradients become float or double sums, equal on all
/// ranks to the bit; a parameter without gradient counts as one with zeros. With GradientParts each rank gets
/// the sums of its shards alone, as the gradients of `parts`, for half the traffic; those with `release` are
/// waited for during the pass, so that there all ranks' passes must complete the same gradients.
class GradientBuckets {
 public:
  static constexpr std::int64_t kBucketBytes = std::int64_t{4} << 20;

  /// Does nothing in a group of one. The group must outlive this.
  GradientBuckets(std::vector<nn::NamedParameter> parameters, Group& group,
                  std::int64_t bucket_bytes = kBucketBytes);
  GradientBuckets(std::vector<nn::NamedParameter> parameters, Group& group, GradientParts parts,
                  std::int64_t bucket_bytes = kBucketBytes);
  ~GradientBuckets();
  GradientBuckets(const GradientBuckets&) = delete;
  GradientBuckets& operator=(const GradientBuckets&) = delete;

  /// The backward pass that comes next is the step's last.
  void arm();
  /// Sends what is not on its way yet, waits for all and puts the sums in the gradients' place. Throws
  /// DistributedError.
  void finish();

  /// Buckets that were on their way before the last finish() began.
  std::int64_t overlapped() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace stoa::dist
