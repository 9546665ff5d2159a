#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "stoa/ops/block_attention.h"

// What queries of block_attention.h see of keys, so that tiles in which nothing is seen are left out.
// Internal to ops/.
namespace stoa::ops {

constexpr std::int64_t kSightSide = 64;       ///< queries or keys that are judged together
constexpr std::int64_t kSpanSides = 4;        ///< so many of them are worked on at once
constexpr std::int32_t kNobody = 2147483647;  ///< the limit of a key that no query sees

/// A mask as numbers: a query sees a key whose limit is not above its own, and whose document is its own.
/// Arrays go on to whole sides: queries there are copies of the last one, keys are seen by none.
class BlockSight {
 public:
  enum class Sight { kNone, kSome, kAll };

  /// Throws ShapeError for positions or documents that do not fit or lie beyond 31 bits.
  BlockSight(const BlockMask& mask, std::int64_t batch, std::int64_t queries, std::int64_t keys);

  std::int64_t query_sides() const { return query_sides_; }
  std::int64_t key_sides() const { return key_sides_; }

  /// What 64 queries see of 64 keys; at least that.
  Sight sight(std::int64_t sample, std::int64_t query_side, std::int64_t key_side) const;

  /// How many pairs of sides with anything to see there are in a part.
  std::int64_t seen(std::int64_t sample, std::int64_t first_query_side, std::int64_t query_end,
                    std::int64_t first_key_side, std::int64_t key_end) const;

  /// Calls work(first key side, how many) for runs of at most kSpanSides sides that the queries of a side see
  /// something of, none across a multiple of kSpanSides.
  template <class Work>
  void for_each_span(std::int64_t sample, std::int64_t query_side, std::int64_t first, std::int64_t end,
                     const Work& work) const {
    for (std::int64_t side = first; side < end; ++side) {
      if (sight(sample, query_side, side) == Sight::kNone) continue;
      const std::int64_t stop = std::min(end, (side / kSpanSides + 1) * kSpanSides), begin = side;
      while (side + 1 < stop && sight(sample, query_side, side + 1) != Sight::kNone) ++side;
      work(begin, side + 1 - begin);
    }
  }

  /// Of queries or keys from a side on.
  const std::int32_t* query_limits(std::int64_t side) const { return at(query_limits_, side); }
  const std::int32_t* key_limits(std::int64_t sample, std::int64_t side) const {
    return at(key_limits_, (padding_ ? sample : 0) * key_sides_ + side);
  }
  const std::int32_t* query_positions(std::int64_t side) const { return at(query_positions_, side); }
  const std::int32_t* key_positions(std::int64_t side) const { return at(key_positions_, side); }
  /// Null where there are no documents.
  const std::int32_t* query_documents(std::int64_t sample, std::int64_t side) const {
    return documents_ ? at(query_documents_, sample * query_sides_ + side) : nullptr;
  }
  const std::int32_t* key_documents(std::int64_t sample, std::int64_t side) const {
    return documents_ ? at(key_documents_, sample * key_sides_ + side) : nullptr;
  }

 private:
  struct Range {
    std::int32_t low, high;
  };
  using Numbers = std::vector<std::int32_t>;

  static const std::int32_t* at(const Numbers& numbers, std::int64_t side) {
    return numbers.data() + side * kSightSide;
  }
  static std::vector<Range> ranges(const Numbers& numbers);

  std::int64_t query_sides_, key_sides_;
  bool documents_ = false, padding_ = false;
  Numbers query_positions_, key_positions_;  // [whole sides]
  Numbers query_limits_, key_limits_;  // [whole sides], of keys [batch, whole sides] if there is padding
  Numbers query_documents_, key_documents_;  // [batch, whole sides]
  std::vector<Range> query_limit_ranges_, key_limit_ranges_, query_document_ranges_, key_document_ranges_;
};

/// The number of a query's dropout from a call's: keys are told apart by it and their position.
std::uint32_t query_seed(const BlockDropout& dropout, std::int64_t sample, std::int64_t head,
                         std::int32_t position);

}  // namespace stoa::ops
