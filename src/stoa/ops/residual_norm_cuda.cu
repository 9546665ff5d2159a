#include "stoa/ops/residual_norm_cuda.h"

#include "stoa/ops/cuda_launch.cuh"

namespace stoa::ops::cuda {

namespace {

constexpr int kSums = 4;  // gamma, beta, bias, scale

// One block of threads a row
template <class X, class Y>
__global__ void norm_forward_kernel(const NormRows<X, Y> norm, std::int64_t rows) {
  using M = Math<X>;
  const auto dim = norm.dim;
  for (std::int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    M sum = 0;
    for (std::int64_t i = threadIdx.x; i < dim; i += blockDim.x) sum += norm_sum(norm, row, i);
    const M mean = block_sum(sum) / static_cast<M>(dim);
    M squares = 0;
    for (std::int64_t i = threadIdx.x; i < dim; i += blockDim.x) {
      const M distance = normed_value(norm, row, i) - mean;
      squares += distance * distance;
    }
    const M rstd = M(1) / std::sqrt(block_sum(squares) / static_cast<M>(dim) + norm.eps);
    for (std::int64_t i = threadIdx.x; i < dim; i += blockDim.x)
      store((normed_value(norm, row, i) - mean) * rstd * norm.gamma[i] + norm.beta[i],
            norm.normed + row * dim + i);
    if (threadIdx.x == 0) {
      norm.mean[row] = mean;
      norm.rstd[row] = rstd;
    }
  }
}

// One block of threads a row: means [rows, 2] of g = gamma grad and of g normal
template <class X, class Y>
__global__ void norm_means_kernel(const NormRows<X, Y> norm, const Y* grad, std::int64_t rows,
                                  Math<X>* means) {
  using M = Math<X>;
  const auto dim = norm.dim;
  for (std::int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    M gradient = 0, projection = 0;
    for (std::int64_t i = threadIdx.x; i < dim; i += blockDim.x) {
      const M g = load(grad[row * dim + i]) * norm.gamma[i];
      gradient += g;
      projection += g * (normed_value(norm, row, i) - norm.mean[row]);
    }
    gradient = block_sum(gradient);
    projection = block_sum(projection);
    if (threadIdx.x == 0) {
      means[2 * row] = gradient / static_cast<M>(dim);
      means[2 * row + 1] = projection * norm.rstd[row] / static_cast<M>(dim);
    }
  }
}

// The rows' gradients, and the sums of each strip: partial [strips of rows, kSums, dim]
template <class X, class Y>
__global__ void norm_gradient_kernel(const NormRows<X, Y> norm, const NormGradients<X, Y> to,
                                     std::int64_t rows, const Math<X>* means, Math<X>* partial) {
  const auto dim = norm.dim;
  for_each_strip(rows, dim, [&](std::int64_t strip, std::int64_t i, std::int64_t first, std::int64_t end) {
    NormTerms<Math<X>> sums{0, 0, 0, 0};
    for (auto row = first; row < end; ++row) {
      const auto terms = norm_gradient(norm, to, row, i, means[2 * row], means[2 * row + 1]);
      sums.gamma += terms.gamma;
      sums.beta += terms.beta;
      sums.bias += terms.bias;
      sums.scale += terms.scale;
    }
    auto* const place = partial + strip * kSums * dim + i;
    place[0] = sums.gamma;
    place[dim] = sums.beta;
    if (to.grad_bias != nullptr) place[2 * dim] = sums.bias;
    if (to.grad_scale != nullptr) place[3 * dim] = sums.scale;
  });
}

}  // namespace

template <class X, class Y>
int residual_norm_forward(const NormRows<X, Y>& norm, std::int64_t rows, void* stream) {
  if (rows == 0 || norm.dim == 0) return 0;
  return launch(stream, rows, row_threads(norm.dim), &norm_forward_kernel<X, Y>, norm, rows);
}

std::int64_t residual_norm_scratch(std::int64_t rows, std::int64_t dim) {
  return 2 * rows + divide_up(rows, kStripRows) * kSums * dim;
}

template <class X, class Y>
int residual_norm_backward(const NormRows<X, Y>& norm, const NormGradients<X, Y>& gradients,
                           std::int64_t rows, Math<X>* scratch, void* stream) {
  const auto dim = norm.dim;
  if (rows == 0 || dim == 0) return 0;
  auto* const means = scratch;
  auto* const partial = scratch + 2 * rows;
  int status = launch(stream, rows, row_threads(dim), &norm_means_kernel<X, Y>, norm, gradients.grad_normed,
                      rows, means);
  if (status == 0)
    status = launch(stream, strips(rows, dim), kStripThreads, &norm_gradient_kernel<X, Y>, norm, gradients,
                    rows, means, partial);
  Math<X>* const sums[kSums] = {gradients.grad_gamma, gradients.grad_beta, gradients.grad_bias,
                                gradients.grad_scale};
  for (int k = 0; k < kSums && status == 0; ++k)
    if (sums[k] != nullptr) status = add_strips(partial + k * dim, rows, kSums * dim, dim, sums[k], stream);
  return status;
}

#define STOA_DEFINE(X, Y)                                                                              \
  template int residual_norm_forward(const NormRows<X, Y>&, std::int64_t, void*);                      \
  template int residual_norm_backward(const NormRows<X, Y>&, const NormGradients<X, Y>&, std::int64_t, \
                                      Math<X>*, void*);
STOA_DEFINE(float, float)
STOA_DEFINE(double, double)
STOA_DEFINE(Bfloat16, Bfloat16)
STOA_DEFINE(float, Bfloat16)
#undef STOA_DEFINE

}  // namespace stoa::ops::cuda
