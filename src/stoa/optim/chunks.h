#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace stoa::optim {

/// A tensor and the number of equal slices along dimension 0 that it stands for, or a flat part of one.
struct SlicedTensor {
  at::Tensor tensor;
  std::int64_t slices = 1;  ///< of the whole
  std::int64_t begin = 0;   ///< first element of a part, in the flattened whole
  std::int64_t whole = -1;  ///< elements of the whole of which this is a part; -1: this is the whole
};

/// What a tensor has of one slice: elements [begin, begin + size) of the flattened tensor.
struct SlicePiece {
  std::int64_t slice, begin, size;
};

/// The pieces of all slices that a tensor has something of, in turn; none of an empty tensor.
std::vector<SlicePiece> pieces_of(const SlicedTensor& sliced);
/// A view of that piece.
at::Tensor cut(const SlicedTensor& sliced, const SlicePiece& piece);

constexpr std::int64_t kChunkSize = 8192;

/// Neighbouring elements [begin, end) of one slice of one tensor of a list; kChunkSize at most.
struct Chunk {
  std::int64_t size() const { return end - begin; }

  std::size_t tensor;  ///< place in the list
  std::int64_t slice;  ///< counted over all tensors of the list
  std::int64_t begin, end;
  std::int64_t place;  ///< elements in the chunks before this one
};

/// Tensors cut into chunks of fixed size: work is shared out by chunks, and sums are taken chunk by chunk, so
/// that results do not depend on the number of threads.
struct Chunks {
  std::vector<Chunk> list;
  std::vector<std::int64_t> first_slice;  ///< of each tensor, chunked or not
  std::int64_t slices = 0;                ///< of all tensors together
};

/// True for tensors that plain loops run over: contiguous, fp32 or fp64, on the CPU.
bool is_loopable(const at::Tensor& tensor);

/// Cuts the loopable ones among the tensors; the others have no chunks.
Chunks make_chunks(const std::vector<SlicedTensor>& tensors);

enum class Order { kForwards, kBackwards };

/// Calls f(number, chunk) for the chunks numbered [first, last), on all threads, each with its share of the
/// elements. Backwards, a second pass begins with what the first one left in the cache.
template <class F>
void for_each_chunk(const Chunks& chunks, std::size_t first, std::size_t last, const F& f,
                    Order order = Order::kForwards) {
  constexpr std::int64_t kWorthAThread = 4 * kChunkSize;
  if (first == last) return;
  const auto* const list = chunks.list.data();
  const auto& final = list[last - 1];
  const auto number_at = [&](std::int64_t place) {
    return static_cast<std::size_t>(
        std::ranges::lower_bound(list + first, list + last, place, {}, &Chunk::place) - list);
  };
  at::parallel_for(list[first].place, final.place + final.size(), kWorthAThread,
                   [&](std::int64_t begin, std::int64_t end) {
                     const auto from = number_at(begin), to = number_at(end);
                     for (auto i = from; i < to; ++i) {
                       const auto number = order == Order::kForwards ? i : from + (to - 1 - i);
                       f(number, list[number]);
                     }
                   });
}
template <class F>
void for_each_chunk(const Chunks& chunks, const F& f) {
  for_each_chunk(chunks, 0, chunks.list.size(), f);
}

/// Calls f with a value of type double or float.
template <class F>
decltype(auto) with_element_type(bool is_double, const F& f) {
  return is_double ? f(double{}) : f(float{});
}

/// The elements of a loopable tensor; without data they count as 0.
struct Elements {
  const void* data = nullptr;
  bool is_double = false;
};

/// Sum of squares of each slice that has chunks, in fp64; 0 for the others. `tensors` are those the chunks
/// were made of.
std::vector<double> square_sums(const Chunks& chunks, const std::vector<Elements>& tensors);

/// The same for tensors without chunks, added to `sums` where `first_slice` says, with one copy to the host
/// for all.
struct UnchunkedTensor {
  SlicedTensor sliced;
  std::int64_t first_slice;
};
void add_square_sums(const std::vector<UnchunkedTensor>& tensors, std::vector<double>& sums);

}  // namespace stoa::optim
