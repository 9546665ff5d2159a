#include "stoa/data/parallel.h"

#include <algorithm>
#include <exception>
#include <limits>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "stoa/base/progress.h"

namespace stoa {

void for_each_parallel(std::int64_t count, const std::string& label,
                       const std::function<void(std::int64_t)>& task) {
  std::mutex mutex;
  std::int64_t next = 0, done = 0;
  std::int64_t failed = std::numeric_limits<std::int64_t>::max();
  std::exception_ptr error;
  std::optional<Progress> progress;
  if (!label.empty()) progress.emplace(label, "items", count);

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
