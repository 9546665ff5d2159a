#include "stoa/ops/table_rows.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <bit>
#include <limits>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/ops/table_rows_kernels.h"
#include "stoa/tensor/shape.h"

namespace stoa::ops {

namespace {

std::int64_t& at_index(std::vector<std::int64_t>& values, std::int64_t i) {
  return values[static_cast<std::size_t>(i)];
}
std::int64_t at_index(const std::vector<std::int64_t>& values, std::int64_t i) {
  return values[static_cast<std::size_t>(i)];
}

// occurrences that are worth a thread
constexpr std::int64_t kGrain = 4096;

/// Calls f with a pointer to the ids, as int32 or int64.
template <class F>
void with_ids(const at::Tensor& ids, const F& f) {
  const auto values = ids.contiguous();
  if (values.scalar_type() == at::kInt)
    f(values.const_data_ptr<std::int32_t>());
  else
    f(values.const_data_ptr<std::int64_t>());
}

/// The batch row of the first id of a field that is out of range, or -1.
template <class Id>
std::int64_t first_outside(const Id* ids, std::int64_t batch, std::int64_t fields, std::int64_t field,
                           std::int64_t size) {
  for (std::int64_t row = 0; row < batch; ++row)
    if (const std::int64_t id = ids[row * fields + field]; id < 0 || id >= size) return row;
  return -1;
}

/// Sorts id << 32 | batch row by id; equal ids stay in order of the batch.
void sort_by_id(std::vector<std::uint64_t>& keys, std::vector<std::uint64_t>& spare, std::int64_t size) {
  constexpr std::size_t kFew = 256;
  if (keys.size() <= kFew) {
    std::ranges::sort(keys);
    return;
  }
  constexpr int kDigit = 11;
  constexpr std::uint64_t kMask = (1 << kDigit) - 1;
  const int bits = std::bit_width(static_cast<std::uint64_t>(size - 1));
  std::vector<std::uint32_t> begin(kMask + 1);
  spare.resize(keys.size());
  for (int shift = 32; shift < 32 + bits; shift += kDigit) {
    std::ranges::fill(begin, 0);
    for (const auto key : keys) ++begin[key >> shift & kMask];
    std::uint32_t sum = 0;
    for (auto& count : begin) sum += std::exchange(count, sum);
    for (const auto key : keys) spare[begin[key >> shift & kMask]++] = key;
    keys.swap(spare);
  }
}

/// A field's ids in order, and how many are distinct.
struct SortedField {
  std::vector<std::uint64_t> keys;
  std::int64_t distinct = 0;
};

template <class Id>
SortedField sort_field(const Id* ids, std::int64_t batch, std::int64_t fields, std::int64_t field,
                       std::int64_t size, std::vector<std::uint64_t>& spare) {
  SortedField sorted;
  sorted.keys.resize(static_cast<std::size_t>(batch));
  for (std::int64_t row = 0; row < batch; ++row)
    sorted.keys[static_cast<std::size_t>(row)] =
        static_cast<std::uint64_t>(ids[row * fields + field]) << 32 | static_cast<std::uint64_t>(row);
  sort_by_id(sorted.keys, spare, size);
  std::uint64_t before = std::numeric_limits<std::uint64_t>::max();
  for (const auto key : sorted.keys) {
    sorted.distinct += key >> 32 != before >> 32 ? 1 : 0;
    before = key;
  }
  return sorted;
}

/// Writes what one sorted field comes to.
void lay_out_field(const SortedField& sorted, std::int64_t field, DistinctIds& out) {
  std::int64_t number = at_index(out.first, field) - 1;
  std::int64_t k = field * out.batch;
  std::uint64_t before = std::numeric_limits<std::uint64_t>::max();
  for (const auto key : sorted.keys) {
    if (key >> 32 != before >> 32) {
      ++number;
      at_index(out.ids, number) = static_cast<std::int64_t>(key >> 32);
      at_index(out.start, number) = k;
    }
    before = key;
    const auto row = static_cast<std::int64_t>(key & 0xffffffffu);
    const auto occurrence = row * out.fields + field;
    out.occurrences[static_cast<std::size_t>(k++)] = static_cast<std::int32_t>(occurrence);
    out.place[static_cast<std::size_t>(occurrence)] = static_cast<std::int32_t>(number);
  }
}

std::pair<at::Tensor, at::Tensor> spread(const at::Tensor& rows, const DistinctIds& where) {
  const auto source = rows.contiguous();
  const auto dim = rows.size(1) - 1;
  const auto embeddings = at::empty({where.batch, where.fields, dim}, source.options());
  const auto linear = at::empty({where.batch, where.fields}, source.options());
  const float* const from = source.const_data_ptr<float>();
  float* const to = embeddings.mutable_data_ptr<float>();
  float* const to_linear = linear.mutable_data_ptr<float>();
  const auto& kernels = table_row_kernels();
  at::parallel_for(0, where.batch * where.fields, kGrain, [&](std::int64_t begin, std::int64_t end) {
    kernels.spread(from, where.place.data() + begin, end - begin, dim,
                   {to + begin * dim, dim, to_linear + begin, 1});
  });
  return {embeddings, linear};
}

at::Tensor sum_occurrences(const at::Tensor& embeddings, const at::Tensor& linear, const DistinctIds& where,
                           std::int64_t dim) {
  const auto plain = [](const at::Tensor& tensor) {
    return tensor.defined() ? tensor.to(at::kFloat).contiguous() : tensor;
  };
  const auto of_embeddings = plain(embeddings), of_linear = plain(linear);
  const auto data = [](const at::Tensor& tensor) {
    return tensor.defined() ? tensor.const_data_ptr<float>() : nullptr;
  };
  const OccurrenceGradients gradients = {data(of_embeddings), data(of_linear)};
  const auto sums = at::empty({where.distinct(), dim + 1}, at::kFloat);
  float* const to = sums.mutable_data_ptr<float>();
  const auto& kernels = table_row_kernels();
  // shared out by occurrences, as a few ids have most of them; a row is summed by one thread
  const auto row_at = [&](std::int64_t occurrence) {
    return std::ranges::lower_bound(where.start.begin(), where.start.end() - 1, occurrence) -
           where.start.begin();
  };
  at::parallel_for(0, where.batch * where.fields, kGrain, [&](std::int64_t begin, std::int64_t end) {
    kernels.sum(gradients, where.occurrences.data(), where.start.data(), row_at(begin), row_at(end), dim, to);
  });
  return sums;
}

class SpreadFunction : public torch::autograd::Function<SpreadFunction> {
 public:
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context,
                                                const at::Tensor& rows,
                                                const c10::intrusive_ptr<DistinctIds>& where) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    context->set_materialize_grads(false);
    context->saved_data["where"] = c10::IValue::make_capsule(where);
    context->saved_data["dim"] = rows.size(1) - 1;
    auto [embeddings, linear] = spread(rows, *where);
    return {embeddings, linear};
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    if (at::GradMode::is_enabled())
      throw Error("embedding tables: second derivatives are only available from spread_rows_reference");
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto where =
        c10::static_intrusive_pointer_cast<DistinctIds>(context->saved_data["where"].toCapsule());
    return {sum_occurrences(grads[0], grads[1], *where, context->saved_data["dim"].toInt()), at::Tensor()};
  }
};

}  // namespace

