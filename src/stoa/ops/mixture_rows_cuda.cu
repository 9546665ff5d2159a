#include "stoa/ops/mixture_rows_cuda.h"

#include "stoa/ops/cuda_launch.cuh"

namespace stoa::ops::cuda {

namespace {

// One block of threads a row, or a token.

template <class T>
__global__ void gather_kernel(const T* values, const std::int64_t* index, T* out, std::int64_t rows,
                              std::int64_t width) {
  for (std::int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const auto from = index[row];
    for (std::int64_t d = threadIdx.x; d < width; d += blockDim.x)
      out[row * width + d] = from < 0 ? T{} : values[from * width + d];
  }
}

template <class T>
__global__ void combine_kernel(const T* values, const Math<T>* gate, const std::int64_t* source,
                               const std::int64_t* token_start, const std::int64_t* token_rows, T* out,
                               std::int64_t tokens, std::int64_t width) {
  for (std::int64_t token = blockIdx.x; token < tokens; token += gridDim.x) {
    const auto first = token_start[token], end = token_start[token + 1];
    for (std::int64_t d = threadIdx.x; d < width; d += blockDim.x) {
      Math<T> sum = 0;
      for (auto i = first; i < end; ++i) {
        const auto row = token_rows[i];
        const Math<T> weight = gate == nullptr ? Math<T>(1) : gate[source[row]];
        sum += weight * load(values[row * width + d]);
      }
      store(sum, out + token * width + d);
    }
  }
}

template <class T>
__global__ void combine_backward_kernel(const T* grad, const T* values, const Math<T>* gate,
                                        const std::int64_t* source, const std::int64_t* row_token,
                                        T* grad_values, Math<T>* grad_gate, std::int64_t rows,
                                        std::int64_t width) {
  for (std::int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const auto assignment = source[row];  // the same for the whole block, which so reaches block_sum together
    if (assignment < 0) {
      for (std::int64_t d = threadIdx.x; d < width; d += blockDim.x) grad_values[row * width + d] = T{};
      continue;
    }
    const T* const from = grad + row_token[row] * width;
    Math<T> dot = 0;
    for (std::int64_t d = threadIdx.x; d < width; d += blockDim.x) {
      const auto g = load(from[d]);
      dot += g * load(values[row * width + d]);
      store(gate[assignment] * g, grad_values + row * width + d);
    }
    dot = block_sum(dot);
    if (threadIdx.x == 0) grad_gate[assignment] = dot;
  }
}

}  // namespace

template <class T>
int gather_rows(const T* values, const std::int64_t* index, T* out, std::int64_t rows, std::int64_t width,
                void* stream) {
  if (rows == 0 || width == 0) return 0;
  return launch(stream, rows, row_threads(width), &gather_kernel<T>, values, index, out, rows, width);
}

template <class T>
int combine_rows(const T* values, const Math<T>* gate, const std::int64_t* source,
                 const std::int64_t* token_start, const std::int64_t* token_rows, T* out, std::int64_t tokens,
                 std::int64_t width, void* stream) {
  if (tokens == 0 || width == 0) return 0;
  return launch(stream, tokens, row_threads(width), &combine_kernel<T>, values, gate, source, token_start,
                token_rows, out, tokens, width);
}

template <class T>
int combine_rows_backward(const T* grad, const T* values, const Math<T>* gate, const std::int64_t* source,
                          const std::int64_t* row_token, T* grad_values, Math<T>* grad_gate,
                          std::int64_t rows, std::int64_t width, void* stream) {
  if (rows == 0) return 0;  // rows without numbers still have a gate, of gradient 0
  return launch(stream, rows, row_threads(width), &combine_backward_kernel<T>, grad, values, gate, source,
                row_token, grad_values, grad_gate, rows, width);
}

#define STOA_DEFINE(T)                                                                            \
  template int gather_rows(const T*, const std::int64_t*, T*, std::int64_t, std::int64_t, void*); \
  template int combine_rows(const T*, const Math<T>*, const std::int64_t*, const std::int64_t*,   \
                            const std::int64_t*, T*, std::int64_t, std::int64_t, void*);          \
  template int combine_rows_backward(const T*, const T*, const Math<T>*, const std::int64_t*,     \
                                     const std::int64_t*, T*, Math<T>*, std::int64_t, std::int64_t, void*);
STOA_DEFINE(float)
STOA_DEFINE(double)
STOA_DEFINE(Bfloat16)
#undef STOA_DEFINE

}  // namespace stoa::ops::cuda
