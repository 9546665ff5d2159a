// What kernels share inside one Highway target: rows of float, double or bfloat16 in memory, arithmetic in
// float or double. Included once a target, between foreach_target.h and the kernels (see simd.h).
#include <hwy/highway.h>

#include <cstdint>
#include <cstring>

#include "stoa/ops/simd.h"

// highway.h toggles this macro with each target, so the guard opens once for each
#if defined(STOA_OPS_SIMD_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef STOA_OPS_SIMD_INL_H
#undef STOA_OPS_SIMD_INL_H
#else
#define STOA_OPS_SIMD_INL_H
#endif

HWY_BEFORE_NAMESPACE();
namespace stoa::ops {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// Lanes(d) numbers from any address.
template <class D, class T>
HWY_INLINE hn::Vec<D> load(D d, const T* HWY_RESTRICT from) {
  return hn::LoadU(d, from);
}
template <class D>
HWY_INLINE hn::Vec<D> load(D d, const Bfloat16* HWY_RESTRICT from) {
  const hn::Rebind<std::uint16_t, D> half;
  const hn::RebindToUnsigned<D> whole;
  const auto bits = hn::LoadU(half, reinterpret_cast<const std::uint16_t*>(from));
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(whole, bits)));
}

/// Bits whose upper halves are the numbers rounded to bfloat16: to nearest, ties to even, NaN stays NaN.
template <class D>
HWY_INLINE hn::Vec<hn::RebindToUnsigned<D>> round_to_bfloat16(D d, hn::Vec<D> v) {
  const hn::RebindToUnsigned<D> whole;
  const auto bits = hn::BitCast(whole, v);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(whole, 1));
  const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(whole, 0x7fff)));
  const auto finite =
      hn::IfThenElse(hn::Eq(v, v), hn::BitCast(d, rounded), hn::BitCast(d, hn::Set(whole, 0x7fc00000)));
  return hn::BitCast(whole, finite);
}

/// Lanes(d) numbers to any address; bfloat16 rounds as above.
template <class D, class T>
HWY_INLINE void store(D d, hn::Vec<D> v, T* HWY_RESTRICT to) {
  hn::StoreU(v, d, to);
}
template <class D>
HWY_INLINE void store(D d, hn::Vec<D> v, Bfloat16* HWY_RESTRICT to) {
  const hn::Rebind<std::uint16_t, D> half;
  const hn::RebindToSigned<D> sign;
  const auto upper = hn::BitCast(sign, hn::ShiftRight<16>(round_to_bfloat16(d, v)));
  hn::StoreU(hn::DemoteTo(half, upper), half, reinterpret_cast<std::uint16_t*>(to));
}

/// The first `count` (below Lanes(d)) numbers; the other lanes are 0. Touches no memory beyond them.
template <class D, class T>
HWY_INLINE hn::Vec<D> load_some(D d, const T* HWY_RESTRICT from, std::size_t count) {
  HWY_ALIGN T buffer[HWY_MAX_BYTES / sizeof(hn::TFromD<D>)] = {};
  std::memcpy(buffer, from, count * sizeof(T));
  return load(d, buffer);
}
template <class D, class T>
HWY_INLINE void store_some(D d, hn::Vec<D> v, T* HWY_RESTRICT to, std::size_t count) {
  HWY_ALIGN T buffer[HWY_MAX_BYTES / sizeof(hn::TFromD<D>)];
  store(d, v, buffer);
  std::memcpy(to, buffer, count * sizeof(T));
}

/// A whole vector of a row.
struct Whole {
  template <class D, class T>
  HWY_INLINE hn::Vec<D> load(D d, const T* HWY_RESTRICT from) const {
    return HWY_NAMESPACE::load(d, from);
  }
  template <class D, class T>
  HWY_INLINE void store(D d, hn::Vec<D> v, T* HWY_RESTRICT to) const {
    HWY_NAMESPACE::store(d, v, to);
  }
  template <class D>
  HWY_INLINE hn::Vec<D> zero_outside(D, hn::Vec<D> v) const {
    return v;
  }
};

/// What is left of a row behind its last whole vector.
struct Rest {
  std::size_t count;

  template <class D, class T>
  HWY_INLINE hn::Vec<D> load(D d, const T* HWY_RESTRICT from) const {
    return load_some(d, from, count);
  }
  template <class D, class T>
  HWY_INLINE void store(D d, hn::Vec<D> v, T* HWY_RESTRICT to) const {
    store_some(d, v, to, count);
  }
  template <class D>
  HWY_INLINE hn::Vec<D> zero_outside(D d, hn::Vec<D> v) const {
    return hn::IfThenElseZero(hn::FirstN(d, count), v);
  }
};

/// What stands between a lambda's parameters and its body for the functions below.
#define STOA_STEP HWY_ATTR __attribute__((always_inline))

/// Calls step(Whole or Rest, place) for all of a row of `size` numbers.
template <class D, class Step>
HWY_INLINE void sweep(D d, std::int64_t size, const Step& step) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t place = 0;
  for (; place + lanes <= size; place += lanes) step(Whole(), place);
  if (place < size) step(Rest{static_cast<std::size_t>(size - place)}, place);
}

/// Calls step(Whole or Rest, place, turn) likewise, with turns 0 and 1 by turns: sums kept apart by turn do
/// not wait for one another.
template <class D, class Step>
HWY_INLINE void sweep_in_turns(D d, std::int64_t size, const Step& step) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t place = 0;
  for (; place + 2 * lanes <= size; place += 2 * lanes) {
    step(Whole(), place, 0);
    step(Whole(), place + lanes, 1);
  }
  if (place + lanes <= size) {
    step(Whole(), place, 0);
    place += lanes;
  }
  if (place < size) step(Rest{static_cast<std::size_t>(size - place)}, place, 1);
}

template <class D>
HWY_INLINE hn::TFromD<D> sum_lanes(D d, hn::Vec<D> v) {
  return hn::GetLane(hn::SumOfLanes(d, v));
}

}  // namespace HWY_NAMESPACE
}  // namespace stoa::ops
HWY_AFTER_NAMESPACE();

#endif
