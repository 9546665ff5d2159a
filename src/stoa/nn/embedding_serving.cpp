#include "stoa/nn/embedding_serving.h"

#include <ATen/ATen.h>

#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/nn/embedding_state.h"
#include "stoa/nn/table_memory.h"
#include "stoa/tensor/shape.h"

namespace stoa::nn {
namespace {

constexpr float kLargestByte = 127;

std::string rows_name(std::size_t field) {
  return format("served.rows.{}", field);
}
std::string numbers_name(std::size_t field) {
  return format("served.numbers.{}", field);
}

/// Embeddings [rows, dim] as int8 in `bytes`; each row's scale and its linear weight in `numbers` [rows, 2].
void to_bytes(const at::Tensor& rows, const at::Tensor& bytes, const at::Tensor& numbers) {
  const auto dim = rows.size(1) - 1;
  const auto embeddings = rows.narrow(1, 0, dim);
  const auto scale = embeddings.abs().amax(1) / kLargestByte;
  bytes.copy_((embeddings / scale.clamp_min(1e-30F).unsqueeze(1)).round_());
  numbers.select(1, 0).copy_(scale);
  numbers.select(1, 1).copy_(rows.select(1, dim));
}

const at::Tensor& find(const std::map<std::string, at::Tensor>& stored, const std::string& name,
                       const std::string& source) {
  const auto found = stored.find(name);
  if (found == stored.end()) throw DataError(format("{}: tensor `{}` is missing", source, name));
  return found->second;
}

void require(bool fits, const at::Tensor& tensor, const std::string& name, const std::string& source) {
  if (!fits)
    throw DataError(
        format("{}: tensor `{}` {} of {} does not fit; the file belongs to tables of other fields, "
               "vocabularies or widths",
               source, name, shape_text(tensor.sizes()), at::toString(tensor.scalar_type())));
}

}  // namespace

ServedType ServedTables::type() const {
  switch (rows.front().scalar_type()) {
    case at::kHalf:
      return ServedType::kHalf;
    case at::kChar:
      return ServedType::kInt8;
    default:
      return ServedType::kFloat;
  }
}

std::pair<at::Tensor, at::Tensor> ServedTables::read(std::int64_t field, const at::Tensor& ids) const {
  const auto i = static_cast<std::size_t>(field);
  const auto found = rows[i].index_select(0, ids).to(at::kFloat);
  if (type() == ServedType::kInt8) {
    const auto own = numbers[i].index_select(0, ids);
    return {found * own.narrow(1, 0, 1), own.select(1, 1)};
  }
  const auto dim = found.size(1) - 1;
  return {found.narrow(1, 0, dim), found.select(1, dim)};
}

std::map<std::string, at::Tensor> served_state(const ServedTables& served) {
  std::map<std::string, at::Tensor> result;
  for (std::size_t field = 0; field < served.rows.size(); ++field) {
    result[rows_name(field)] = served.rows[field];
    if (served.type() == ServedType::kInt8) result[numbers_name(field)] = served.numbers[field];
  }
  return result;
}

bool is_served(const std::map<std::string, at::Tensor>& stored) {
  return stored.count(rows_name(0)) != 0;
}

void EmbeddingTables::serve(ServedType type) {
  auto& s = drawn();
  s.require_trainable();
  s.require_whole("exported");
  const bool bytes = type == ServedType::kInt8;
  const auto width = s.rule.format.width();
  const auto place = [&](std::int64_t rows, std::int64_t columns, at::ScalarType stored) {
    return map_table(rows, columns, s.options.storage, /*random=*/true, stored);
  };
  ServedTables served;
  for (std::int64_t field = 0; field < s.fields(); ++field) {
    const auto size = s.size(field);
    const auto rows = bytes ? place(size, s.options.dim, at::kChar)
                            : place(size, width, type == ServedType::kHalf ? at::kHalf : at::kFloat);
    const auto numbers = bytes ? place(size, 2, at::kFloat) : at::Tensor();
    // by blocks: a field's table may be larger than memory
    s.for_all_rows(field, [&](std::int64_t block, const float* from, std::int64_t count) {
      const auto here = at::from_blob(const_cast<float*>(from), {count, width}, at::kFloat);
      const auto to = rows.narrow(0, block * kBlock, count);
      if (bytes)
        to_bytes(here, to, numbers.narrow(0, block * kBlock, count));
      else
        to.copy_(here);
    });
    served.rows.push_back(rows);
    if (bytes) served.numbers.push_back(numbers);
    s.tables[static_cast<std::size_t>(field)] =
        at::Tensor();  // field by field, so that both are never there whole
    s.data[static_cast<std::size_t>(field)] = nullptr;
  }
  s.clear_gradients();
  s.served = std::move(served);
}

void EmbeddingTables::State::require_trainable() const {
  if (!served.empty())
    throw Error(
        "these embedding tables were exported: they are only read; train from the run they came from");
}

void EmbeddingTables::State::load_served(const std::map<std::string, at::Tensor>& stored,
                                         const std::string& source) {
  require_whole("read from an export");
  ServedTables found;
  for (std::size_t field = 0; field < sizes.size(); ++field) {
    const auto rows = find(stored, rows_name(field), source);
    const bool bytes = rows.scalar_type() == at::kChar;
    const auto width = bytes ? rule.format.dim : rule.format.width();
    require(rows.dim() == 2 && rows.size(0) == sizes[field] && rows.size(1) == width &&
                (bytes || rows.scalar_type() == at::kHalf || rows.scalar_type() == at::kFloat) &&
                (found.empty() || rows.scalar_type() == found.rows[0].scalar_type()),
            rows, rows_name(field), source);
    found.rows.push_back(rows.contiguous());
    if (!bytes) continue;
    const auto numbers = find(stored, numbers_name(field), source);
    require(numbers.dim() == 2 && numbers.size(0) == sizes[field] && numbers.size(1) == 2 &&
                numbers.scalar_type() == at::kFloat,
            numbers, numbers_name(field), source);
    found.numbers.push_back(numbers.contiguous());
  }
  for (auto& table : tables) table = at::Tensor();
  for (auto& place : data) place = nullptr;
  drawn = true;
  served = std::move(found);
  clear_gradients();
}

}  // namespace stoa::nn
