#include "stoa/ops/simd.h"

#include <hwy/highway.h>

#include <algorithm>
#include <cstdlib>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/text.h"

namespace stoa::ops {

namespace {

struct Level {
  const char* name;
  std::int64_t targets;  // Highway's targets up to and including this level
};

// Narrowest first. Highway falls back on what the compiler may use anyway where no other target is allowed.
#if HWY_ARCH_X86
constexpr std::int64_t kUpToSse4 = HWY_SSSE3 | HWY_SSE4;
constexpr std::int64_t kUpToAvx2 = kUpToSse4 | HWY_AVX2;
constexpr Level kLevels[] = {{"baseline", 0},
                             {"sse4", kUpToSse4},
                             {"avx2", kUpToAvx2},
                             {"avx512", kUpToAvx2 | HWY_AVX3 | HWY_AVX3_DL}};
#else
constexpr Level kLevels[] = {{"baseline", 0}, {"native", ~std::int64_t{0}}};
#endif

// The targets this file, and with the same flags every kernel, is compiled for and this CPU has.
std::int64_t usable() {
  return hwy::SupportedTargets() & HWY_TARGETS;
}

std::int64_t targets_of(std::string_view name) {
  if (name == "auto") return ~std::int64_t{0};
  const auto* const level = std::ranges::find(kLevels, name, &Level::name);
  if (level != std::end(kLevels)) return level->targets;
  std::vector<std::string> names = {"auto"};
  for (const auto& known : kLevels) names.emplace_back(known.name);
  throw ConfigError(format("STOA_SIMD: `{}` is no SIMD level; needed is one of {}", name, join(names, ", ")));
}

std::int64_t& allowed() {
  static std::int64_t targets = [] {
    const char* const asked = std::getenv("STOA_SIMD");
    const auto limit = targets_of(asked == nullptr || *asked == '\0' ? "auto" : asked);
    hwy::GetChosenTarget().Update(usable() & limit);
    return limit;
  }();
  return targets;
}

}  // namespace

void choose_simd() {
  allowed();
}

std::vector<std::string> simd_levels() {
  std::vector<std::string> names = {kLevels[0].name};
  for (std::size_t i = 1; i < std::size(kLevels); ++i)
    if (usable() & kLevels[i].targets & ~kLevels[i - 1].targets) names.emplace_back(kLevels[i].name);
  return names;
}

std::string simd_level() {
  std::string name;
  for (std::size_t i = 0; i < std::size(kLevels); ++i)
    if (i == 0 || (usable() & allowed() & kLevels[i].targets & ~kLevels[i - 1].targets))
      name = kLevels[i].name;
  return name;
}

void limit_simd(std::string_view level) {
  const auto limit = targets_of(level);
  allowed() = limit;
  hwy::GetChosenTarget().Update(usable() & limit);
}

}  // namespace stoa::ops