void check_ids(const at::Tensor& ids, const std::vector<std::int64_t>& sizes) {
  const auto fields = static_cast<std::int64_t>(sizes.size());
  check_shape(ids, {-1, fields}, "ids of embedding rows");
  if (ids.scalar_type() != at::kInt && ids.scalar_type() != at::kLong)
    throw ShapeError(format("ids of embedding rows are of type {}; int32 or int64 is needed",
                            at::toString(ids.scalar_type())));
  const auto batch = ids.size(0);
  if (batch > std::numeric_limits<std::int32_t>::max() / std::max<std::int64_t>(1, fields))
    throw ShapeError(
        format("a batch of {} rows with {} fields has more than 2^31 ids; make it smaller", batch, fields));
  std::vector<std::int64_t> outside(sizes.size(), -1);
  with_ids(ids, [&](const auto* values) {
    at::parallel_for(0, fields, 1 + kGrain / (batch + 1), [&](std::int64_t begin, std::int64_t end) {
      for (auto field = begin; field < end; ++field)
        at_index(outside, field) = first_outside(values, batch, fields, field, at_index(sizes, field));
    });
    for (std::int64_t field = 0; field < fields; ++field)
      if (const auto row = at_index(outside, field); row >= 0)
        throw DataError(
            format("field {}, row {} of the batch: id {} is outside the field's table of {} rows; ids "
                   "from 0 to {} are needed (do data and tables have the same vocabulary?)",
                   field, row, std::int64_t{values[row * fields + field]}, at_index(sizes, field),
                   at_index(sizes, field) - 1));
  });
}

c10::intrusive_ptr<DistinctIds> distinct_ids(const at::Tensor& ids, const std::vector<std::int64_t>& sizes) {
  auto result = c10::make_intrusive<DistinctIds>();
  auto& out = *result;
  out.batch = ids.size(0);
  out.fields = ids.size(1);
  std::vector<SortedField> sorted(sizes.size());
  const auto grain = 1 + kGrain / (out.batch + 1);
  with_ids(ids, [&](const auto* values) {
    at::parallel_for(0, out.fields, grain, [&](std::int64_t begin, std::int64_t end) {
      std::vector<std::uint64_t> spare;
      for (auto field = begin; field < end; ++field)
        sorted[static_cast<std::size_t>(field)] =
            sort_field(values, out.batch, out.fields, field, at_index(sizes, field), spare);
    });
  });
  out.first.push_back(0);
  for (const auto& field : sorted) out.first.push_back(out.first.back() + field.distinct);
  out.ids.resize(static_cast<std::size_t>(out.first.back()));
  out.start.resize(out.ids.size() + 1);
  out.start.back() = out.batch * out.fields;
  out.occurrences.resize(static_cast<std::size_t>(out.batch * out.fields));
  out.place.resize(out.occurrences.size());
  at::parallel_for(0, out.fields, grain, [&](std::int64_t begin, std::int64_t end) {
    for (auto field = begin; field < end; ++field)
      lay_out_field(sorted[static_cast<std::size_t>(field)], field, out);
  });
  return result;
}

std::pair<at::Tensor, at::Tensor> spread_rows(const at::Tensor& rows,
                                              const c10::intrusive_ptr<DistinctIds>& where) {
  if (!rows.requires_grad() || !at::GradMode::is_enabled()) return spread(rows, *where);
  auto outputs = SpreadFunction::apply(rows, where);
  return {outputs[0], outputs[1]};
}

std::pair<at::Tensor, at::Tensor> spread_rows_reference(const at::Tensor& rows,
                                                        const c10::intrusive_ptr<DistinctIds>& where) {
  const auto place = at::tensor(where->place, at::kInt);
  const auto spread_out = rows.index_select(0, place).view({where->batch, where->fields, rows.size(1)});
  const auto dim = rows.size(1) - 1;
  return {spread_out.narrow(2, 0, dim), spread_out.select(2, dim)};
}

}  // namespace stoa::ops
