#pragma once

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <atomic>
#include <cstddef>
#include <new>

namespace stoa::bench {

/// Stands in front of LibTorch's allocator of CPU memory and refuses what goes beyond a limit, as a device
/// with so much memory would. Counts what all threads hold.
class LimitedAllocator final : public c10::Allocator {
 public:
  /// The one of this process, put in place at the first call, without a limit.
  static LimitedAllocator& get() {
    static LimitedAllocator* const made = [] {
      auto* const allocator = new LimitedAllocator;  // tensors may outlive everything
      c10::SetCPUAllocator(allocator, /*priority=*/1);
      return allocator;
    }();
    return *made;
  }

  /// From now on so many bytes beyond what is held now.
  void allow(std::size_t bytes) { most_ = held_ + bytes; }
  /// Whether something was refused.
  bool refused() const { return refused_; }

  c10::DataPtr allocate(std::size_t bytes) override {
    if ((held_ += bytes) > most_) {
      held_ -= bytes;
      refused_ = true;
      throw std::bad_alloc();
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

  LimitedAllocator() = default;
  static void release(void* context) {
    auto* const block = static_cast<Block*>(context);
    get().held_ -= block->bytes;
    delete block;
  }

  c10::Allocator* const below_ = c10::GetCPUAllocator();
  std::atomic<std::size_t> held_ = 0, most_ = ~std::size_t{0};
  std::atomic<bool> refused_ = false;
};

}  // namespace stoa::bench
