#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "stoa/data/batch.h"

namespace stoa {

/// One sample of a training batch: which one, and the seed of every random choice made for it.
struct SampleKey {
  std::int64_t index = 0;  ///< place in the data set
  std::int64_t epoch = 0;  ///< how often the whole set was passed before
  std::uint64_t seed = 0;  ///< fixed by run seed, epoch and index
};

/// Builds a batch from its samples. Called from several threads at once; its result may depend on nothing but
/// `keys`, and that of a sample on nothing but its own.
using MakeBatch = std::function<Batch(const std::vector<SampleKey>& keys)>;

/// How training batches follow one another.
struct BatchPlan {
  std::int64_t batch_size = 1;
  std::uint64_t seed = 0;
  std::int64_t first_step = 0;  ///< the step whose batch comes first: a resumed run continues exactly
  int workers = 0;              ///< threads that build batches ahead; 0 builds them in next()
  /// Of each training batch only this share_of() is built, of ordered_batches() every parts-th batch.
  std::int64_t part = 0, parts = 1;
};

/// Neighbouring samples `begin` to `end` - 1 of a batch.
struct BatchShare {
  std::int64_t begin = 0, end = 0;
};
/// What part `part` of `parts` gets of a batch of `samples`: shares differ by one sample at most.
BatchShare share_of(std::int64_t samples, std::int64_t part, std::int64_t parts);

/// The samples of step `step`: epochs are random orders of all samples, laid end to end and cut into batches,
/// so every sample is seen exactly once an epoch. A function of its arguments alone.
std::vector<SampleKey> samples_of_step(std::int64_t step, std::int64_t batch_size, std::int64_t dataset_size,
                                       std::uint64_t seed);

/// Endless training batches, built ahead by worker threads and handed out in order: the same batches for any
/// number of workers. An error in a worker is thrown by the next() that would have returned its batch.
std::unique_ptr<BatchSource> shuffled_batches(std::int64_t dataset_size, const BatchPlan& plan,
                                              MakeBatch make_batch);

/// Endless training batches of `make_step(step)`, from `plan.first_step` on: for data with an order of their
/// own. Built ahead and handed out like shuffled_batches(); `make_step` may depend on nothing but the step.
std::unique_ptr<BatchSource> stepped_batches(const BatchPlan& plan,
                                             std::function<Batch(std::int64_t)> make_step);

/// Every sample once, in order, the last batch possibly smaller; then empty batches. `plan.first_step` is not
/// used. Of several parts each gets whole batches, number part, part + parts ..., and all get equally many:
/// where they have run out, the last one again.
std::unique_ptr<BatchSource> ordered_batches(std::int64_t dataset_size, const BatchPlan& plan,
                                             MakeBatch make_batch);

}  // namespace stoa
