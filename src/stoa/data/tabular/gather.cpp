#include "stoa/data/tabular/gather.h"

#include <ATen/ATen.h>

namespace stoa {
namespace {

// Rows are passed column by column: a column of the few blocks that a batch is drawn from fits the cache.
template <class T>
void gather_columns(std::span<const GatheredRow> rows, std::size_t first, std::size_t columns, T* to) {
  for (std::size_t column = 0; column < columns; ++column) {
    T* place = to + column;
    for (const GatheredRow& row : rows) {
      *place = reinterpret_cast<const T*>(row.block)[(first + column) * row.rows + row.offset];
      place += columns;
    }
  }
}

}  // namespace

Batch gather_rows(std::span<const GatheredRow> rows, std::size_t fields, std::size_t numerics) {
  const auto count = static_cast<std::int64_t>(rows.size());
  at::Tensor ids = at::empty({count, static_cast<std::int64_t>(fields)}, at::kInt);
  at::Tensor numbers = at::empty({count, static_cast<std::int64_t>(numerics)}, at::kFloat);
  at::Tensor labels = at::empty({count}, at::kFloat);
  gather_columns(rows, 0, fields, ids.data_ptr<std::int32_t>());
  gather_columns(rows, fields, numerics, numbers.data_ptr<float>());
  float* label = labels.data_ptr<float>();
  for (const GatheredRow& row : rows) *label++ = row.block[4 * (fields + numerics) * row.rows + row.offset];
  return {{{"ids", ids}, {"numerics", numbers}, {"labels", labels}}, count};
}

}  // namespace stoa
