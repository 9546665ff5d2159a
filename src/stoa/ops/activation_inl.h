// Elementwise functions inside one Highway target: exp, the normal distribution, and the activations with
// their derivatives. Non-finite inputs give what ATen gives: NaN for NaN, and infinities where the formula
// has them.
#include <hwy/highway.h>

#include <cmath>

#include "stoa/ops/simd_inl.h"

#if defined(STOA_OPS_ACTIVATION_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef STOA_OPS_ACTIVATION_INL_H
#undef STOA_OPS_ACTIVATION_INL_H
#else
#define STOA_OPS_ACTIVATION_INL_H
#endif

HWY_BEFORE_NAMESPACE();
namespace stoa::ops {
namespace HWY_NAMESPACE {

template <class T>
using Tag = hn::ScalableTag<T>;
using Floats = hn::Vec<Tag<float>>;
using Doubles = hn::Vec<Tag<double>>;

/// A polynomial, lowest coefficient first, by Horner's rule.
template <std::size_t kCount>
HWY_INLINE Floats polynomial(Tag<float> d, Floats x, const float (&coefficients)[kCount]) {
  auto sum = hn::Set(d, coefficients[kCount - 1]);
  for (std::size_t i = kCount - 1; i > 0; --i) sum = hn::MulAdd(sum, x, hn::Set(d, coefficients[i - 1]));
  return sum;
}

/// Calls `function` on each lane: for double, where speed matters less than the last bits.
template <class Function>
HWY_INLINE Doubles each_lane(Tag<double> d, Doubles x, const Function& function) {
  HWY_ALIGN double lanes[hn::MaxLanes(d)];
  hn::Store(x, d, lanes);
  for (auto& lane : lanes) lane = function(lane);
  return hn::Load(d, lanes);
}

/// e^x = 2^n e^r with |r| <= ln(2)/2, relative error 2e-7; 0 below -87.7, infinite above 88.4. NaN gives any
/// number.
HWY_INLINE Floats exp(Tag<float> d, Floats x) {
  // adding 1.5 * 2^23 rounds to an integer and leaves it in the lowest bits; 127 is the bias of float's
  // exponent
  const auto shift = hn::Set(d, 12582912.0F + 127.0F);
  const auto near = hn::Min(hn::Max(x, hn::Set(d, -88.0F)), hn::Set(d, 88.8F));
  const auto shifted = hn::MulAdd(near, hn::Set(d, 1.44269504F), shift);
  const auto n = hn::Sub(shifted, shift);
  // ln(2) in two parts, so that the product with n is exact
  const auto r =
      hn::NegMulAdd(n, hn::Set(d, -2.12194440e-4F), hn::NegMulAdd(n, hn::Set(d, 0.693359375F), near));
  static constexpr float kTail[] = {0.49999994F, 0.16666520F, 0.041668393F, 0.0083687808F, 0.0013814466F};
  const auto fraction = hn::MulAdd(hn::Mul(r, r), polynomial(d, r, kTail), hn::Add(r, hn::Set(d, 1.0F)));
  const hn::RebindToSigned<Tag<float>> bits;
  return hn::Mul(fraction, hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(bits, shifted))));
}
HWY_INLINE Doubles exp(Tag<double> d, Doubles x) {
  return each_lane(d, x, [](double v) { return std::exp(v); });
}

/// exp(x) that keeps a NaN.
HWY_INLINE Floats exp_or_nan(Tag<float> d, Floats x) {
  return hn::IfThenElse(hn::Eq(x, x), exp(d, x), x);
}

/// The standard normal distribution: P(X <= x), and the density times sqrt(2 pi).
template <class V>
struct Normal {
  V below;
  V density;
};

