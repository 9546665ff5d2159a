#include "stoa/ops/optimizer_kernels.h"

#include <cstddef>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "stoa/ops/optimizer_kernels.cpp"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"
#include "stoa/ops/simd_inl.h"

HWY_BEFORE_NAMESPACE();
namespace stoa::ops {
namespace HWY_NAMESPACE {
namespace {

template <class T>
using Tag = hn::ScalableTag<T>;
template <class T>
using One = hn::CappedTag<T, 1>;

/// A constant in every lane.
template <class D>
HWY_INLINE hn::Vec<D> constant(D d, double value) {
  return hn::Set(d, static_cast<hn::TFromD<D>>(value));
}

/// Fetches what the loop comes to kAhead bytes later; the hardware's own fetching starts anew with every
/// page. The address may lie beyond the array, which does no harm.
template <class... T>
HWY_INLINE void fetch_ahead(const T*... places) {
  constexpr std::uintptr_t kAhead = 2048;
  (hwy::Prefetch(reinterpret_cast<const char*>(reinterpret_cast<std::uintptr_t>(places) + kAhead)), ...);
}

/// Runs over all elements, first by whole vectors, then one by one: `loop(tag)` sets constants up and returns
/// what is called with the place of each vector.
template <class T, class Loop>
HWY_INLINE void for_each_vector(std::int64_t size, const Loop& loop) {
  constexpr std::int64_t kLanes = hn::MaxLanes(Tag<T>());
  std::int64_t i = 0;
  for (const auto body = loop(Tag<T>()); i + kLanes <= size; i += kLanes) body(i);
  for (const auto body = loop(One<T>()); i < size; ++i) body(i);
}

/// Sums of squares in kLanes fp64 lanes: element i goes to lane i mod kLanes whatever the length of vectors,
/// and the lanes are added in one order, so that every SIMD level gives the same sum.
template <std::size_t kLanes>
class LaneSums {
 public:
  LaneSums() {
    for (auto& sum : sums_) sum = hn::Zero(D());
  }
  /// Squares of the elements from `place` on, which are a whole vector.
  HWY_INLINE void add(std::size_t place, hn::Vec<Tag<double>> x) {
    auto& sum = sums_[place / hn::MaxLanes(D()) % kVectors];
    sum = hn::MulAdd(x, x, sum);
  }
  HWY_INLINE void add(std::size_t place, hn::Vec<Tag<float>> x) {
#if HWY_TARGET == HWY_SCALAR
    add(place, hn::PromoteTo(D(), x));
#else
    const hn::Half<Tag<float>> half;
    add(place, hn::PromoteTo(D(), hn::LowerHalf(half, x)));
    add(place + hn::MaxLanes(half), hn::PromoteTo(D(), hn::UpperHalf(half, x)));
#endif
  }
  /// Ends the whole vectors; single elements may follow.
  void end_vectors() {
    for (std::size_t k = 0; k < kVectors; ++k) hn::StoreU(sums_[k], D(), lanes_ + k * hn::MaxLanes(D()));
  }
  void add_one(std::int64_t place, double x) {
    const One<double> d;
    double& lane = lanes_[static_cast<std::size_t>(place) % kLanes];
    const auto value = hn::Set(d, x);
    lane = hn::GetLane(hn::MulAdd(value, value, hn::Set(d, lane)));
  }
  double total() {
    for (auto width = kLanes / 2; width > 0; width /= 2)
      for (std::size_t k = 0; k < width; ++k) lanes_[k] += lanes_[k + width];
    return lanes_[0];
  }

