#include "stoa/data/parallel.h"

#include <algorithm>
#include <exception>
#include <limits>
#include <mutex>
#include <thread>
#include <vector>

namespace stoa {

void for_each_parallel(std::int64_t count, const std::function<void(std::int64_t)>& task,
                       Progress* progress) {
  std::mutex mutex;
  std::int64_t next = 0, done = 0;
  std::int64_t failed = std::numeric_limits<std::int64_t>::max();
  std::exception_ptr error;

  const auto work = [&] {
    std::unique_lock lock(mutex);
    while (next < count && !error) {
      const std::int64_t index = next++;
      lock.unlock();
      std::exception_ptr thrown;
      try {
        task(index);
      } catch (...) {
        thrown = std::current_exception();
      }
      lock.lock();
      if (thrown && index < failed) {
        failed = index;
        error = thrown;
      }
      if (++done % 64 == 0 && progress) progress->update(done);
    }
  };
  const auto cores = static_cast<std::int64_t>(std::max(1u, std::thread::hardware_concurrency()));
  std::vector<std::thread> threads;
  for (std::int64_t i = 1; i < std::min(cores, count); ++i) threads.emplace_back(work);
  work();
  for (auto& thread : threads) thread.join();
  if (error) std::rethrow_exception(error);
  if (progress) {
    progress->update(count);
    progress->finish();
  }
}

}  // namespace stoa
