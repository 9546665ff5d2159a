#include "stoa/optim/chunks.h"

#include <ATen/ATen.h>

#include "stoa/ops/optimizer_kernels.h"

namespace stoa::optim {

bool is_loopable(const at::Tensor& tensor) {
  const auto type = tensor.scalar_type();
  return tensor.is_cpu() && (type == at::kFloat || type == at::kDouble) && tensor.layout() == at::kStrided &&
         tensor.is_contiguous();
}

Chunks make_chunks(const std::vector<SlicedTensor>& tensors) {
  Chunks chunks;
  std::int64_t place = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const auto& [tensor, slices] = tensors[i];
    chunks.first_slice.push_back(chunks.slices);
    const auto first = chunks.slices;
    chunks.slices += slices;
    if (!is_loopable(tensor)) continue;
    const auto size = tensor.numel() / slices;
    for (std::int64_t slice = 0; slice < slices; ++slice)
      for (std::int64_t begin = 0; begin < size; begin += kChunkSize) {
        const auto end = std::min(begin + kChunkSize, size);
        chunks.list.push_back({i, first + slice, slice * size + begin, slice * size + end, place});
        place += end - begin;
      }
  }
  return chunks;
}

std::vector<double> square_sums(const Chunks& chunks, const std::vector<Elements>& tensors) {
  std::vector<double> partial(chunks.list.size()), sums(static_cast<std::size_t>(chunks.slices));
  for_each_chunk(chunks, [&](std::size_t number, const Chunk& chunk) {
    const auto& [data, is_double] = tensors[chunk.tensor];
    if (data == nullptr) return;
    partial[number] = with_element_type(is_double, [&, data = data](auto type) {
      using T = decltype(type);
      return ops::optimizer_kernels<T>().square_sum(static_cast<const T*>(data) + chunk.begin, chunk.size());
    });
  });
  for (std::size_t number = 0; number < partial.size(); ++number)
    sums[static_cast<std::size_t>(chunks.list[number].slice)] += partial[number];
  return sums;
}

void add_square_sums(const std::vector<UnchunkedTensor>& tensors, std::vector<double>& sums) {
  std::vector<at::Tensor> parts;
  for (const auto& [sliced, first_slice] : tensors) {
    const auto& [tensor, slices] = sliced;
    const auto norms =
        at::linalg_vector_norm(tensor.reshape({slices, tensor.numel() / slices}), 2, {1}, false, at::kDouble);
    parts.push_back(norms.to(parts.empty() ? norms.device() : parts.front().device()).square());
  }
  if (parts.empty()) return;
  const auto all = at::cat(parts).cpu();
  const auto* next = all.const_data_ptr<double>();
  for (const auto& [sliced, first_slice] : tensors)
    for (std::int64_t slice = 0; slice < sliced.slices; ++slice)
      sums[static_cast<std::size_t>(first_slice + slice)] += *next++;
}

}  // namespace stoa::optim
