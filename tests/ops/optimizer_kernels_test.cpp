#include "stoa/ops/optimizer_kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "stoa/ops/simd.h"

namespace stoa::ops {
namespace {

constexpr std::int64_t kSizes[] = {0, 1, 3, 31, 1000, 100003};

/// Runs f with each SIMD level of the machine, then lifts the limit.
void at_every_level(const std::function<void()>& f) {
  for (const auto& level : simd_levels()) {
    limit_simd(level);
    SCOPED_TRACE(level);
    f();
  }
  limit_simd("auto");
}

/// Weights, gradients and two states that begin off every boundary, with an element before and after each
/// that no loop may touch. The second state is a second moment, so not negative.
template <class T>
struct Arrays {
  explicit Arrays(std::int64_t n) : size(n) {
    std::mt19937 random(7);
    std::normal_distribution<double> normal;
    for (auto& array : data) {
      array.assign(static_cast<std::size_t>(n) + 2, T{42});
      for (std::int64_t i = 1; i <= n; ++i) {
        const double x = normal(random);
        array[static_cast<std::size_t>(i)] = static_cast<T>(&array == &data[3] ? x * x : x);
      }
    }
  }
  T* at(int k) { return data[k].data() + 1; }

  std::int64_t size;
  std::vector<T> data[4];
};

template <class T>
using Run = std::function<double(const OptimizerKernels<T>&, Arrays<T>&)>;

/// All kernels, with constants that a clipped step with decay has. Each returns its sums.
template <class T>
std::vector<std::pair<const char*, Run<T>>> all_kernels() {
  using K = const OptimizerKernels<T>&;
  using A = Arrays<T>&;
  const AdamWConstants adamw = {0.7, 0.05, 0.9, 0.99, 0.95, 0.01, 1.5, 1e-6};
  const LambConstants lamb = {0.7, 0.9, 0.1, 0.99, 1.3, 1.5, 1e-6, 0.05};
  const auto sgd = [](double momentum, bool nesterov) {
    return [=](K k, A a) {
      k.sgd(a.at(0), a.at(1), momentum == 0 ? nullptr : a.at(2), a.size,
            {0.7, 0.05, 0.1, momentum, 0.8, nesterov});
      return 0.0;
    };
  };
  return {{"adamw",
           [=](K k, A a) {
             k.adamw(a.at(0), a.at(1), a.at(2), a.at(3), a.size, adamw);
             return 0.0;
           }},
          {"lamb_moments of w",
           [=](K k, A a) { return k.lamb_moments(a.at(0), a.at(1), a.at(2), a.at(3), a.size, lamb).w; }},
          {"lamb_moments of u",
           [=](K k, A a) { return k.lamb_moments(a.at(0), a.at(1), a.at(2), a.at(3), a.size, lamb).u; }},
          {"lamb_weights",
           [=](K k, A a) {
             k.lamb_weights(a.at(0), a.at(2), a.at(3), a.size, 0.01, lamb);
             return 0.0;
           }},
          {"sgd", sgd(0, false)},
          {"sgd with momentum", sgd(0.9, false)},
          {"sgd with nesterov", sgd(0.9, true)},
          {"average",
           [](K k, A a) {
             k.average(a.at(0), a.at(1), a.size, 0.01);
             return 0.0;
           }},
          {"square_sum", [](K k, A a) { return k.square_sum(a.at(1), a.size); }}};
}

/// Equal within a few roundings, or both the same kind of not finite.
template <class T>
bool near(T found, T wanted) {
  if (!std::isfinite(wanted)) return std::isnan(wanted) ? std::isnan(found) : found == wanted;
  return std::abs(found - wanted) <=
         16 * std::numeric_limits<T>::epsilon() * std::max(T{1}, std::abs(wanted));
}

template <class T>
void expect_equal_to_plain_loops(std::int64_t size, const std::function<void(Arrays<T>&)>& change = {}) {
  for (const auto& [name, run] : all_kernels<T>()) {
    SCOPED_TRACE(std::string(name) + ", " + std::to_string(size));
    Arrays<T> found(size), wanted(size);
    if (change) change(found), change(wanted);
    const double sum = run(optimizer_kernels<T>(), found);
    const double wanted_sum = run(optimizer_kernels_reference<T>(), wanted);
    // u itself is rounded to T
    const double rounding = std::string(name) == "lamb_moments of u" ? std::numeric_limits<T>::epsilon() : 0;
    const double tolerance = std::max(4 * rounding, 1e-12);
    if (std::isfinite(wanted_sum))
      EXPECT_NEAR(sum, wanted_sum, tolerance * wanted_sum);
    else
      EXPECT_FALSE(std::isfinite(sum));
    for (int k = 0; k < 4; ++k)
      for (std::size_t i = 0; i < found.data[k].size(); ++i)
        ASSERT_TRUE(near(found.data[k][i], wanted.data[k][i]))
            << "array " << k << ", place " << i << ": " << found.data[k][i] << ", not " << wanted.data[k][i];
  }
}

TEST(OptimizerKernels, FloatsEqualPlainLoopsAtEverySizeAndLevel) {
  at_every_level([] {
    for (const auto size : kSizes) expect_equal_to_plain_loops<float>(size);
  });
}

TEST(OptimizerKernels, DoublesEqualPlainLoopsAtEverySizeAndLevel) {
  at_every_level([] {
    for (const auto size : kSizes) expect_equal_to_plain_loops<double>(size);
  });
}

TEST(OptimizerKernels, NumbersThatAreNotFiniteStayWhereTheyAre) {
  const auto spoil = [](auto& arrays) {
    using T = std::remove_reference_t<decltype(*arrays.at(1))>;
    arrays.at(1)[3] = std::numeric_limits<T>::quiet_NaN();
    arrays.at(1)[20] = std::numeric_limits<T>::infinity();
    arrays.at(1)[36] = -std::numeric_limits<T>::infinity();  // in the rest after whole vectors
  };
  at_every_level([&] {
    expect_equal_to_plain_loops<float>(37, spoil);
    expect_equal_to_plain_loops<double>(37, spoil);
  });
}

TEST(OptimizerKernels, SumsOfFloatsAreTheSameAtEveryLevel) {
  Arrays<float> arrays(100003);
  std::vector<double> sums;
  at_every_level([&] { sums.push_back(optimizer_kernels<float>().square_sum(arrays.at(0), arrays.size)); });
  for (const auto sum : sums) EXPECT_EQ(sum, sums.front());
}

TEST(OptimizerKernels, SumsDoNotDependOnWhereTheArrayBegins) {
  const std::vector<float> ones(1100, 0.1F);
  at_every_level([&] {
    const auto& kernels = optimizer_kernels<float>();
    for (int begin = 1; begin < 17; ++begin)
      EXPECT_EQ(kernels.square_sum(ones.data() + begin, 1003), kernels.square_sum(ones.data(), 1003))
          << begin;
  });
}

TEST(OptimizerKernels, SumsOfLargeFloatsDoNotOverflow) {
  const std::vector<float> large(100, 1e30F);
  at_every_level(
      [&] { EXPECT_NEAR(optimizer_kernels<float>().square_sum(large.data(), 100) / 1e62, 1, 1e-6); });
}

}  // namespace
}  // namespace stoa::ops
