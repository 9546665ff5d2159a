#include "stoa/data/loader.h"

#include <omp.h>

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <limits>
#include <map>
#include <mutex>
#include <thread>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/random.h"
#include "stoa/data/epoch_orders.h"

namespace stoa {
namespace {

// What a random stream is for: streams of different purposes never meet.
enum Purpose : std::uint64_t { kEpochOrder = 101, kSample = 102 };

using MakeStep = std::function<Batch(std::int64_t step)>;

/// Batches of the steps `first` to `end` - 1, in order, then empty ones.
class OrderedSteps final : public BatchSource {
 public:
  OrderedSteps(std::int64_t first, std::int64_t end, int workers, MakeStep make)
      : make_(std::move(make)), end_(end), ahead_(2 * workers), claimed_(first), delivered_(first) {
    for (int i = 0; i < workers; ++i) threads_.emplace_back([this] { work(); });
  }

  ~OrderedSteps() override {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    room_.notify_all();
    for (auto& thread : threads_) thread.join();
  }

  Batch next() override {
    if (delivered_ == end_) return {};
    if (threads_.empty()) return make_(delivered_++);
    Result result;
    {
      std::unique_lock lock(mutex_);
      made_.wait(lock, [this] { return results_.count(delivered_) != 0; });
      result = std::move(results_.extract(delivered_++).mapped());
    }
    room_.notify_one();
    if (result.error) std::rethrow_exception(result.error);
    return std::move(result.batch);
  }

 private:
  struct Result {
    Batch batch;
    std::exception_ptr error;
  };

  void work() {
    // The model's own threads fill the machine; tensor operations in here must not start as many again.
    omp_set_num_threads(1);
    while (true) {
      std::unique_lock lock(mutex_);
      room_.wait(lock, [this] { return stopping_ || claimed_ == end_ || claimed_ < delivered_ + ahead_; });
      if (stopping_ || claimed_ == end_) return;
      const std::int64_t step = claimed_++;
      lock.unlock();
      Result result;
      try {
        result.batch = make_(step);
      } catch (...) {
        result.error = std::current_exception();
      }
      lock.lock();
      results_.emplace(step, std::move(result));
      lock.unlock();
      made_.notify_one();
    }
  }

  MakeStep make_;
  std::int64_t end_, ahead_;
  std::mutex mutex_;
  std::condition_variable room_, made_;
  std::int64_t claimed_, delivered_;  // next step a worker takes, next step handed out
  std::map<std::int64_t, Result> results_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

void check(std::int64_t dataset_size, std::int64_t batch_size, int workers) {
  if (dataset_size < 1) throw DataError("the data set has no samples; check its path and limits");
  if (batch_size < 1) throw ConfigError(format("batch size {}: must be at least 1", batch_size));
  if (workers < 0) throw ConfigError(format("{} loader workers: must be 0 or more", workers));
}

std::vector<SampleKey> keys_of_step(std::int64_t step, std::int64_t batch_size, std::int64_t dataset_size,
                                    std::uint64_t seed, EpochOrders& orders) {
  std::vector<SampleKey> keys(batch_size);
  EpochOrders::Order order;
  std::int64_t epoch_of_order = -1;
  for (std::int64_t i = 0; i < batch_size; ++i) {
    const std::int64_t position = step * batch_size + i;
    const std::int64_t epoch = position / dataset_size;
    if (epoch != epoch_of_order) order = orders.order(epoch_of_order = epoch);
    const std::int64_t index = (*order)[position % dataset_size];
    keys[i] = {
        index, epoch,
        mix_seed({seed, kSample, static_cast<std::uint64_t>(epoch), static_cast<std::uint64_t>(index)})};
  }
  return keys;
}

}  // namespace

EpochOrders::Order EpochOrders::order(std::int64_t epoch) {
  const std::lock_guard lock(mutex_);
  auto& order = kept_[epoch];
  if (!order)
    order = std::make_shared<const std::vector<std::int64_t>>(
        permutation(size_, mix_seed({seed_, kEpochOrder, static_cast<std::uint64_t>(epoch)})));
  const auto result = order;
  if (kept_.size() > 3) kept_.erase(kept_.begin()->first == epoch ? std::prev(kept_.end()) : kept_.begin());
  return result;
}

BatchShare share_of(std::int64_t samples, std::int64_t part, std::int64_t parts) {
  return {samples * part / parts, samples * (part + 1) / parts};
}

std::vector<SampleKey> samples_of_step(std::int64_t step, std::int64_t batch_size, std::int64_t dataset_size,
                                       std::uint64_t seed) {
  check(dataset_size, batch_size, 0);
  EpochOrders orders(dataset_size, seed);
  return keys_of_step(step, batch_size, dataset_size, seed, orders);
}

std::unique_ptr<BatchSource> shuffled_batches(std::int64_t dataset_size, const BatchPlan& plan,
                                              MakeBatch make_batch) {
  check(dataset_size, plan.batch_size, plan.workers);
  const auto orders = std::make_shared<EpochOrders>(dataset_size, plan.seed);
  const auto share = share_of(plan.batch_size, plan.part, plan.parts);
  auto make = [=, make_batch = std::move(make_batch)](std::int64_t step) {
    const auto keys = keys_of_step(step, plan.batch_size, dataset_size, plan.seed, *orders);
    return make_batch({keys.begin() + share.begin, keys.begin() + share.end});
  };
  return std::make_unique<OrderedSteps>(plan.first_step, std::numeric_limits<std::int64_t>::max(),
                                        plan.workers, std::move(make));
}

std::unique_ptr<BatchSource> stepped_batches(const BatchPlan& plan, MakeStep make_step) {
  check(1, plan.batch_size, plan.workers);
  if (plan.parts > 1)
    make_step = [plan, make_step = std::move(make_step)](std::int64_t step) {
      const Batch whole = make_step(step);
      const auto share = share_of(whole.samples, plan.part, plan.parts);
      return whole.slice(share.begin, share.end);
    };
  return std::make_unique<OrderedSteps>(plan.first_step, std::numeric_limits<std::int64_t>::max(),
                                        plan.workers, std::move(make_step));
}

std::unique_ptr<BatchSource> ordered_batches(std::int64_t dataset_size, const BatchPlan& plan,
                                             MakeBatch make_batch) {
  check(dataset_size, plan.batch_size, plan.workers);
  const std::int64_t batches = (dataset_size + plan.batch_size - 1) / plan.batch_size;
  auto make = [=, make_batch = std::move(make_batch)](std::int64_t step) {
    const std::int64_t begin = std::min(step * plan.parts + plan.part, batches - 1) * plan.batch_size;
    std::vector<SampleKey> keys(std::min(plan.batch_size, dataset_size - begin));
    for (std::size_t i = 0; i < keys.size(); ++i) {
      const std::int64_t index = begin + static_cast<std::int64_t>(i);
      keys[i] = {index, 0, mix_seed({plan.seed, kSample, 0, static_cast<std::uint64_t>(index)})};
    }
    return make_batch(keys);
  };
  const std::int64_t steps = (batches + plan.parts - 1) / plan.parts;
  return std::make_unique<OrderedSteps>(0, steps, plan.workers, std::move(make));
}

}  // namespace stoa
