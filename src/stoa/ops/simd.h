#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

/// How the operators' SIMD is chosen. Kernels are written once with Highway, compiled for every instruction
/// set it knows on this architecture, and picked at run time: the widest that the CPU has, or less where
/// STOA_SIMD says so.
///
/// A kernel file NAME_kernels.cpp works on raw pointers and includes no LibTorch header:
///     #undef HWY_TARGET_INCLUDE
///     #define HWY_TARGET_INCLUDE "stoa/ops/NAME_kernels.cpp"
///     #include "hwy/foreach_target.h"
///     #include "stoa/ops/simd_inl.h"
///     HWY_BEFORE_NAMESPACE();
///     namespace stoa::ops::HWY_NAMESPACE { void name_impl(...) {...} }
///     HWY_AFTER_NAMESPACE();
///     #if HWY_ONCE
///     namespace stoa::ops {
///     HWY_EXPORT(name_impl);
///     void name(...) { STOA_SIMD_DISPATCH(name_impl)(...); }
///     }
///     #endif
#define STOA_SIMD_DISPATCH(function) (::stoa::ops::choose_simd(), HWY_DYNAMIC_DISPATCH(function))

namespace stoa::ops {

/// A bfloat16 number as it lies in memory; c10::BFloat16 without LibTorch.
struct Bfloat16 {
  std::uint16_t bits;
};

/// The type kernels compute in where numbers of type T lie in memory: double for double, else float.
template <class T>
struct MathOf {
  using type = float;
};
template <>
struct MathOf<double> {
  using type = double;
};
template <class T>
using Math = typename MathOf<T>::type;

/// Obeys the environment variable STOA_SIMD the first time it is called; later calls cost one comparison.
/// Throws ConfigError if its value is no level.
void choose_simd();

/// The levels this machine can run, narrowest first, of "baseline", "sse4", "avx2" and "avx512" ("baseline"
/// and "native" on architectures other than x86).
std::vector<std::string> simd_levels();

/// The level in use. Throws ConfigError as choose_simd().
std::string simd_level();

/// From now on no level wider than `level` is used; "auto" lifts the limit. A level wider than what the
/// machine has is no error. For tests and benchmarks: not to be called while an operator runs. Throws
/// ConfigError if `level` is no level.
void limit_simd(std::string_view level);

}  // namespace stoa::ops
