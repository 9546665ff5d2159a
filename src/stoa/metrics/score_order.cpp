#include "stoa/metrics/score_order.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <bit>
#include <utility>

namespace stoa::metrics {
namespace {

constexpr int kDigitBits = 11;
constexpr std::int64_t kDigits = 1 << kDigitBits;
constexpr std::int64_t kSmall = 4096;           // rows below which counting digits costs more than comparing
constexpr std::int64_t kRowsOfAPart = 1 << 16;  // that a thread is worth starting for
using Counts = std::array<std::int64_t, kDigits>;

std::uint32_t ordered_bits(float score) {
  const auto bits = std::bit_cast<std::uint32_t>(score + 0.0F);  // -0 + 0 = 0
  return bits ^ ((bits >> 31) != 0 ? 0xFFFFFFFFU : 0x80000000U);
}

std::int64_t digit(ScoredLabel row, int shift) {
  return static_cast<std::int64_t>(row >> shift) & (kDigits - 1);
}

/// One pass of a radix sort by the digit at `shift`, each part of the rows by one thread.
void sort_by_digit(const std::vector<ScoredLabel>& from, std::vector<ScoredLabel>& to, int shift,
                   std::vector<Counts>& counts) {
  const auto rows = std::ssize(from), parts = std::ssize(counts);
  const auto first = [&](std::int64_t part) { return rows / parts * part + std::min(part, rows % parts); };
  const auto each_part = [&](const auto& work) {
    at::parallel_for(0, parts, 1, [&](std::int64_t begin, std::int64_t end) {
      for (auto part = begin; part < end; ++part)
        work(counts[static_cast<std::size_t>(part)], from.data() + first(part),
             from.data() + first(part + 1));
    });
  };
  each_part([&](Counts& count, const ScoredLabel* row, const ScoredLabel* end) {
    count.fill(0);
    for (; row != end; ++row) ++count[static_cast<std::size_t>(digit(*row, shift))];
  });
  // counts become places: of each digit the parts in turn, so that equal rows keep their order
  std::int64_t place = 0;
  for (std::size_t d = 0; d < kDigits; ++d)
    for (auto& count : counts) place += std::exchange(count[d], place);
  each_part([&](Counts& places, const ScoredLabel* row, const ScoredLabel* end) {
    for (; row != end; ++row)
      to[static_cast<std::size_t>(places[static_cast<std::size_t>(digit(*row, shift))]++)] = *row;
  });
}

}  // namespace

std::vector<ScoredLabel> sort_by_score(const float* scores, const std::uint8_t* labels, std::int64_t rows) {
  std::vector<ScoredLabel> sorted(static_cast<std::size_t>(rows));
  at::parallel_for(0, rows, kRowsOfAPart, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = begin; i < end; ++i)
      sorted[static_cast<std::size_t>(i)] = (ScoredLabel{ordered_bits(scores[i])} << 1) | labels[i];
  });
  if (rows < kSmall) {
    std::ranges::stable_sort(sorted, {}, [](ScoredLabel row) { return row >> 1; });
    return sorted;
  }
  const auto parts = std::clamp<std::int64_t>(rows / kRowsOfAPart, 1, at::get_num_threads());
  std::vector<Counts> counts(static_cast<std::size_t>(parts));
  std::vector<ScoredLabel> other(sorted.size());
  for (int shift = 1; shift < 33; shift += kDigitBits) {
    sort_by_digit(sorted, other, shift, counts);
    sorted.swap(other);
  }
  return sorted;
}

float score_of(ScoredLabel row) {
  const auto key = static_cast<std::uint32_t>(row >> 1);
  return std::bit_cast<float>(key ^ ((key >> 31) != 0 ? 0x80000000U : 0xFFFFFFFFU));
}

std::int64_t end_of_ties(const std::vector<ScoredLabel>& sorted, std::int64_t begin) {
  const auto rows = std::ssize(sorted);
  const auto score = sorted[static_cast<std::size_t>(begin)] >> 1;
  auto end = begin + 1;
  while (end < rows && sorted[static_cast<std::size_t>(end)] >> 1 == score) ++end;
  return end;
}

}  // namespace stoa::metrics
