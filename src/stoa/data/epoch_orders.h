#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

namespace stoa {

/// The random orders in which the epochs of a run pass all samples, fixed by size and seed. The latest few
/// are kept, as neighbouring batches ask for the same ones. Thread-safe.
class EpochOrders {
 public:
  using Order = std::shared_ptr<const std::vector<std::int64_t>>;

  EpochOrders(std::int64_t size, std::uint64_t seed) : size_(size), seed_(seed) {}

  /// A permutation of 0..size-1.
  Order order(std::int64_t epoch);

 private:
  std::int64_t size_;
  std::uint64_t seed_;
  std::mutex mutex_;
  std::map<std::int64_t, Order> kept_;
};

}  // namespace stoa
