#include <cmath>

#include "stoa/ops/optimizer_kernels.h"

namespace stoa::ops {
namespace {

template <class T>
void adamw(T* w, const T* g, T* m, T* v, std::int64_t size, const AdamWConstants& c) {
  const T beta1 = static_cast<T>(c.beta1), rest1 = static_cast<T>(1 - c.beta1);
  const T beta2 = static_cast<T>(c.beta2), rest2 = static_cast<T>(1 - c.beta2);
  const T scale = static_cast<T>(c.gradient_scale), coupled = static_cast<T>(c.coupled_decay);
  const T keep = static_cast<T>(c.keep), step = static_cast<T>(c.step);
  const T root_scale = static_cast<T>(c.root_scale), eps = static_cast<T>(c.eps);
  for (std::int64_t i = 0; i < size; ++i) {
    const T slope = scale * g[i] + coupled * w[i];
    m[i] = beta1 * m[i] + rest1 * slope;
    v[i] = beta2 * v[i] + rest2 * slope * slope;
    w[i] = keep * w[i] - step * m[i] / (std::sqrt(v[i]) * root_scale + eps);
  }
}

template <class T>
T lamb_update(T w, T m, T v, const LambConstants& c) {
  const T mean_scale = static_cast<T>(c.mean_scale), root_scale = static_cast<T>(c.root_scale);
  return m * mean_scale / (std::sqrt(v) * root_scale + static_cast<T>(c.eps)) + static_cast<T>(c.decay) * w;
}

template <class T>
LambSquares lamb_moments(const T* w, const T* g, T* m, T* v, std::int64_t size, const LambConstants& c) {
  const T beta1 = static_cast<T>(c.beta1), fresh = static_cast<T>(c.fresh);
  const T beta2 = static_cast<T>(c.beta2), rest2 = static_cast<T>(1 - c.beta2);
  const T scale = static_cast<T>(c.gradient_scale);
  LambSquares squares;
  for (std::int64_t i = 0; i < size; ++i) {
    const T slope = scale * g[i];
    m[i] = beta1 * m[i] + fresh * slope;
    v[i] = beta2 * v[i] + rest2 * slope * slope;
    const double u = lamb_update(w[i], m[i], v[i], c), x = w[i];
    squares.w += x * x;
    squares.u += u * u;
  }
  return squares;
}

template <class T>
void lamb_weights(T* w, const T* m, const T* v, std::int64_t size, double rate, const LambConstants& c) {
  for (std::int64_t i = 0; i < size; ++i) w[i] -= static_cast<T>(rate) * lamb_update(w[i], m[i], v[i], c);
}

template <class T>
void sgd(T* w, const T* g, T* b, std::int64_t size, const SgdConstants& c) {
  const T scale = static_cast<T>(c.gradient_scale), decay = static_cast<T>(c.decay),
          lr = static_cast<T>(c.lr);
  const T momentum = static_cast<T>(c.momentum), fresh = static_cast<T>(c.fresh);
  for (std::int64_t i = 0; i < size; ++i) {
    const T slope = scale * g[i] + decay * w[i];
    T direction = slope;
    if (b != nullptr) {
      b[i] = momentum * b[i] + fresh * slope;
      direction = c.nesterov ? slope + momentum * b[i] : b[i];
    }
    w[i] -= lr * direction;
  }
}

template <class T>
void average(T* a, const T* w, std::int64_t size, double share) {
  for (std::int64_t i = 0; i < size; ++i) a[i] += static_cast<T>(share) * (w[i] - a[i]);
}

template <class T>
double square_sum(const T* x, std::int64_t size) {
  double sum = 0;
  for (std::int64_t i = 0; i < size; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return sum;
}

}  // namespace

template <class T>
const OptimizerKernels<T>& optimizer_kernels_reference() {
  static constexpr OptimizerKernels<T> kernels = {adamw<T>, lamb_moments<T>, lamb_weights<T>,
                                                  sgd<T>,   average<T>,      square_sum<T>};
  return kernels;
}

template const OptimizerKernels<float>& optimizer_kernels_reference();
template const OptimizerKernels<double>& optimizer_kernels_reference();

}  // namespace stoa::ops
