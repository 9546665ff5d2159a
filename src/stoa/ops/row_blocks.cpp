#include "stoa/ops/row_blocks.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

namespace stoa::ops {

namespace {

template <class T>
void add_columns(const T* from, std::int64_t blocks, std::int64_t width, T* to, std::int64_t begin,
                 std::int64_t end) {
  for (std::int64_t block = 0; block < blocks; ++block, from += width) {
#pragma omp simd
    for (auto i = begin; i < end; ++i) to[i] += from[i];
  }
}

}  // namespace

at::Tensor add_row_blocks(const at::Tensor& partial) {
  const auto blocks = partial.size(0);
  const auto width = partial.size(1);
  const auto sum = at::zeros({width}, partial.options());
  const auto grain = std::max<std::int64_t>(64, 32768 / std::max<std::int64_t>(1, blocks));
  AT_DISPATCH_FLOATING_TYPES(partial.scalar_type(), "add row blocks", [&] {
    const auto* const from = partial.const_data_ptr<scalar_t>();
    auto* const to = sum.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, width, grain, [&](std::int64_t begin, std::int64_t end) {
      add_columns(from, blocks, width, to, begin, end);
    });
  });
  return sum;
}

}  // namespace stoa::ops
