#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace stoa::optim {

/// A tensor and the number of equal slices along dimension 0 that it stands for.
struct SlicedTensor {
  at::Tensor tensor;
  std::int64_t slices = 1;
};

/// Neighbouring elements [begin, end) of one slice of one tensor of a list.
struct Chunk {
  std::size_t tensor;  ///< place in the list
  std::int64_t slice;  ///< counted over all chunked tensors of the list
  std::int64_t begin, end;
};

/// Tensors cut into chunks of fixed size: work is shared out by chunks, and sums are taken chunk by chunk, so
/// that results do not depend on the number of threads.
struct Chunks {
  std::vector<Chunk> list;
  std::int64_t slices = 0;  ///< of all chunked tensors together
};

/// True for tensors that plain loops run over: contiguous, fp32 or fp64, on the CPU.
bool is_loopable(const at::Tensor& tensor);

/// Cuts the loopable ones among the tensors; the others have no chunks.
Chunks make_chunks(const std::vector<SlicedTensor>& tensors);

/// Calls f(number, chunk) for each chunk, on all threads.
template <class F>
void for_each_chunk(const Chunks& chunks, const F& f) {
  constexpr std::int64_t kChunksWorthAThread = 4;
  at::parallel_for(0, static_cast<std::int64_t>(chunks.list.size()), kChunksWorthAThread,
                   [&](std::int64_t begin, std::int64_t end) {
                     for (auto i = begin; i < end; ++i)
                       f(static_cast<std::size_t>(i), chunks.list[static_cast<std::size_t>(i)]);
                   });
}

/// Calls f with a value of the tensor's element type, float or double.
template <class F>
void with_element_type(const at::Tensor& tensor, const F& f) {
  if (tensor.scalar_type() == at::kDouble)
    f(double{});
  else
    f(float{});
}

/// Sum of squares of each slice of each tensor, in fp64 (the chunked tensors by chunks, the others through
/// ATen).
std::vector<std::vector<double>> square_sums(const std::vector<SlicedTensor>& tensors);

}  // namespace stoa::optim
