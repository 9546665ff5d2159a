#pragma once

#include <cstdint>

// The loops of the update rules over plain arrays. Each is one pass over parameter, gradient and state; what
// a step's options, number and clipping come to is in its constants.
namespace stoa::ops {

/// g' = gradient_scale g + coupled_decay w; m = beta1 m + (1 - beta1) g'; v = beta2 v + (1 - beta2) g'^2;
/// w = keep w - step m / (root_scale sqrt(v) + eps).
struct AdamWConstants {
  double gradient_scale = 1, coupled_decay = 0, beta1 = 0.9, beta2 = 0.999, keep = 1;
  double step = 0, root_scale = 1, eps = 0;
};

/// g' = gradient_scale g; m = beta1 m + fresh g'; v = beta2 v + (1 - beta2) g'^2;
/// u = mean_scale m / (root_scale sqrt(v) + eps) + decay w.
struct LambConstants {
  double gradient_scale = 1, beta1 = 0.9, fresh = 0.1, beta2 = 0.999;
  double mean_scale = 1, root_scale = 1, eps = 0, decay = 0;
};

/// g' = gradient_scale g + decay w; b = momentum b + fresh g'; w -= lr b, or lr (g' + momentum b) (Nesterov),
/// or lr g' where momentum is 0.
struct SgdConstants {
  double gradient_scale = 1, decay = 0, lr = 0, momentum = 0, fresh = 1;
  bool nesterov = false;
};

/// |w|^2 and |u|^2 of a part of a parameter.
struct LambSquares {
  double w = 0, u = 0;
};

/// The loops for element type T, float or double, over `size` elements. Arrays may begin anywhere and do not
/// overlap. Sums are taken in fp64, in an order that depends on `size` alone; square_sum of floats is the
/// same, bit for bit, at every SIMD level.
template <class T>
struct OptimizerKernels {
  void (*adamw)(T* w, const T* g, T* m, T* v, std::int64_t size, const AdamWConstants& constants);
  /// LAMB's first pass: updates m and v; u is not kept, as computing it again costs less than storing it.
  LambSquares (*lamb_moments)(const T* w, const T* g, T* m, T* v, std::int64_t size,
                              const LambConstants& constants);
  /// LAMB's second pass: w -= rate u.
  void (*lamb_weights)(T* w, const T* m, const T* v, std::int64_t size, double rate,
                       const LambConstants& constants);
  /// `b` is null where momentum is 0.
  void (*sgd)(T* w, const T* g, T* b, std::int64_t size, const SgdConstants& constants);
  /// a += share (w - a).
  void (*average)(T* a, const T* w, std::int64_t size, double share);
  double (*square_sum)(const T* x, std::int64_t size);
};

/// The kernels of the SIMD level in force (ops/simd.h).
template <class T>
const OptimizerKernels<T>& optimizer_kernels();

/// Plain loops, which the others are tested against.
template <class T>
const OptimizerKernels<T>& optimizer_kernels_reference();

}  // namespace stoa::ops
