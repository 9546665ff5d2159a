#include "stoa/data/tabular/row_order.h"

#include <algorithm>

#include "stoa/base/random.h"

namespace stoa {
namespace {

// What a random stream is for.
enum Purpose : std::uint64_t { kBlockOrder = 401, kRowOrder = 402 };
constexpr std::size_t kKept = 4;  // windows; neighbouring batches need the same ones

}  // namespace

RowOrder::RowOrder(std::int64_t rows, std::uint64_t seed)
    : rows_(rows), blocks_((rows + kBlock - 1) / kBlock), seed_(seed) {}

std::vector<std::int64_t> RowOrder::block_order(std::int64_t epoch) const {
  return permutation(blocks_, mix_seed({seed_, kBlockOrder, static_cast<std::uint64_t>(epoch)}));
}

std::int64_t RowOrder::rows_of_block(std::int64_t block) const {
  return std::min(kBlock, rows_ - block * kBlock);  // the last one may be small
}

std::int64_t RowOrder::begin_of(std::int64_t epoch, std::int64_t number) const {
  const auto blocks = block_order(epoch);
  std::int64_t begin = 0;
  for (std::int64_t i = 0; i < number * kBlocksTogether; ++i) begin += rows_of_block(blocks[i]);
  return begin;
}

RowOrder::Window RowOrder::make_window(std::int64_t epoch, std::int64_t number) const {
  const auto blocks = block_order(epoch);
  const std::int64_t first = number * kBlocksTogether, end = std::min(blocks_, first + kBlocksTogether);
  std::vector<std::int64_t> rows;
  for (std::int64_t i = first; i < end; ++i)
    for (std::int64_t r = 0; r < rows_of_block(blocks[i]); ++r) rows.push_back(blocks[i] * kBlock + r);
  const auto order = permutation(
      static_cast<std::int64_t>(rows.size()),
      mix_seed({seed_, kRowOrder, static_cast<std::uint64_t>(epoch), static_cast<std::uint64_t>(number)}));
  Window window{begin_of(epoch, number), {}};
  window.rows.reserve(rows.size());
  for (const std::int64_t place : order) window.rows.push_back(rows[place]);
  return window;
}

std::shared_ptr<const RowOrder::Window> RowOrder::window(std::int64_t epoch, std::int64_t number) {
  const std::lock_guard lock(mutex_);
  const Place place{epoch, number};
  auto& window = kept_[place];
  if (!window) window = std::make_shared<const Window>(make_window(epoch, number));
  const auto result = window;
  if (kept_.size() > kKept)
    kept_.erase(kept_.begin()->first == place ? std::prev(kept_.end()) : kept_.begin());
  return result;
}

std::vector<std::int64_t> RowOrder::rows_of_step(std::int64_t step, std::int64_t batch_size) {
  std::vector<std::int64_t> rows;
  rows.reserve(batch_size);
  std::int64_t epoch = step * batch_size / rows_, place = step * batch_size % rows_;
  constexpr std::int64_t kRowsTogether = kBlock * kBlocksTogether;
  while (static_cast<std::int64_t>(rows.size()) < batch_size) {
    std::int64_t number = place / kRowsTogether;  // one more where the small last block lies further in front
    const std::int64_t windows = (blocks_ + kBlocksTogether - 1) / kBlocksTogether;
    if (number + 1 < windows && begin_of(epoch, number + 1) <= place) ++number;
    const auto source = window(epoch, number);
    const auto begin = source->rows.begin() + (place - source->begin);
    const auto count = std::min<std::int64_t>(source->rows.end() - begin,
                                              batch_size - static_cast<std::int64_t>(rows.size()));
    rows.insert(rows.end(), begin, begin + count);
    place += count;
    if (place == rows_) ++epoch, place = 0;
  }
  return rows;
}

}  // namespace stoa
