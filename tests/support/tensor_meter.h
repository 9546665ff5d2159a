#pragma once

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <algorithm>
#include <cstddef>
#include <mutex>
#include <new>

namespace stoa::test {

/// Stands in front of LibTorch's allocator of CPU memory and counts the bytes that are held, whichever thread
/// takes them or gives them back: what a profiler sees is a single thread's, while messages are given back by
/// the threads that send them. Refuses what goes beyond a limit, as a device with so much memory would.
class TensorMeter final : public c10::Allocator {
 public:
  /// The one of this process, put in place at the first call.
  static TensorMeter& get() {
    static TensorMeter* const meter = [] {
      auto* const made = new TensorMeter;  // tensors may outlive everything
      c10::SetCPUAllocator(made, /*priority=*/1);
      return made;
    }();
    return *meter;
  }

  /// From now on the peak is counted from what is held now.
  void start() {
    const std::lock_guard lock(mutex_);
    most_ = start_ = held_;
  }
  /// The most bytes since start() beyond what was held there.
  double peak() const {
    const std::lock_guard lock(mutex_);
    return static_cast<double>(most_ - start_);
  }

  /// From now on so many bytes beyond what is held now are given, and no more.
  void allow(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    limit_ = held_ + bytes;
  }
  /// Whether something was refused.
  bool refused() const {
    const std::lock_guard lock(mutex_);
    return refused_;
  }

  /// Bytes that are held now beyond those at start().
  double held() const {
    const std::lock_guard lock(mutex_);
    return static_cast<double>(held_) - static_cast<double>(start_);
  }

  c10::DataPtr allocate(std::size_t bytes) override {
    {
      const std::lock_guard lock(mutex_);
      if (held_ + bytes > limit_) {
        refused_ = true;
        throw std::bad_alloc();
      }
      held_ += bytes;
      most_ = std::max(most_, held_);
    }
    auto* const block = new Block{below_->allocate(bytes), bytes};
    return {block->data.get(), block, &release, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

 private:
  struct Block {
    c10::DataPtr data;
    std::size_t bytes;
  };

  TensorMeter() = default;
  static void release(void* context) {
    auto* const block = static_cast<Block*>(context);
    auto& meter = get();
    {
      const std::lock_guard lock(meter.mutex_);
      meter.held_ -= block->bytes;
    }
    delete block;
  }

  c10::Allocator* const below_ = c10::GetCPUAllocator();
  mutable std::mutex mutex_;
  std::size_t held_ = 0, most_ = 0, start_ = 0, limit_ = ~std::size_t{0};
  bool refused_ = false;
};

}  // namespace stoa::test
