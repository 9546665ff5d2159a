#include "stoa/base/random.h"

#include <cmath>
#include <numbers>
#include <numeric>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"

namespace stoa {

namespace {

constexpr std::uint64_t kGolden = 0x9e3779b97f4a7c15u;

// SplitMix64's output function (Steele, Lea, Flood 2014, with Stafford's constants).
std::uint64_t scramble(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// Logarithm of a Gamma(shape, 1) number: for small shapes the number itself underflows.
double log_gamma_number(RandomStream& random, double shape) {
  if (!(shape > 0) || !std::isfinite(shape))
    throw Error(format("a gamma or beta distribution has shape {}; a positive number is needed", shape));
  if (shape < 1) {
    const double boost = std::log(1 - random.uniform()) / shape;
    return log_gamma_number(random, shape + 1) + boost;
  }
  const double d = shape - 1.0 / 3, c = 1 / std::sqrt(9 * d);
  while (true) {
    const double x = random.normal();
    const double root = 1 + c * x;
    if (root <= 0) continue;
    const double log_v = 3 * std::log(root);
    const double log_u = std::log(1 - random.uniform());
    if (log_u < 0.5 * x * x + d * (1 - std::exp(log_v) + log_v)) return std::log(d) + log_v;
  }
}

}  // namespace

std::uint64_t mix_seed(std::initializer_list<std::uint64_t> parts) {
  constexpr std::uint64_t kStart =
      0x243f6a8885a308d3u;  // digits of pi: far from the small numbers that parts are
  std::uint64_t seed = scramble(kStart + parts.size());
  for (const std::uint64_t part : parts) seed = scramble((seed + kGolden) ^ part);
  return seed;
}

std::uint64_t RandomStream::bits() {
  return scramble(state_ += kGolden);
}

double RandomStream::uniform() {
  return static_cast<double>(bits() >> 11) * 0x1p-53;
}

double RandomStream::uniform(double low, double high) {
  const double value = low + (high - low) * uniform();
  return value < high ? value : std::nextafter(high, low);  // rounding may reach `high`
}

std::int64_t RandomStream::integer(std::int64_t low, std::int64_t high) {
  if (low >= high)
    throw Error(format("no integer lies in [{}, {}); the upper bound must be larger", low, high));
  const std::uint64_t range = static_cast<std::uint64_t>(high) - static_cast<std::uint64_t>(low);
  const std::uint64_t uneven =
      (0 - range) % range;  // 2^64 modulo range: this many values would be too frequent
  std::uint64_t value = bits();
  while (value < uneven) value = bits();
  return static_cast<std::int64_t>(static_cast<std::uint64_t>(low) + value % range);
}

double RandomStream::normal() {
  const double radius = std::sqrt(-2 * std::log(1 - uniform()));
  return radius * std::cos(2 * std::numbers::pi * uniform());
}

double RandomStream::gamma(double shape) {
  return std::exp(log_gamma_number(*this, shape));
}

double RandomStream::beta(double a, double b) {
  const double x = log_gamma_number(*this, a);
  const double y = log_gamma_number(*this, b);
  return 1 / (1 + std::exp(y - x));
}

std::vector<std::int64_t> permutation(std::int64_t size, std::uint64_t seed) {
  if (size < 0) throw Error(format("a permutation of {} items was asked for; 0 or more are needed", size));
  std::vector<std::int64_t> order(static_cast<std::size_t>(size));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  RandomStream random(seed);
  for (std::int64_t i = size - 1; i > 0; --i)
    std::swap(order[static_cast<std::size_t>(i)], order[static_cast<std::size_t>(random.integer(0, i + 1))]);
  return order;
}

}  // namespace stoa
