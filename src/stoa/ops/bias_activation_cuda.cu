#include "stoa/ops/bias_activation_cuda.h"

#include "stoa/ops/cuda_launch.cuh"

namespace stoa::ops::cuda {

namespace {

template <class T>
__global__ void activation_forward_kernel(const T* x, const Math<T>* bias, T* out, std::int64_t rows,
                                          std::int64_t dim, std::int64_t activation) {
  for_each_strip(rows, dim, [&](std::int64_t, std::int64_t i, std::int64_t first, std::int64_t end) {
    const Math<T> add = bias == nullptr ? Math<T>(0) : bias[i];
    for (auto row = first; row < end; ++row)
      store(activation_value(activation, load(x[row * dim + i]) + add), out + row * dim + i);
  });
}

// Also writes the strips' sums of grad_x to partial [strips of rows, dim], unless that is null
template <class T>
__global__ void activation_backward_kernel(const T* grad, const T* x, const Math<T>* bias, T* grad_x,
                                           Math<T>* partial, std::int64_t rows, std::int64_t dim,
                                           std::int64_t activation) {
  for_each_strip(rows, dim, [&](std::int64_t strip, std::int64_t i, std::int64_t first, std::int64_t end) {
    const Math<T> add = bias == nullptr ? Math<T>(0) : bias[i];
    Math<T> sum = 0;
    for (auto row = first; row < end; ++row) {
      const auto at = row * dim + i;
      const auto g = activation_gradient(activation, load(grad[at]), load(x[at]) + add);
      store(g, grad_x + at);
      sum += g;
    }
    if (partial != nullptr) partial[strip * dim + i] = sum;
  });
}

}  // namespace

template <class T>
int bias_activation_forward(const T* x, const Math<T>* bias, T* out, std::int64_t rows, std::int64_t dim,
                            std::int64_t activation, void* stream) {
  if (rows == 0 || dim == 0) return 0;
  return launch(stream, strips(rows, dim), kStripThreads, &activation_forward_kernel<T>, x, bias, out, rows,
                dim, activation);
}

std::int64_t bias_activation_scratch(std::int64_t rows, std::int64_t dim) {
  return divide_up(rows, kStripRows) * dim;
}

template <class T>
int bias_activation_backward(const T* grad, const T* x, const Math<T>* bias, T* grad_x, Math<T>* grad_bias,
                             std::int64_t rows, std::int64_t dim, std::int64_t activation, Math<T>* scratch,
                             void* stream) {
  if (rows == 0 || dim == 0) return 0;
  auto* const partial = grad_bias == nullptr ? nullptr : scratch;
  const int status = launch(stream, strips(rows, dim), kStripThreads, &activation_backward_kernel<T>, grad, x,
                            bias, grad_x, partial, rows, dim, activation);
  if (status != 0 || grad_bias == nullptr) return status;
  return add_strips<Math<T>>(partial, rows, dim, dim, grad_bias, stream);
}

#define STOA_DEFINE(T)                                                                                  \
  template int bias_activation_forward(const T*, const Math<T>*, T*, std::int64_t, std::int64_t,        \
                                       std::int64_t, void*);                                            \
  template int bias_activation_backward(const T*, const T*, const Math<T>*, T*, Math<T>*, std::int64_t, \
                                        std::int64_t, std::int64_t, Math<T>*, void*);
STOA_DEFINE(float)
STOA_DEFINE(double)
STOA_DEFINE(Bfloat16)
#undef STOA_DEFINE

}  // namespace stoa::ops::cuda
