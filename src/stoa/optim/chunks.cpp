#include "stoa/optim/chunks.h"

#include <ATen/ATen.h>

#include "stoa/ops/optimizer_kernels.h"

namespace stoa::optim {
namespace {

/// Norm of each piece, on the tensor's device.
at::Tensor norms_of(const SlicedTensor& sliced) {
  const auto& tensor = sliced.tensor;
  if (sliced.whole < 0 && tensor.numel() > 0)
    return at::linalg_vector_norm(tensor.reshape({sliced.slices, -1}), 2, {1}, false, at::kDouble);
  std::vector<at::Tensor> norms;
  for (const auto& piece : pieces_of(sliced))
    norms.push_back(at::linalg_vector_norm(cut(sliced, piece), 2, {}, false, at::kDouble));
  return norms.empty() ? at::empty({0}, tensor.options().dtype(at::kDouble)) : at::stack(norms);
}

}  // namespace

bool is_loopable(const at::Tensor& tensor) {
  const auto type = tensor.scalar_type();
  return tensor.is_cpu() && (type == at::kFloat || type == at::kDouble) && tensor.layout() == at::kStrided &&
         tensor.is_contiguous();
}

std::vector<SlicePiece> pieces_of(const SlicedTensor& sliced) {
  const auto size = sliced.tensor.numel(), whole = sliced.whole < 0 ? size : sliced.whole;
  std::vector<SlicePiece> pieces;
  if (size == 0) return pieces;
  const auto slice_size = whole / sliced.slices;
  for (std::int64_t begin = 0; begin < size;) {
    const auto slice = (sliced.begin + begin) / slice_size;
    const auto end = std::min(size, (slice + 1) * slice_size - sliced.begin);
    pieces.push_back({slice, begin, end - begin});
    begin = end;
  }
  return pieces;
}

at::Tensor cut(const SlicedTensor& sliced, const SlicePiece& piece) {
  if (sliced.whole >= 0) return sliced.tensor.narrow(0, piece.begin, piece.size);
  if (sliced.slices == 1) return sliced.tensor;
  const auto rows = sliced.tensor.size(0) / sliced.slices;
  return sliced.tensor.narrow(0, piece.slice * rows, rows);
}

Chunks make_chunks(const std::vector<SlicedTensor>& tensors) {
  Chunks chunks;
  std::int64_t place = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    chunks.first_slice.push_back(chunks.slices);
    const auto first = chunks.slices;
    chunks.slices += tensors[i].slices;
    if (!is_loopable(tensors[i].tensor)) continue;
    for (const auto& piece : pieces_of(tensors[i]))
      for (std::int64_t begin = piece.begin; begin < piece.begin + piece.size; begin += kChunkSize) {
        const auto end = std::min(begin + kChunkSize, piece.begin + piece.size);
        chunks.list.push_back({i, first + piece.slice, begin, end, place});
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
    const auto norms = norms_of(sliced);
    parts.push_back(norms.to(parts.empty() ? norms.device() : parts.front().device()).square());
  }
  if (parts.empty()) return;
  const auto all = at::cat(parts).cpu();
  const auto* next = all.const_data_ptr<double>();
  for (const auto& [sliced, first_slice] : tensors)
    for (const auto& piece : pieces_of(sliced))
      sums[static_cast<std::size_t>(first_slice + piece.slice)] += *next++;
}

}  // namespace stoa::optim
