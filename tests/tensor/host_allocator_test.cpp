#include "stoa/tensor/host_allocator.h"

#include <ATen/ATen.h>
#include <c10/core/CPUAllocator.h>
#include <gtest/gtest.h>

#include <random>
#include <thread>
#include <vector>

namespace stoa {
namespace {

constexpr std::int64_t kMiB = 1 << 20;

at::Tensor tensor_of(std::int64_t bytes) {
  return at::empty({bytes}, at::kByte);
}

class HostAllocator : public testing::Test {
 protected:
  void SetUp() override {
    configure_allocator();
    tensor_of(kMiB);
    if (large_tensor_memory().most == 0) GTEST_SKIP() << "this build leaves CPU tensors to the C library";
    release_kept_memory();
  }
};

TEST_F(HostAllocator, ALargeTensorIsGivenTheMemoryOfOneFreedBefore) {
  const auto* const first = tensor_of(5 * kMiB).const_data_ptr();
  EXPECT_EQ(tensor_of(5 * kMiB).const_data_ptr(), first);
  EXPECT_EQ(tensor_of(5 * kMiB - 100).const_data_ptr(), first);
}

TEST_F(HostAllocator, MemoryThatIsMuchTooLargeIsNotGiven) {
  const auto* const first = tensor_of(8 * kMiB).const_data_ptr();
  EXPECT_NE(tensor_of(6 * kMiB).const_data_ptr(), first);
}

TEST_F(HostAllocator, SmallTensorsAreNotCounted) {
  const auto before = large_tensor_memory().live;
  const auto small = tensor_of(kMiB - 1);
  EXPECT_EQ(large_tensor_memory().live, before);
  const auto large = tensor_of(kMiB);
  EXPECT_GE(large_tensor_memory().live, before + kMiB);
}

TEST_F(HostAllocator, TensorsKeepTheirValuesAndMemoryStaysWithinThePeakOfWhatLives) {
  std::mt19937 draw(7);
  struct Held {
    at::Tensor tensor;
    int value;
  };
  std::vector<Held> held;
  std::int64_t most = 0;
  for (int step = 0; step < 2000; ++step) {
    if (!held.empty() && (draw() % 2 == 0 || held.size() > 12)) {
      const auto at = held.begin() + static_cast<std::ptrdiff_t>(draw() % held.size());
      const auto value = at->tensor.slice(0, 0, at->tensor.numel(), 509);
      ASSERT_TRUE(value.eq(at->value).all().item<bool>());
      held.erase(at);
    } else {
      const auto bytes = static_cast<std::int64_t>(kMiB / 2 + draw() % (6 * kMiB));
      const int value = static_cast<int>(draw() % 256);
      held.push_back({tensor_of(bytes).fill_(value), value});
      ASSERT_EQ(reinterpret_cast<std::uintptr_t>(held.back().tensor.const_data_ptr()) % 64, 0U);
    }
    const auto memory = large_tensor_memory();
    most = std::max(most, memory.live);
    ASSERT_LE(memory.live + memory.kept, memory.most);
  }
  EXPECT_GE(large_tensor_memory().most, most);
  held.clear();
  EXPECT_EQ(large_tensor_memory().live, 0);
}

TEST_F(HostAllocator, ATensorGrowsInPlaceOfItsOldMemory) {
  auto tensor = tensor_of(2 * kMiB).fill_(3);
  tensor.resize_({3 * kMiB});
  EXPECT_TRUE(tensor.slice(0, 0, 2 * kMiB).eq(3).all().item<bool>());
  const auto live = large_tensor_memory().live;
  EXPECT_GE(live, 3 * kMiB);
  EXPECT_LT(live, 4 * kMiB);  // the old memory was given back
}

TEST_F(HostAllocator, OperatorsMayFreeByTheAddressAlone) {
  auto& allocator = *c10::GetCPUAllocator();
  for (const std::size_t bytes : {100, 3 << 20}) {
    const auto before = large_tensor_memory().live;
    void* const data = allocator.raw_allocate(bytes);
    allocator.raw_deallocate(data);
    EXPECT_EQ(large_tensor_memory().live, before);
  }
}

TEST_F(HostAllocator, ThreadsShareIt) {
  std::vector<std::thread> threads;
  std::vector<int> wrong(4, 0);
  for (std::size_t t = 0; t < wrong.size(); ++t)
    threads.emplace_back([&wrong, t] {
      for (int k = 0; k < 50; ++k) {
        const auto value = static_cast<int>(t) + 1;
        const auto tensor = tensor_of(kMiB + 4096 * (k % 5)).fill_(value);
        wrong[t] += static_cast<int>(tensor.ne(value).any().item<bool>());
      }
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4, 0));
  EXPECT_EQ(large_tensor_memory().live, 0);
}

TEST_F(HostAllocator, MoreThanTheSystemHasIsAnOutOfMemoryErrorAndChangesNothing) {
  const auto before = large_tensor_memory();
  try {
    tensor_of(std::int64_t{1} << 50);
    FAIL() << "a petabyte was given";
  } catch (const c10::OutOfMemoryError& error) {
    EXPECT_NE(std::string(error.what()).find("you tried to allocate 1125899906842624 bytes"),
              std::string::npos);
  }
  const auto after = large_tensor_memory();
  EXPECT_EQ(after.live, before.live);
  EXPECT_EQ(after.most, before.most);
}

TEST_F(HostAllocator, ReleasedMemoryIsNoLongerKept) {
  tensor_of(4 * kMiB);
  EXPECT_GT(large_tensor_memory().kept, 0);
  release_kept_memory();
  EXPECT_EQ(large_tensor_memory().kept, 0);
}

}  // namespace
}  // namespace stoa