 private:
  using D = Tag<double>;
  static_assert(kLanes % hn::MaxLanes(D()) == 0);
  static constexpr std::size_t kVectors = kLanes / hn::MaxLanes(D());
  hn::Vec<D> sums_[kVectors];
  double lanes_[kLanes];
};

/// New first and second moment of a vector of gradients.
template <class D>
struct Moments {
  using V = hn::Vec<D>;
  Moments(D, double beta1, double fresh, double beta2)
      : beta1(constant(D(), beta1)),
        fresh(constant(D(), fresh)),
        beta2(constant(D(), beta2)),
        rest2(constant(D(), 1 - beta2)) {}
  HWY_INLINE V first(V m, V slope) const { return hn::MulAdd(beta1, m, hn::Mul(fresh, slope)); }
  HWY_INLINE V second(V v, V slope) const {
    return hn::MulAdd(beta2, v, hn::Mul(hn::Mul(rest2, slope), slope));
  }
  V beta1, fresh, beta2, rest2;
};

template <class T>
void adamw(T* w, const T* g, T* m, T* v, std::int64_t size, const AdamWConstants& c) {
  for_each_vector<T>(size, [&](auto d) HWY_ATTR {
    const Moments moments(d, c.beta1, 1 - c.beta1, c.beta2);
    const auto scale = constant(d, c.gradient_scale), coupled = constant(d, c.coupled_decay);
    const auto keep = constant(d, c.keep), step = constant(d, c.step);
    const auto root_scale = constant(d, c.root_scale), eps = constant(d, c.eps);
    return [=](std::int64_t i) HWY_ATTR {
      fetch_ahead(w + i, g + i, m + i, v + i);
      const auto weight = hn::LoadU(d, w + i);
      const auto slope = hn::MulAdd(coupled, weight, hn::Mul(scale, hn::LoadU(d, g + i)));
      const auto mean = moments.first(hn::LoadU(d, m + i), slope);
      const auto square = moments.second(hn::LoadU(d, v + i), slope);
      hn::StoreU(mean, d, m + i);
      hn::StoreU(square, d, v + i);
      const auto change = hn::Div(hn::Mul(step, mean), hn::MulAdd(hn::Sqrt(square), root_scale, eps));
      hn::StoreU(hn::MulSub(keep, weight, change), d, w + i);
    };
  });
}

/// LAMB's u.
template <class D>
struct LambUpdate {
  using V = hn::Vec<D>;
  LambUpdate(D, const LambConstants& c)
      : mean_scale(constant(D(), c.mean_scale)),
        root_scale(constant(D(), c.root_scale)),
        eps(constant(D(), c.eps)),
        decay(constant(D(), c.decay)) {}
  HWY_INLINE V operator()(V w, V m, V v) const {
    return hn::MulAdd(decay, w, hn::Div(hn::Mul(m, mean_scale), hn::MulAdd(hn::Sqrt(v), root_scale, eps)));
  }
  V mean_scale, root_scale, eps, decay;
};

template <class T>
LambSquares lamb_moments(const T* w, const T* g, T* m, T* v, std::int64_t size, const LambConstants& c) {
  /// A function of a place: updates the moments there and gives w and u to f.
  const auto loop = [&](auto d) HWY_ATTR {
    const Moments moments(d, c.beta1, c.fresh, c.beta2);
    const LambUpdate update(d, c);
    const auto scale = constant(d, c.gradient_scale);
    return [=](std::int64_t i, const auto& f) HWY_ATTR {
      fetch_ahead(w + i, g + i, m + i, v + i);
      const auto weight = hn::LoadU(d, w + i), slope = hn::Mul(scale, hn::LoadU(d, g + i));
      const auto mean = moments.first(hn::LoadU(d, m + i), slope);
      const auto square = moments.second(hn::LoadU(d, v + i), slope);
      hn::StoreU(mean, d, m + i);
      hn::StoreU(square, d, v + i);
      f(weight, update(weight, mean, square));
    };
  };
  constexpr std::size_t kSumLanes = 8;
  constexpr std::int64_t kLanes = hn::MaxLanes(Tag<T>()), kBlock = HWY_MAX(kLanes, std::int64_t{kSumLanes});
  LaneSums<kSumLanes> w_sums, u_sums;
  std::int64_t i = 0;
  for (const auto body = loop(Tag<T>()); i + kBlock <= size; i += kBlock)
    for (std::int64_t k = 0; k < kBlock; k += kLanes)
      body(i + k, [&](auto weight, auto u) HWY_ATTR {
        w_sums.add(static_cast<std::size_t>(k), weight);
        u_sums.add(static_cast<std::size_t>(k), u);
      });
  w_sums.end_vectors();
  u_sums.end_vectors();
  for (const auto body = loop(One<T>()); i < size; ++i)
    body(i, [&](auto weight, auto u) HWY_ATTR {
      w_sums.add_one(i, hn::GetLane(weight));
      u_sums.add_one(i, hn::GetLane(u));
    });
  return {w_sums.total(), u_sums.total()};
}

template <class T>
void lamb_weights(T* w, const T* m, const T* v, std::int64_t size, double rate, const LambConstants& c) {
  for_each_vector<T>(size, [&](auto d) HWY_ATTR {
    const LambUpdate update(d, c);
    const auto step = constant(d, rate);
    return [=](std::int64_t i) HWY_ATTR {
      fetch_ahead(w + i, m + i, v + i);
      const auto weight = hn::LoadU(d, w + i);
      const auto u = update(weight, hn::LoadU(d, m + i), hn::LoadU(d, v + i));
      hn::StoreU(hn::NegMulAdd(step, u, weight), d, w + i);
    };
  });
}

enum class Momentum { kNone, kHeavyBall, kNesterov };

template <Momentum kind, class T>
HWY_INLINE void sgd_loop(T* w, const T* g, T* b, std::int64_t size, const SgdConstants& c) {
  for_each_vector<T>(size, [&](auto d) HWY_ATTR {
    const auto scale = constant(d, c.gradient_scale), decay = constant(d, c.decay), lr = constant(d, c.lr);
    const auto momentum = constant(d, c.momentum), fresh = constant(d, c.fresh);
    return [=](std::int64_t i) HWY_ATTR {
      fetch_ahead(w + i, g + i);
      const auto weight = hn::LoadU(d, w + i);
      const auto slope = hn::MulAdd(decay, weight, hn::Mul(scale, hn::LoadU(d, g + i)));
      auto direction = slope;
      if constexpr (kind != Momentum::kNone) {
        fetch_ahead(b + i);
        const auto velocity = hn::MulAdd(momentum, hn::LoadU(d, b + i), hn::Mul(fresh, slope));
        hn::StoreU(velocity, d, b + i);
        direction = kind == Momentum::kNesterov ? hn::MulAdd(momentum, velocity, slope) : velocity;
      }
      hn::StoreU(hn::NegMulAdd(lr, direction, weight), d, w + i);
    };
  });
}

template <class T>
void sgd(T* w, const T* g, T* b, std::int64_t size, const SgdConstants& c) {
  if (b == nullptr)
    sgd_loop<Momentum::kNone>(w, g, b, size, c);
  else if (c.nesterov)
    sgd_loop<Momentum::kNesterov>(w, g, b, size, c);
  else
    sgd_loop<Momentum::kHeavyBall>(w, g, b, size, c);
}

template <class T>
void average(T* a, const T* w, std::int64_t size, double share) {
  for_each_vector<T>(size, [=](auto d) HWY_ATTR {
    const auto part = constant(d, share);
    return [=](std::int64_t i) HWY_ATTR {
      const auto mean = hn::LoadU(d, a + i);
      hn::StoreU(hn::MulAdd(part, hn::Sub(hn::LoadU(d, w + i), mean), mean), d, a + i);
    };
  });
}

template <class T>
double square_sum(const T* x, std::int64_t size) {
  constexpr std::int64_t kSumLanes = 32, kLanes = hn::MaxLanes(Tag<T>());
  LaneSums<kSumLanes> sums;
  std::int64_t i = 0;
  for (; i + kSumLanes <= size; i += kSumLanes)
    for (std::int64_t k = 0; k < kSumLanes; k += kLanes)
      sums.add(static_cast<std::size_t>(k), hn::LoadU(Tag<T>(), x + i + k));
  sums.end_vectors();
  for (; i < size; ++i) sums.add_one(i, x[i]);
  return sums.total();
}

template <class T>
constexpr OptimizerKernels<T> kKernels = {adamw<T>, lamb_moments<T>, lamb_weights<T>,
                                          sgd<T>,   average<T>,      square_sum<T>};

const OptimizerKernels<float>& float_kernels() {
  return kKernels<float>;
}
const OptimizerKernels<double>& double_kernels() {
  return kKernels<double>;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace stoa::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace stoa::ops {

HWY_EXPORT(float_kernels);
HWY_EXPORT(double_kernels);

template <>
const OptimizerKernels<float>& optimizer_kernels() {
  return STOA_SIMD_DISPATCH(float_kernels)();
}
template <>
const OptimizerKernels<double>& optimizer_kernels() {
  return STOA_SIMD_DISPATCH(double_kernels)();
}

}  // namespace stoa::ops
#endif
