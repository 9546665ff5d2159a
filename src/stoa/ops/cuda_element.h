#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "stoa/ops/optimizer_kernels.h"
#include "stoa/ops/residual_norm_kernels.h"
#include "stoa/ops/simd.h"

// What the CUDA kernels do with one element, compiled for a GPU by nvcc and for the CPU by any compiler,
// where the tests hold it to the CPU kernels.
#ifdef __CUDACC__
#define STOA_ELEMENT __host__ __device__ inline
#else
#define STOA_ELEMENT inline
#endif

namespace stoa::ops::cuda {

STOA_ELEMENT float load(float x) {
  return x;
}
STOA_ELEMENT double load(double x) {
  return x;
}
STOA_ELEMENT float load(Bfloat16 x) {
  const auto bits = static_cast<std::uint32_t>(x.bits) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

STOA_ELEMENT void store(float x, float* to) {
  *to = x;
}
STOA_ELEMENT void store(double x, double* to) {
  *to = x;
}
/// Rounds to nearest, ties to even, and keeps NaN a NaN.
STOA_ELEMENT void store(float x, Bfloat16* to) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const bool nan = (bits & 0x7fffffffU) > 0x7f800000U;
  to->bits = static_cast<std::uint16_t>((nan ? bits | 0x400000U : bits + 0x7fffU + (bits >> 16 & 1U)) >> 16);
}

/// f(x), for the functions of ops::Activation; those of activation_inl.h.
template <class M>
STOA_ELEMENT M activation_value(std::int64_t f, M x) {
  constexpr M kLinear = M(1.5957691216057308), kCubic = M(0.044715 * 1.5957691216057308);
  switch (f) {
    case 1:
      return x / (M(1) + std::exp(-x * (kLinear + kCubic * x * x)));
    case 2:
      return x * (M(0.5) * std::erfc(x * M(-0.70710678118654752)));
    case 3:
      return x < M(0) ? M(0) : x;
    default:
      return x;
  }
}

/// The derivative of GELU's tanh form: with s = sigmoid(u), s + x s (1 - s) u'.
template <class M>
STOA_ELEMENT M gelu_tanh_slope(M x) {
  constexpr M kLinear = M(1.5957691216057308), kCubic = M(0.044715 * 1.5957691216057308);
  // beyond 10 the derivative is 0 or 1 to the last bit, and x^2 may overflow
  const M near = x < M(-10) ? M(-10) : x > M(10) ? M(10) : x;
  const M square = near * near;
  const M e = std::exp(-near * (kLinear + kCubic * square));
  const M sigmoid = M(1) / (M(1) + e);
  const M bend = near * (kLinear + 3 * kCubic * square) * (e * sigmoid);
  return bend * sigmoid + sigmoid + (x - x);  // x - x is 0, or NaN for what is not finite
}

/// grad f'(x).
template <class M>
STOA_ELEMENT M activation_gradient(std::int64_t f, M grad, M x) {
  constexpr M kDensity = M(0.3989422804014327);  // 1 / sqrt(2 pi)
  switch (f) {
    case 1:
      return grad * gelu_tanh_slope(x);
    case 2:
      return grad *
             (x * kDensity * std::exp(M(-0.5) * x * x) + M(0.5) * std::erfc(x * M(-0.70710678118654752)));
    case 3:
      return x <= M(0) ? M(0) : grad;
    default:
      return grad;
  }
}

template <class X, class Y>
STOA_ELEMENT Math<X> norm_factor(const NormRows<X, Y>& norm, std::int64_t row) {
  return norm.factor == nullptr ? Math<X>(1) : norm.factor[row / norm.rows_per_factor];
}

/// y + bias, without LayerScale and factor.
template <class X, class Y>
STOA_ELEMENT Math<X> norm_branch(const NormRows<X, Y>& norm, std::int64_t row, std::int64_t i) {
  Math<X> branch = load(norm.y[row * norm.dim + i]);
  if (norm.bias != nullptr) branch += norm.bias[i];
  return branch;
}

/// Element i of a row of what is normed; writes the sum where there is one, and returns it as rounded.
template <class X, class Y>
STOA_ELEMENT Math<X> norm_sum(const NormRows<X, Y>& norm, std::int64_t row, std::int64_t i) {
  const auto at = row * norm.dim + i;
  if (norm.y == nullptr) return load(norm.x[at]);
  auto branch = norm_branch(norm, row, i);
  if (norm.scale != nullptr) branch *= norm.scale[i];
  store(norm_factor(norm, row) * branch + load(norm.x[at]), norm.sum + at);
  return load(norm.sum[at]);
}

/// The same element once the sums are written.
template <class X, class Y>
STOA_ELEMENT Math<X> normed_value(const NormRows<X, Y>& norm, std::int64_t row, std::int64_t i) {
  return load((norm.y == nullptr ? norm.x : norm.sum)[row * norm.dim + i]);
}

/// What one element of the backward pass adds to the sums over rows.
template <class M>
struct NormTerms {
  M gamma, beta, bias, scale;
};

/// Writes grad_x and grad_y of one element; `gradient` and `projection` are its row's means of g = gamma grad
/// and of g normal, with normal = (v - mean) rstd.
template <class X, class Y>
STOA_ELEMENT NormTerms<Math<X>> norm_gradient(const NormRows<X, Y>& norm, const NormGradients<X, Y>& to,
                                              std::int64_t row, std::int64_t i, Math<X> gradient,
                                              Math<X> projection) {
  const auto at = row * norm.dim + i;
  const Math<X> g = load(to.grad_normed[at]);
  const auto normal = (normed_value(norm, row, i) - norm.mean[row]) * norm.rstd[row];
  auto grad_v = norm.rstd[row] * (g * norm.gamma[i] - gradient - normal * projection);
  if (to.grad_sum != nullptr) grad_v += load(to.grad_sum[at]);
  store(grad_v, to.grad_x + at);
  NormTerms<Math<X>> terms{g * normal, g, 0, 0};
  terms.bias = norm_factor(norm, row) * grad_v;
  if (to.grad_scale != nullptr) terms.scale = terms.bias * norm_branch(norm, row, i);
  if (norm.scale != nullptr) terms.bias *= norm.scale[i];
  if (to.grad_y != nullptr) store(terms.bias, to.grad_y + at);
  return terms;
}

/// optimizer_kernels.h's rules on one element, in T, float or double.
template <class T>
STOA_ELEMENT void adamw_element(T& w, T g, T& m, T& v, const AdamWConstants& c) {
  const T slope = T(c.gradient_scale) * g + T(c.coupled_decay) * w;
  m = T(c.beta1) * m + T(1 - c.beta1) * slope;
  v = T(c.beta2) * v + T(1 - c.beta2) * slope * slope;
  w = T(c.keep) * w - T(c.step) * m / (std::sqrt(v) * T(c.root_scale) + T(c.eps));
}

template <class T>
STOA_ELEMENT T lamb_update(T w, T m, T v, const LambConstants& c) {
  return m * T(c.mean_scale) / (std::sqrt(v) * T(c.root_scale) + T(c.eps)) + T(c.decay) * w;
}

/// Updates the moments and returns the element's squares.
template <class T>
STOA_ELEMENT LambSquares lamb_moments_element(T w, T g, T& m, T& v, const LambConstants& c) {
  const T slope = T(c.gradient_scale) * g;
  m = T(c.beta1) * m + T(c.fresh) * slope;
  v = T(c.beta2) * v + T(1 - c.beta2) * slope * slope;
  const double x = w, u = lamb_update(w, m, v, c);
  return {x * x, u * u};
}

template <class T>
STOA_ELEMENT void lamb_weights_element(T& w, T m, T v, double rate, const LambConstants& c) {
  w -= T(rate) * lamb_update(w, m, v, c);
}

/// `b` is null where momentum is 0.
template <class T>
STOA_ELEMENT void sgd_element(T& w, T g, T* b, const SgdConstants& c) {
  const T slope = T(c.gradient_scale) * g + T(c.decay) * w;
  T direction = slope;
  if (b != nullptr) {
    *b = T(c.momentum) * *b + T(c.fresh) * slope;
    direction = c.nesterov ? slope + T(c.momentum) * *b : *b;
  }
  w -= T(c.lr) * direction;
}

}  // namespace stoa::ops::cuda
