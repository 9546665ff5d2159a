// Dropout inside one Highway target, by numbers instead of a generator's state.
#include <hwy/highway.h>

#include "stoa/ops/activation_inl.h"
#include "stoa/ops/attention_kernels.h"

#if defined(STOA_OPS_DROPOUT_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef STOA_OPS_DROPOUT_INL_H
#undef STOA_OPS_DROPOUT_INL_H
#else
#define STOA_OPS_DROPOUT_INL_H
#endif

HWY_BEFORE_NAMESPACE();
namespace stoa::ops {
namespace HWY_NAMESPACE {

/// 32 random bits of a query's seed and a key: MurmurHash3's finaliser on their combination.
template <class D>
HWY_INLINE hn::Vec<D> mixed_bits(D d, hn::Vec<D> query_seed, hn::Vec<D> key) {
  auto x = hn::Add(query_seed, hn::Mul(key, hn::Set(d, kColumnStep)));
  x = hn::Mul(hn::Xor(x, hn::ShiftRight<16>(x)), hn::Set(d, 0x85ebca6bU));
  x = hn::Mul(hn::Xor(x, hn::ShiftRight<13>(x)), hn::Set(d, 0xc2b2ae35U));
  return hn::Xor(x, hn::ShiftRight<16>(x));
}

/// 1 / keep for what stays, 0 for what is dropped; 24 bits decide, which a float compares exactly.
HWY_INLINE Floats kept(Tag<float> d, hn::Vec<hn::RebindToUnsigned<Tag<float>>> bits, float keep) {
  const hn::RebindToSigned<Tag<float>> whole;
  const auto uniform = hn::ConvertTo(d, hn::BitCast(whole, hn::ShiftRight<8>(bits)));
  return hn::IfThenElseZero(hn::Lt(uniform, hn::Set(d, keep * 16777216.0F)), hn::Set(d, 1.0F / keep));
}

}  // namespace HWY_NAMESPACE
}  // namespace stoa::ops
HWY_AFTER_NAMESPACE();

#endif
