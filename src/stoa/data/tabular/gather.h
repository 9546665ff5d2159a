#pragma once

#include <cstdint>
#include <span>

#include "stoa/data/batch.h"

namespace stoa {

/// Where a row lies: in a block whose ids, then numbers, then labels follow each other column by column.
struct GatheredRow {
  const std::uint8_t* block = nullptr;
  std::uint32_t rows = 0;    ///< of the block
  std::uint32_t offset = 0;  ///< of the row within the block
};

/// Rows as a batch: `ids` [n, fields] int32, `numerics` [n, numerics] fp32, `labels` [n] fp32.
Batch gather_rows(std::span<const GatheredRow> rows, std::size_t fields, std::size_t numerics);

}  // namespace stoa