/// P(X > t) = e^(-t^2/2) Q(1 / (1 + 0.27 t)) for t >= 0, the form of Abramowitz & Stegun 7.1.26, with a
/// polynomial of degree 9 fitted to a relative error of 3e-8. Relative error of `below` 5e-7 for x > -3,
/// growing with x^2/2 to 3e-6.
HWY_INLINE Normal<Floats> normal(Tag<float> d, Floats x) {
  static constexpr float kQ[] = {0.107720658F,   0.107542872F, 0.101810604F, 0.0720496401F, 0.107825555F,
                                 -0.0692106485F, 0.169786051F, -0.12648581F, 0.0289610866F};
  const auto one = hn::Set(d, 1.0F);
  const auto t = hn::Abs(x);
  const auto w = hn::Div(one, hn::MulAdd(t, hn::Set(d, 0.27F), one));
  const auto density = exp(d, hn::Mul(hn::Mul(x, x), hn::Set(d, -0.5F)));
  const auto tail = hn::Mul(hn::Mul(w, polynomial(d, w, kQ)), density);
  return {hn::IfThenElse(hn::Lt(x, hn::Zero(d)), tail, hn::Sub(one, tail)), density};
}
HWY_INLINE Normal<Doubles> normal(Tag<double> d, Doubles x) {
  return {each_lane(d, x, [](double v) { return 0.5 * std::erfc(v * -0.70710678118654752); }),
          each_lane(d, x, [](double v) { return std::exp(-0.5 * v * v); })};
}

struct Identity {
  template <class D, class V>
  static HWY_INLINE V value(D, V x) {
    return x;
  }
  template <class D, class V>
  static HWY_INLINE V gradient(D, V grad, V) {
    return grad;
  }
};

struct Relu {
  template <class D, class V>
  static HWY_INLINE V value(D d, V x) {
    return hn::IfThenElse(hn::Lt(x, hn::Zero(d)), hn::Zero(d), x);
  }
  template <class D, class V>
  static HWY_INLINE V gradient(D d, V grad, V x) {
    return hn::IfThenElse(hn::Le(x, hn::Zero(d)), hn::Zero(d), grad);
  }
};

/// 0.5 x (1 + tanh(u)) = x / (1 + e^(-2u)) with u = sqrt(2/pi) (x + 0.044715 x^3): one exp, and no
/// cancellation.
struct GeluTanh {
  static constexpr double kLinear = 1.5957691216057308;  // 2 sqrt(2/pi)
  static constexpr double kCubic = 0.044715 * kLinear;

  template <class D, class V>
  static HWY_INLINE V value(D d, V x) {
    using T = hn::TFromD<D>;
    const auto slope =
        hn::MulAdd(hn::Mul(x, x), hn::Set(d, static_cast<T>(-kCubic)), hn::Set(d, static_cast<T>(-kLinear)));
    return hn::Div(x, hn::Add(hn::Set(d, T(1)), exp(d, hn::Mul(x, slope))));
  }
  template <class D, class V>
  static HWY_INLINE V gradient(D d, V grad, V x) {
    using T = hn::TFromD<D>;
    // beyond 10 the derivative is 0 or 1 to the last bit, and x^2 may overflow
    const auto near = hn::Min(hn::Max(x, hn::Set(d, T(-10))), hn::Set(d, T(10)));
    const auto square = hn::Mul(near, near);
    const auto slope =
        hn::MulAdd(square, hn::Set(d, static_cast<T>(-kCubic)), hn::Set(d, static_cast<T>(-kLinear)));
    const auto e = exp(d, hn::Mul(near, slope));
    const auto sigmoid = hn::Div(hn::Set(d, T(1)), hn::Add(hn::Set(d, T(1)), e));
    const auto inner =
        hn::MulAdd(square, hn::Set(d, static_cast<T>(3 * kCubic)), hn::Set(d, static_cast<T>(kLinear)));
    const auto bend = hn::Mul(hn::Mul(near, inner), hn::Mul(e, sigmoid));
    const auto derivative = hn::MulAdd(bend, sigmoid, sigmoid);
    return hn::Mul(grad, hn::Add(derivative, hn::Sub(x, x)));  // x - x is 0, or NaN for what is not finite
  }
};

/// x P(X <= x) for a standard normal X
struct GeluErf {
  static constexpr double kDensity = 0.3989422804014327;  // 1 / sqrt(2 pi)

  template <class D, class V>
  static HWY_INLINE V value(D d, V x) {
    return hn::Mul(x, normal(d, x).below);
  }
  template <class D, class V>
  static HWY_INLINE V gradient(D d, V grad, V x) {
    const auto p = normal(d, x);
    const auto scaled = hn::Mul(x, hn::Set(d, static_cast<hn::TFromD<D>>(kDensity)));
    return hn::Mul(grad, hn::MulAdd(scaled, p.density, p.below));
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace stoa::ops
HWY_AFTER_NAMESPACE();

#endif
