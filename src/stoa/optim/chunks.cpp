#include "stoa/optim/chunks.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace stoa::optim {
namespace {

constexpr std::int64_t kChunkSize = 8192;

template <class T>
double square_sum(const T* x, std::int64_t size) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < size; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return sum;
}

/// Square sums of the tensors that have no chunks, with one copy to the host for all of them.
void add_unchunked(const std::vector<SlicedTensor>& tensors, std::vector<std::vector<double>>& sums) {
  std::vector<at::Tensor> parts;
  std::vector<std::size_t> owners;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const auto& [tensor, slices] = tensors[i];
    if (is_loopable(tensor)) continue;
    const auto norms =
        at::linalg_vector_norm(tensor.reshape({slices, tensor.numel() / slices}), 2, {1}, false, at::kDouble);
    parts.push_back(norms.to(parts.empty() ? norms.device() : parts.front().device()).square());
    owners.push_back(i);
  }
  if (parts.empty()) return;
  const auto all = at::cat(parts).cpu();
  const auto* next = all.const_data_ptr<double>();
  for (const auto owner : owners)
    for (auto& sum : sums[owner]) sum = *next++;
}

}  // namespace

bool is_loopable(const at::Tensor& tensor) {
  const auto type = tensor.scalar_type();
  return tensor.is_cpu() && (type == at::kFloat || type == at::kDouble) && tensor.layout() == at::kStrided &&
         tensor.is_contiguous();
}

Chunks make_chunks(const std::vector<SlicedTensor>& tensors) {
  Chunks chunks;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const auto& [tensor, slices] = tensors[i];
    if (!is_loopable(tensor)) continue;
    const auto size = tensor.numel() / slices;
    for (std::int64_t slice = 0; slice < slices; ++slice, ++chunks.slices)
      for (std::int64_t begin = 0; begin < size; begin += kChunkSize)
        chunks.list.push_back(
            {i, chunks.slices, slice * size + begin, slice * size + std::min(begin + kChunkSize, size)});
  }
  return chunks;
}

std::vector<std::vector<double>> square_sums(const std::vector<SlicedTensor>& tensors) {
  const auto chunks = make_chunks(tensors);
  std::vector<double> partial(chunks.list.size());
  for_each_chunk(chunks, [&](std::size_t number, const Chunk& chunk) {
    const auto& tensor = tensors[chunk.tensor].tensor;
    with_element_type(tensor, [&](auto type) {
      partial[number] =
          square_sum(tensor.const_data_ptr<decltype(type)>() + chunk.begin, chunk.end - chunk.begin);
    });
  });
  std::vector<std::vector<double>> sums;
  std::vector<std::int64_t> first_slice;
  std::int64_t next = 0;
  for (const auto& [tensor, slices] : tensors) {
    sums.emplace_back(static_cast<std::size_t>(slices));
    first_slice.push_back(next);
    if (is_loopable(tensor)) next += slices;
  }
  for (std::size_t number = 0; number < partial.size(); ++number) {
    const auto& chunk = chunks.list[number];
    sums[chunk.tensor][static_cast<std::size_t>(chunk.slice - first_slice[chunk.tensor])] += partial[number];
  }
  add_unchunked(tensors, sums);
  return sums;
}

}  // namespace stoa::optim
