#include "stoa/dist/shards.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace stoa::dist {
namespace {

/// The same elements in a flattened tensor and in its columns [ranks, width]: those of the ranks that have
/// `width` of them, and the fewer of the next one.
struct Views {
  at::Tensor flat_full, rows_full, flat_rest, row_rest;
};

Views views_of(const at::Tensor& flat, const at::Tensor& columns) {
  const auto width = columns.size(1), size = flat.numel();
  const auto full = width == 0 ? 0 : size / width, rest = size - full * width;
  Views views{flat.narrow(0, 0, full * width).view({full, width}),
              columns.narrow(0, 0, full),
              flat.narrow(0, full * width, rest),
              {}};
  views.row_rest = rest == 0 ? views.flat_rest : columns.select(0, full).narrow(0, 0, rest);
  return views;
}

/// Calls use(tensor, its columns) for each.
template <class Use>
void for_each_columns(const at::Tensor& rows, const std::vector<at::Tensor>& tensors, const Use& use) {
  std::int64_t begin = 0;
  for (const auto& tensor : tensors) {
    const auto width = shard_width(tensor.numel(), static_cast<int>(rows.size(0)));
    use(tensor, rows.narrow(1, begin, width));
    begin += width;
  }
}

std::int64_t widths_of(const std::vector<std::int64_t>& elements, int ranks) {
  std::int64_t sum = 0;
  for (const auto size : elements) sum += shard_width(size, ranks);
  return sum;
}

std::vector<std::int64_t> sizes_of(const std::vector<at::Tensor>& tensors) {
  std::vector<std::int64_t> sizes;
  for (const auto& tensor : tensors) sizes.push_back(tensor.numel());
  return sizes;
}

}  // namespace

std::int64_t shard_width(std::int64_t elements, int ranks) {
  return (elements + ranks - 1) / ranks;
}

ShardRange shard_range(std::int64_t elements, int rank, int ranks) {
  const auto width = shard_width(elements, ranks), begin = std::min(rank * width, elements);
  return {begin, std::min(width, elements - begin)};
}

at::Tensor shard_of(const at::Tensor& tensor, int rank, int ranks) {
  const auto [begin, size] = shard_range(tensor.numel(), rank, ranks);
  return tensor.detach().view({-1}).narrow(0, begin, size);
}

std::vector<std::vector<std::size_t>> cut_batches(const std::vector<at::Tensor>& tensors,
                                                  std::int64_t bytes) {
  std::vector<std::vector<std::size_t>> batches;
  std::int64_t size = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const auto fits = [&](const at::Tensor& first) {
      return first.scalar_type() == tensors[i].scalar_type() && first.device() == tensors[i].device();
    };
    if (batches.empty() || size >= bytes || !fits(tensors[batches.back().front()])) {
      batches.emplace_back();
      size = 0;
    }
    batches.back().push_back(i);
    size += static_cast<std::int64_t>(tensors[i].nbytes());
  }
  return batches;
}

std::vector<ShardBatch> cut_batches(const std::vector<nn::NamedParameter>& parameters,
                                    const std::vector<std::size_t>& chosen, const ShardGroups& groups,
                                    std::int64_t bytes) {
  std::vector<ShardBatch> batches;
  for (auto* const group : {&groups.all(), groups.experts()}) {
    if (group == nullptr || group->size() == 1) continue;
    std::vector<std::size_t> members;
    std::vector<at::Tensor> tensors;
    for (const auto i : chosen) {
      if (&groups.of(parameters[i].name) != group) continue;
      members.push_back(i);
      tensors.push_back(parameters[i].tensor);
    }
    for (auto& batch : cut_batches(tensors, bytes)) {
      for (auto& member : batch) member = members[member];
      batches.push_back({group, std::move(batch)});
    }
  }
  return batches;
}

at::Tensor deal(const std::vector<at::Tensor>& tensors, int ranks) {
  const auto options = tensors.at(0).options().requires_grad(false);
  const auto rows = at::empty({ranks, widths_of(sizes_of(tensors), ranks)}, options);
  for_each_columns(rows, tensors, [](const at::Tensor& tensor, const at::Tensor& columns) {
    const auto views = views_of(tensor.detach().reshape(-1), columns);
    const auto full = views.rows_full.size(0);
    columns.narrow(0, full, columns.size(0) - full).zero_();
    views.rows_full.copy_(views.flat_full);
    views.row_rest.copy_(views.flat_rest);
  });
  return rows;
}

at::Tensor dealt_row(const std::vector<at::Tensor>& shards, const std::vector<std::int64_t>& elements,
                     int ranks) {
  const auto row = at::empty({widths_of(elements, ranks)}, shards.at(0).options());
  std::int64_t begin = 0;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const auto width = shard_width(elements[i], ranks), size = shards[i].numel();
    row.narrow(0, begin, size).copy_(shards[i]);
    row.narrow(0, begin + size, width - size).zero_();
    begin += width;
  }
  return row;
}

void collect(const at::Tensor& rows, const std::vector<at::Tensor>& tensors) {
  for_each_columns(rows, tensors, [](const at::Tensor& tensor, const at::Tensor& columns) {
    const auto views = views_of(tensor.detach().view({-1}), columns);
    views.flat_full.copy_(views.rows_full);
    views.flat_rest.copy_(views.row_rest);
  });
}

}  // namespace stoa::dist
