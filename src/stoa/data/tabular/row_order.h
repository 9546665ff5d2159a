#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

namespace stoa {

/// The order in which training passes rows, fixed by (seed, epoch): blocks of 65,536 neighbouring rows in
/// random order, and rows shuffled among the 16 blocks that come together, so that a batch touches few pages
/// of a large file. Up to 16 blocks of rows are thus one random permutation. Thread-safe.
class RowOrder {
 public:
  static constexpr std::int64_t kBlock = 65536, kBlocksTogether = 16;

  RowOrder(std::int64_t rows, std::uint64_t seed);

  /// Rows of step `step`: epochs lie end to end and are cut into batches.
  std::vector<std::int64_t> rows_of_step(std::int64_t step, std::int64_t batch_size);

 private:
  /// The rows at the places [begin, begin + rows->size()) of an epoch.
  struct Window {
    std::int64_t begin = 0;
    std::vector<std::int64_t> rows;
  };
  using Place = std::pair<std::int64_t, std::int64_t>;  // epoch, number of the window

  std::shared_ptr<const Window> window(std::int64_t epoch, std::int64_t number);
  Window make_window(std::int64_t epoch, std::int64_t number) const;
  std::vector<std::int64_t> block_order(std::int64_t epoch) const;
  std::int64_t rows_of_block(std::int64_t block) const;
  std::int64_t begin_of(std::int64_t epoch, std::int64_t number) const;

  std::int64_t rows_, blocks_;
  std::uint64_t seed_;
  std::mutex mutex_;
  std::map<Place, std::shared_ptr<const Window>> kept_;
};

}  // namespace stoa
