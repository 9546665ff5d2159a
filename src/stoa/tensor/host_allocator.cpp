#include "stoa/tensor/host_allocator.h"

#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__)  // which watches the blocks of its own malloc
#include <malloc.h>
#include <sys/mman.h>
#endif

#include <algorithm>
#include <list>
#include <map>
#include <mutex>
#include <optional>
#include <unordered_map>

namespace stoa {
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__)  // which watches the blocks of its own malloc
namespace {

constexpr std::size_t kPage = 4096, kHugePage = 2 << 20;
constexpr std::size_t kLarge = 1 << 20;      // bytes from which a tensor is mapped by itself
constexpr std::size_t kLine = 64;            // LibTorch's alignment of tensors
constexpr std::size_t kStagger = 5 * kLine;  // see Blocks::map

/// A mapping that holds one tensor.
struct Block {
  char* base = nullptr;
  std::size_t size = 0;  // bytes mapped
  char* data = nullptr;  // where the tensor begins, within the first page
};

/// The mapped blocks of the process; see configure_allocator().
class Blocks {
 public:
  /// The place of a tensor of `bytes`, or nullptr where the system has no memory left.
  void* take(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    const std::size_t size = (bytes + kPage - 1) / kPage * kPage + kPage;  // a page more, for the stagger
    auto block = reuse(size);
    if (!block) {
      const std::int64_t live = count_.live + static_cast<std::int64_t>(size);
      release_down_to(std::max(count_.most - live, std::int64_t{0}));
      block = map(size);
      if (!block) {
        release_down_to(0);
        block = map(size);
      }
      if (!block) return nullptr;
    }
    count_.live += static_cast<std::int64_t>(block->size);
    count_.most = std::max(count_.most, count_.live);
    live_.emplace(block->data, *block);
    return block->data;
  }

  /// False if `data` came from elsewhere.
  bool give_back(void* data) {
    const std::lock_guard lock(mutex_);
    const auto found = live_.find(data);
    if (found == live_.end()) return false;
    c10::profiledCPUMemoryReporter().Delete(data);
    const Block block = found->second;
    live_.erase(found);
    const auto size = static_cast<std::int64_t>(block.size);
    count_.live -= size;
    count_.kept += size;
    freed_.push_back(block);
    by_size_.emplace(block.size, std::prev(freed_.end()));
    return true;
  }

  void release() {
    const std::lock_guard lock(mutex_);
    release_down_to(0);
  }

  LargeTensorMemory count() {
    const std::lock_guard lock(mutex_);
    return count_;
  }

 private:
  /// The freed block that fits best, at most an eighth larger than asked for.
  std::optional<Block> reuse(std::size_t size) {
    const auto found = by_size_.lower_bound(size);
    if (found == by_size_.end() || found->first > size + size / 8) return {};
    const Block block = *found->second;
    freed_.erase(found->second);
    by_size_.erase(found);
    count_.kept -= static_cast<std::int64_t>(block.size);
    return block;
  }

  /// Unmaps freed blocks, those of longest ago first, until at most `bytes` are kept.
  void release_down_to(std::int64_t bytes) {
    while (count_.kept > bytes) {
      const auto oldest = freed_.begin();
      const auto [first, last] = by_size_.equal_range(oldest->size);
      by_size_.erase(std::find_if(first, last, [&](const auto& entry) { return entry.second == oldest; }));
      munmap(oldest->base, oldest->size);
      count_.kept -= static_cast<std::int64_t>(oldest->size);
      freed_.erase(oldest);
    }
  }

  /// Huge pages need a start at a multiple of their size. Tensors that all began there would share the sets
  /// of the caches and the low bits of their addresses, so that loads wait for stores to other tensors: each
  /// begins some lines later than the one before.
  std::optional<Block> map(std::size_t size) {
    const bool huge = size >= 2 * kHugePage;
    const std::size_t room = huge ? size + kHugePage : size;
    void* const mapped = mmap(nullptr, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) return {};
    char* base = static_cast<char*>(mapped);
    if (huge) {
      const std::size_t before = (kHugePage - reinterpret_cast<std::uintptr_t>(base) % kHugePage) % kHugePage;
      if (before > 0) munmap(base, before);
      if (before < kHugePage) munmap(base + before + size, kHugePage - before);
      base += before;
      madvise(base, size, MADV_HUGEPAGE);  // refused by kernels without them, which is as well
    }
    stagger_ = (stagger_ + kStagger) % kPage;
    return Block{base, size, base + stagger_};
  }

  std::mutex mutex_;
  std::unordered_map<void*, Block> live_;
  std::list<Block> freed_;  // in the order they were freed
  std::multimap<std::size_t, std::list<Block>::iterator> by_size_;
  std::size_t stagger_ = 0;
  LargeTensorMemory count_;
};

/// Never destroyed: tensors of static storage are freed after it would be.
Blocks& blocks() {
  static auto& all = *new Blocks;
  return all;
}

/// LibTorch's operators free by the address alone too, so there is one way for tensors of all sizes.
void free_tensor(void* data) {
  if (!blocks().give_back(data)) c10::GetDefaultCPUAllocator()->raw_deallocate(data);
}

class HostAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(std::size_t bytes) override {
    void* const data =
        bytes < kLarge ? c10::GetDefaultCPUAllocator()->raw_allocate(bytes) : take_large(bytes);
    return {data, data, free_tensor, c10::kCPU};
  }

  c10::DeleterFnPtr raw_deleter() const override { return free_tensor; }

  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

 private:
  static void* take_large(std::size_t bytes) {
    void* const data = blocks().take(bytes);
    if (data == nullptr) {
      c10::profiledCPUMemoryReporter().OutOfMemory(bytes);
      C10_THROW_ERROR(OutOfMemoryError,
                      c10::str("can't allocate memory: you tried to allocate ", bytes, " bytes"));
    }
    c10::profiledCPUMemoryReporter().New(data, bytes);
    return data;
  }
};

}  // namespace

void configure_allocator() {
  constexpr int kGiB = 1 << 30, kLargestOfOldGlibc = 32 << 20;
  if (mallopt(M_MMAP_THRESHOLD, kGiB) == 0) mallopt(M_MMAP_THRESHOLD, kLargestOfOldGlibc);
  mallopt(M_TRIM_THRESHOLD, kGiB);
  static HostAllocator allocator;
  c10::SetCPUAllocator(&allocator);
}

void release_kept_memory() {
  blocks().release();
  malloc_trim(0);
}

LargeTensorMemory large_tensor_memory() {
  return blocks().count();
}

#else

void configure_allocator() {}
void release_kept_memory() {}
LargeTensorMemory large_tensor_memory() {
  return {};
}

#endif
}  // namespace stoa
