#include "stoa/ops/block_sight.h"

#include <ATen/ATen.h>

#include <limits>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/random.h"
#include "stoa/tensor/shape.h"

namespace stoa::ops {
namespace {

std::int64_t sides_of(std::int64_t numbers) {
  return (numbers + kSightSide - 1) / kSightSide;
}

/// Rows of int64 numbers as rows of whole sides; what is added repeats the last number.
std::vector<std::int32_t> narrowed(const at::Tensor& wide, std::int64_t lowest, const char* what) {
  if (wide.scalar_type() != at::kLong)
    throw ShapeError(format("block_attention: {} are of type {}; int64 is needed", what,
                            c10::toString(wide.scalar_type())));
  const auto rows = wide.cpu().contiguous();
  const std::int64_t width = rows.size(-1), whole = sides_of(width) * kSightSide,
                     count = width == 0 ? 0 : rows.numel() / width;
  const auto* from = rows.const_data_ptr<std::int64_t>();
  std::vector<std::int32_t> numbers(static_cast<std::size_t>(count * whole));
  auto* to = numbers.data();
  for (std::int64_t row = 0; row < count; ++row, from += width, to += whole) {
    for (std::int64_t i = 0; i < width; ++i) {
      if (from[i] < lowest || from[i] >= kNobody)
        throw ShapeError(
            format("block_attention: {} hold {}; {} to {} is needed", what, from[i], lowest, kNobody - 1));
      to[i] = static_cast<std::int32_t>(from[i]);
    }
    std::fill(to + width, to + whole, to[width - 1]);
  }
  return numbers;
}

std::vector<std::int32_t> positions(const at::Tensor& given, std::int64_t count, const char* what) {
  if (!given.defined()) return narrowed(at::arange(count, at::kLong), 0, what);
  check_shape(given, {count}, format("block_attention: {}", what));
  return narrowed(given, 0, what);
}

}  // namespace

BlockSight::BlockSight(const BlockMask& mask, std::int64_t batch, std::int64_t queries, std::int64_t keys)
    : query_sides_(sides_of(queries)),
      key_sides_(sides_of(keys)),
      documents_(mask.query_documents.defined()),
      padding_(mask.key_valid.defined()),
      query_positions_(positions(mask.query_positions, queries, "query_positions")),
      key_positions_(positions(mask.key_positions, keys, "key_positions")) {
  // without a causal mask every query is behind every key
  query_limits_ = mask.causal ? query_positions_ : Numbers(query_positions_.size(), kNobody - 1);
  const auto whole = static_cast<std::ptrdiff_t>(key_positions_.size());
  if (padding_) {
    check_shape(mask.key_valid, {batch, keys}, "block_attention: key_valid");
    if (mask.key_valid.scalar_type() != at::kBool)
      throw ShapeError(format("block_attention: key_valid is of type {}; bool is needed",
                              c10::toString(mask.key_valid.scalar_type())));
  }
  const auto valid = padding_ ? mask.key_valid.cpu().contiguous() : at::Tensor();
  for (std::int64_t sample = 0; sample < (padding_ ? batch : 1); ++sample) {
    if (mask.causal)
      key_limits_.insert(key_limits_.end(), key_positions_.begin(), key_positions_.end());
    else
      key_limits_.resize(key_limits_.size() + key_positions_.size(), 0);
    auto* const limits = key_limits_.data() + sample * whole;
    std::fill(limits + keys, limits + whole, kNobody);
    for (std::int64_t i = 0; padding_ && i < keys; ++i)
      if (!valid.const_data_ptr<bool>()[sample * keys + i]) limits[i] = kNobody;
  }
  if (documents_ != mask.key_documents.defined())
    throw ShapeError(
        "block_attention: documents of queries or of keys are missing; both or neither are needed");
  if (documents_) {
    check_shape(mask.query_documents, {batch, queries}, "block_attention: query_documents");
    check_shape(mask.key_documents, {batch, keys}, "block_attention: key_documents");
    constexpr std::int64_t kLowest = std::numeric_limits<std::int32_t>::min();
    query_documents_ = narrowed(mask.query_documents, kLowest, "query_documents");
    key_documents_ = narrowed(mask.key_documents, kLowest, "key_documents");
  }
  query_limit_ranges_ = ranges(query_limits_);
  key_limit_ranges_ = ranges(key_limits_);
  query_document_ranges_ = ranges(query_documents_);
  key_document_ranges_ = ranges(key_documents_);
}

std::vector<BlockSight::Range> BlockSight::ranges(const Numbers& numbers) {
  std::vector<Range> found;
  for (auto i = numbers.begin(); i < numbers.end(); i += kSightSide) {
    const auto [low, high] = std::minmax_element(i, i + kSightSide);
    found.push_back({*low, *high});
  }
  return found;
}

BlockSight::Sight BlockSight::sight(std::int64_t sample, std::int64_t query_side,
                                    std::int64_t key_side) const {
  const auto pick = [](const std::vector<Range>& of, std::int64_t i) {
    return of[static_cast<std::size_t>(i)];
  };
  const auto queries = pick(query_limit_ranges_, query_side);
  const auto keys = pick(key_limit_ranges_, (padding_ ? sample : 0) * key_sides_ + key_side);
  if (keys.low > queries.high) return Sight::kNone;
  bool all = keys.high <= queries.low;
  if (documents_) {
    const auto own = pick(query_document_ranges_, sample * query_sides_ + query_side);
    const auto theirs = pick(key_document_ranges_, sample * key_sides_ + key_side);
    if (theirs.low > own.high || theirs.high < own.low) return Sight::kNone;
    all = all && own.low == own.high && theirs.low == theirs.high;
  }
  return all ? Sight::kAll : Sight::kSome;
}

std::int64_t BlockSight::seen(std::int64_t sample, std::int64_t first_query_side, std::int64_t query_end,
                              std::int64_t first_key_side, std::int64_t key_end) const {
  std::int64_t count = 0;
  for (auto query = first_query_side; query < std::min(query_end, query_sides_); ++query)
    for (auto key = first_key_side; key < std::min(key_end, key_sides_); ++key)
      count += sight(sample, query, key) != Sight::kNone;
  return count;
}

std::uint32_t query_seed(const BlockDropout& dropout, std::int64_t sample, std::int64_t head,
                         std::int32_t position) {
  return static_cast<std::uint32_t>(mix_seed(
      {static_cast<std::uint64_t>(dropout.seed), static_cast<std::uint64_t>(dropout.first_batch + sample),
       static_cast<std::uint64_t>(dropout.first_head + head), static_cast<std::uint64_t>(position)}));
}

}  // namespace stoa::ops
