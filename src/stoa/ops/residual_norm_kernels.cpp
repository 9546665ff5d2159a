#include "stoa/ops/residual_norm_kernels.h"

#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "stoa/ops/residual_norm_kernels.cpp"
#include "hwy/foreach_target.h"
#include "stoa/ops/simd_inl.h"

HWY_BEFORE_NAMESPACE();
namespace stoa::ops {
namespace HWY_NAMESPACE {
namespace {

template <class X>
using NormTag = hn::ScalableTag<Math<X>>;

// The row's rows_per_factor-th factor, or 1
template <class X, class Y>
Math<X> factor_of(const NormRows<X, Y>& norm, std::int64_t row) {
  return norm.factor == nullptr ? Math<X>(1) : norm.factor[row / norm.rows_per_factor];
}

// Writes the row's sum and returns its mean. What follows reads the sum as it was rounded, as the backward
// pass does.
template <class X, class Y>
HWY_INLINE Math<X> add_row(const NormRows<X, Y>& norm, std::int64_t row) {
  const NormTag<X> d;
  const auto dim = norm.dim;
  const X* const x = norm.x + row * dim;
  const Y* const y = norm.y == nullptr ? nullptr : norm.y + row * dim;
  X* const sum = norm.sum + row * dim;
  const auto factor = hn::Set(d, factor_of(norm, row));
  hn::Vec<NormTag<X>> total[2] = {hn::Zero(d), hn::Zero(d)};
  sweep_in_turns(d, dim, [&](auto part, std::int64_t i, int turn) STOA_STEP {
    auto v = part.load(d, x + i);
    if (y != nullptr) {
      auto branch = part.load(d, y + i);
      if (norm.bias != nullptr) branch = hn::Add(branch, part.load(d, norm.bias + i));
      if (norm.scale != nullptr) branch = hn::Mul(branch, part.load(d, norm.scale + i));
      v = hn::MulAdd(factor, branch, v);
      part.store(d, v, sum + i);
      if constexpr (sizeof(X) < sizeof(Math<X>)) v = part.load(d, sum + i);
    }
    total[turn] = hn::Add(total[turn], v);
  });
  return sum_lanes(d, hn::Add(total[0], total[1])) / static_cast<Math<X>>(dim);
}

template <class X, class Y>
void forward(const NormRows<X, Y>& norm, std::int64_t first, std::int64_t rows) {
  const NormTag<X> d;
  const auto dim = norm.dim;
  for (auto row = first; row < first + rows; ++row) {
    const auto average = add_row(norm, row);
    const X* const v = (norm.y == nullptr ? norm.x : norm.sum) + row * dim;
    const auto mean = hn::Set(d, average);
    hn::Vec<NormTag<X>> squares[2] = {hn::Zero(d), hn::Zero(d)};
    sweep_in_turns(d, dim, [&](auto part, std::int64_t i, int turn) STOA_STEP {
      const auto distance = part.zero_outside(d, hn::Sub(part.load(d, v + i), mean));
      squares[turn] = hn::MulAdd(distance, distance, squares[turn]);
    });
    const auto inverse =
        1 / std::sqrt(sum_lanes(d, hn::Add(squares[0], squares[1])) / static_cast<Math<X>>(dim) + norm.eps);
    const auto rstd = hn::Set(d, inverse);
    Y* const out = norm.normed + row * dim;
    sweep(d, dim, [&](auto part, std::int64_t i) STOA_STEP {
      const auto normal = hn::Mul(hn::Sub(part.load(d, v + i), mean), rstd);
      part.store(d, hn::MulAdd(normal, part.load(d, norm.gamma + i), part.load(d, norm.beta + i)), out + i);
    });
    norm.mean[row] = average;
    norm.rstd[row] = inverse;
  }
}

// Means over the row of g = gamma grad and of g normal, where normal = (v - mean) rstd
template <class M>
struct RowMeans {
  M gradient;
  M projection;
};

template <class X, class Y>
HWY_INLINE RowMeans<Math<X>> row_means(const NormRows<X, Y>& norm, const X* v, const Y* grad,
                                       std::int64_t row) {
  const NormTag<X> d;
  const auto mean = hn::Set(d, norm.mean[row]);
  hn::Vec<NormTag<X>> gradient[2] = {hn::Zero(d), hn::Zero(d)};
  hn::Vec<NormTag<X>> projection[2] = {hn::Zero(d), hn::Zero(d)};
  sweep_in_turns(d, norm.dim, [&](auto part, std::int64_t i, int turn) STOA_STEP {
    const auto g = hn::Mul(part.load(d, grad + i), part.load(d, norm.gamma + i));
    gradient[turn] = hn::Add(gradient[turn], g);
    const auto distance = part.zero_outside(d, hn::Sub(part.load(d, v + i), mean));
    projection[turn] = hn::MulAdd(g, distance, projection[turn]);
  });
  const auto share = 1 / static_cast<Math<X>>(norm.dim);
  return {sum_lanes(d, hn::Add(gradient[0], gradient[1])) * share,
          sum_lanes(d, hn::Add(projection[0], projection[1])) * norm.rstd[row] * share};
}

// grad_v = rstd (g - mean(g) - normal mean(g normal)) + grad_sum; kScaled where y's gradient differs from
// v's.
template <bool kScaled, class X, class Y>
void backward_rows(const NormRows<X, Y>& norm, const NormGradients<X, Y>& to, std::int64_t first,
                   std::int64_t rows) {
  const NormTag<X> d;
  const auto dim = norm.dim;
  for (auto row = first; row < first + rows; ++row) {
    const auto at = row * dim;
    const X* const v = (norm.y == nullptr ? norm.x : norm.sum) + at;
    const Y* const grad = to.grad_normed + at;
    const X* const grad_sum = to.grad_sum == nullptr ? nullptr : to.grad_sum + at;
    const auto means = row_means(norm, v, grad, row);
    const auto gradient = hn::Set(d, means.gradient);
    const auto projection = hn::Set(d, means.projection);
    const auto mean = hn::Set(d, norm.mean[row]);
    const auto rstd = hn::Set(d, norm.rstd[row]);
    const auto factor = hn::Set(d, factor_of(norm, row));
    sweep(d, dim, [&](auto part, std::int64_t i) STOA_STEP {
      const auto add_to = [&](Math<X>* sum, hn::Vec<NormTag<X>> term)
                              STOA_STEP { part.store(d, hn::Add(part.load(d, sum + i), term), sum + i); };
      const auto g = part.load(d, grad + i);
      const auto normal = hn::Mul(hn::Sub(part.load(d, v + i), mean), rstd);
      add_to(to.grad_gamma, hn::Mul(g, normal));
      add_to(to.grad_beta, g);
      const auto centred = hn::Sub(hn::Mul(g, part.load(d, norm.gamma + i)), gradient);
      auto grad_v = hn::Mul(rstd, hn::NegMulAdd(normal, projection, centred));
      if (grad_sum != nullptr) grad_v = hn::Add(grad_v, part.load(d, grad_sum + i));
      part.store(d, grad_v, to.grad_x + at + i);
      auto grad_branch = grad_v;
      if constexpr (kScaled) {
        grad_branch = hn::Mul(factor, grad_v);
        if (to.grad_scale != nullptr) {
          auto branch = part.load(d, norm.y + at + i);
          if (norm.bias != nullptr) branch = hn::Add(branch, part.load(d, norm.bias + i));
          add_to(to.grad_scale, hn::Mul(grad_branch, branch));
        }
        if (norm.scale != nullptr) grad_branch = hn::Mul(grad_branch, part.load(d, norm.scale + i));
        if (to.grad_y != nullptr) part.store(d, grad_branch, to.grad_y + at + i);
      }
      if (to.grad_bias != nullptr) add_to(to.grad_bias, grad_branch);
    });
  }
}

template <class X, class Y>
void backward(const NormRows<X, Y>& norm, const NormGradients<X, Y>& to, std::int64_t first,
              std::int64_t rows) {
  if (to.grad_y != nullptr || norm.scale != nullptr || norm.factor != nullptr)
    backward_rows<true>(norm, to, first, rows);
  else
    backward_rows<false>(norm, to, first, rows);
}

// HWY_EXPORT takes no templates and no overloads
#define STOA_DEFINE(suffix, X, Y)                                                                       \
  void forward_##suffix(const NormRows<X, Y>& norm, std::int64_t first, std::int64_t rows) {            \
    forward(norm, first, rows);                                                                         \
  }                                                                                                     \
  void backward_##suffix(const NormRows<X, Y>& norm, const NormGradients<X, Y>& to, std::int64_t first, \
                         std::int64_t rows) {                                                           \
    backward(norm, to, first, rows);                                                                    \
  }
STOA_DEFINE(f32, float, float)
STOA_DEFINE(f64, double, double)
STOA_DEFINE(bf16, Bfloat16, Bfloat16)
STOA_DEFINE(f32_bf16, float, Bfloat16)
#undef STOA_DEFINE

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace stoa::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace stoa::ops {

#define STOA_EXPORT(suffix, X, Y)                                                                            \
  HWY_EXPORT(forward_##suffix);                                                                              \
  HWY_EXPORT(backward_##suffix);                                                                             \
  void residual_norm_forward(const NormRows<X, Y>& norm, std::int64_t first, std::int64_t rows) {            \
    STOA_SIMD_DISPATCH(forward_##suffix)(norm, first, rows);                                                 \
  }                                                                                                          \
  void residual_norm_backward(const NormRows<X, Y>& norm, const NormGradients<X, Y>& to, std::int64_t first, \
                              std::int64_t rows) {                                                           \
    STOA_SIMD_DISPATCH(backward_##suffix)(norm, to, first, rows);                                            \
  }
STOA_EXPORT(f32, float, float)
STOA_EXPORT(f64, double, double)
STOA_EXPORT(bf16, Bfloat16, Bfloat16)
STOA_EXPORT(f32_bf16, float, Bfloat16)
#undef STOA_EXPORT

}  // namespace stoa::ops
#endif
