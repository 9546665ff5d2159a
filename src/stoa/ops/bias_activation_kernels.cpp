#include "stoa/ops/bias_activation_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "stoa/ops/bias_activation_kernels.cpp"
#include "hwy/foreach_target.h"
#include "stoa/ops/activation_inl.h"
#include "stoa/ops/simd_inl.h"

HWY_BEFORE_NAMESPACE();
namespace stoa::ops {
namespace HWY_NAMESPACE {
namespace {

template <class Function, class T>
void forward_rows(const T* x, const Math<T>* bias, T* out, std::int64_t rows, std::int64_t dim) {
  const Tag<Math<T>> d;
  for (std::int64_t r = 0; r < rows; ++r, x += dim, out += dim)
    sweep(d, dim, [&](auto part, std::int64_t i) STOA_STEP {
      auto v = part.load(d, x + i);
      if (bias != nullptr) v = hn::Add(v, part.load(d, bias + i));
      part.store(d, Function::value(d, v), out + i);
    });
}

template <class Function, class T>
void backward_rows(const T* grad, const T* x, const Math<T>* bias, T* grad_x, Math<T>* grad_bias,
                   std::int64_t rows, std::int64_t dim) {
  const Tag<Math<T>> d;
  for (std::int64_t r = 0; r < rows; ++r, grad += dim, x += dim, grad_x += dim)
    sweep(d, dim, [&](auto part, std::int64_t i) STOA_STEP {
      auto v = part.load(d, x + i);
      if (bias != nullptr) v = hn::Add(v, part.load(d, bias + i));
      const auto g = Function::gradient(d, part.load(d, grad + i), v);
      part.store(d, g, grad_x + i);
      if (grad_bias != nullptr) part.store(d, hn::Add(part.load(d, grad_bias + i), g), grad_bias + i);
    });
}

template <class T>
void forward(const T* x, const Math<T>* bias, T* out, std::int64_t rows, std::int64_t dim,
             std::int64_t activation) {
  switch (activation) {
    case 1:
      return forward_rows<GeluTanh>(x, bias, out, rows, dim);
    case 2:
      return forward_rows<GeluErf>(x, bias, out, rows, dim);
    case 3:
      return forward_rows<Relu>(x, bias, out, rows, dim);
    default:
      return forward_rows<Identity>(x, bias, out, rows, dim);
  }
}

template <class T>
void backward(const T* grad, const T* x, const Math<T>* bias, T* grad_x, Math<T>* grad_bias,
              std::int64_t rows, std::int64_t dim, std::int64_t activation) {
  switch (activation) {
    case 1:
      return backward_rows<GeluTanh>(grad, x, bias, grad_x, grad_bias, rows, dim);
    case 2:
      return backward_rows<GeluErf>(grad, x, bias, grad_x, grad_bias, rows, dim);
    case 3:
      return backward_rows<Relu>(grad, x, bias, grad_x, grad_bias, rows, dim);
    default:
      return backward_rows<Identity>(grad, x, bias, grad_x, grad_bias, rows, dim);
  }
}

// HWY_EXPORT takes no templates and no overloads
#define STOA_DEFINE(suffix, T)                                                                          \
  void forward_##suffix(const T* x, const Math<T>* bias, T* out, std::int64_t rows, std::int64_t dim,   \
                        std::int64_t activation) {                                                      \
    forward(x, bias, out, rows, dim, activation);                                                       \
  }                                                                                                     \
  void backward_##suffix(const T* grad, const T* x, const Math<T>* bias, T* grad_x, Math<T>* grad_bias, \
                         std::int64_t rows, std::int64_t dim, std::int64_t activation) {                \
    backward(grad, x, bias, grad_x, grad_bias, rows, dim, activation);                                  \
  }
STOA_DEFINE(f32, float)
STOA_DEFINE(f64, double)
STOA_DEFINE(bf16, Bfloat16)
#undef STOA_DEFINE

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace stoa::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace stoa::ops {

#define STOA_EXPORT(suffix, T)                                                                               \
  HWY_EXPORT(forward_##suffix);                                                                              \
  HWY_EXPORT(backward_##suffix);                                                                             \
  void bias_activation_forward(const T* x, const Math<T>* bias, T* out, std::int64_t rows, std::int64_t dim, \
                               std::int64_t activation) {                                                    \
    STOA_SIMD_DISPATCH(forward_##suffix)(x, bias, out, rows, dim, activation);                               \
  }                                                                                                          \
  void bias_activation_backward(const T* grad, const T* x, const Math<T>* bias, T* grad_x,                   \
                                Math<T>* grad_bias, std::int64_t rows, std::int64_t dim,                     \
                                std::int64_t activation) {                                                   \
    STOA_SIMD_DISPATCH(backward_##suffix)(grad, x, bias, grad_x, grad_bias, rows, dim, activation);          \
  }
STOA_EXPORT(f32, float)
STOA_EXPORT(f64, double)
STOA_EXPORT(bf16, Bfloat16)
#undef STOA_EXPORT

}  // namespace stoa::ops
#endif
