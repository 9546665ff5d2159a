// The kernels of the .cu files, run without a GPU (cuda_emulation.h), against those of the CPU.
#ifndef STOA_CUDA  // where they are compiled by nvcc, operators_cuda_test.cpp runs them on a GPU
#include "ops/cuda_emulation.h"
//
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "stoa/ops/bias_activation_cuda.cu"
#include "stoa/ops/bias_activation_kernels.h"
#include "stoa/ops/mixture_rows.h"
#include "stoa/ops/mixture_rows_cuda.cu"
#include "stoa/ops/optimizer_cuda.cu"
#include "stoa/ops/residual_norm_cuda.cu"

namespace stoa::ops::test {
namespace {

using Size = std::int64_t;

template <class T>
constexpr double kTolerance = std::is_same_v<T, double> ? 1e-12
                              : sizeof(T) == 2          ? 0.01
                                                        : 4e-6;

/// Normally distributed numbers.
template <class T>
std::vector<T> numbers(Size count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal(0.3, 2);
  std::vector<T> all(static_cast<std::size_t>(count));
  for (auto& one : all) cuda::store(static_cast<Math<T>>(normal(random)), &one);
  return all;
}

/// NaN where and only where that is expected; else within the tolerance times the largest magnitude or 1.
template <class T, class Tolerance = T>
void expect_close(const std::vector<T>& found, const std::vector<T>& expected, const char* what) {
  ASSERT_EQ(found.size(), expected.size());
  double largest = 1;
  for (const auto one : expected)
    if (std::isfinite(cuda::load(one))) largest = std::fmax(largest, std::fabs(cuda::load(one)));
  for (std::size_t i = 0; i < found.size(); ++i) {
    const double f = cuda::load(found[i]), e = cuda::load(expected[i]);
    const bool good =
        f == e || (std::isnan(f) && std::isnan(e)) || std::fabs(f - e) <= kTolerance<Tolerance> * largest;
    ASSERT_TRUE(good) << what << "[" << i << "] is " << f << ", not " << e;
  }
}

class Cuda : public ::testing::Test {
 protected:
  ~Cuda() override { emulation::most_blocks = ~0U; }
};
using CudaElement = Cuda;

TEST_F(CudaElement, RoundsBfloat16AsLibTorchDoes) {
  for (std::uint32_t high = 0; high < 0x10000; ++high)
    for (const std::uint32_t low : {0U, 1U, 0x7fffU, 0x8000U, 0x8001U, 0xffffU}) {
      const std::uint32_t bits = high << 16 | low;
      float x;
      std::memcpy(&x, &bits, sizeof x);
      Bfloat16 rounded;
      cuda::store(x, &rounded);
      if (std::isnan(x))
        ASSERT_TRUE(std::isnan(cuda::load(rounded))) << bits;
      else
        ASSERT_EQ(rounded.bits, c10::BFloat16(x).x) << x;
    }
}

template <class T>
void check_activations(Size rows, Size dim, std::vector<T> x) {
  const auto grad = numbers<T>(rows * dim, 2);
  const auto bias = numbers<Math<T>>(dim, 3);
  std::vector<Math<T>> scratch(static_cast<std::size_t>(cuda::bias_activation_scratch(rows, dim)));
  for (Size f = 0; f < 4; ++f)
    for (const auto* add : {static_cast<const Math<T>*>(nullptr), bias.data()}) {
      SCOPED_TRACE(std::to_string(f) + (add == nullptr ? "" : " with bias"));
      auto found = x, expected = x;
      ASSERT_EQ(cuda::bias_activation_forward(x.data(), add, found.data(), rows, dim, f, nullptr), 0);
      bias_activation_forward(x.data(), add, expected.data(), rows, dim, f);
      expect_close(found, expected, "value");

      auto sums = bias, expected_sums = bias;  // sums are added to what is there
      found = grad;                            // grad_x may be grad
      ASSERT_EQ(cuda::bias_activation_backward(found.data(), x.data(), add, found.data(), sums.data(), rows,
                                               dim, f, scratch.data(), nullptr),
                0);
      bias_activation_backward(grad.data(), x.data(), add, expected.data(), expected_sums.data(), rows, dim,
                               f);
      expect_close(found, expected, "grad_x");
      expect_close(sums, expected_sums, "grad_bias");
    }
}

template <class T>
void check_activations() {
  constexpr std::pair<Size, Size> kShapes[] = {{0, 5}, {1, 1}, {3, 130}, {70, 31}, {700, 3}};
  for (const auto& [rows, dim] : kShapes) check_activations(rows, dim, numbers<T>(rows * dim, 1));
}

TEST_F(Cuda, ActivationsInFloat) {
  check_activations<float>();
}
TEST_F(Cuda, ActivationsInDouble) {
  check_activations<double>();
}
TEST_F(Cuda, ActivationsInBfloat16) {
  check_activations<Bfloat16>();
}
TEST_F(Cuda, ActivationsLoopWhereBlocksAreFew) {
  emulation::most_blocks = 2;
  check_activations<float>(100, 300, numbers<float>(30000, 1));
}
TEST_F(Cuda, ActivationsOfHugeAndNonFiniteNumbers) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  check_activations<float>(1, 10, {kInfinity, -kInfinity, std::nanf(""), 1e30F, -1e30F, 90, -90, 11, -11, 0});
}

/// Arguments of the norm's kernels in host memory. `parts` says which of y, bias, scale and factor there are.
template <class X, class Y>
struct NormArrays {
  enum Parts { kY = 1, kBias = 2, kScale = 4, kFactor = 8 };

  NormArrays(Size rows, Size dim, int parts) : rows(rows), dim(dim), parts(parts) {
    mean.resize(static_cast<std::size_t>(rows));
    rstd = mean;
  }
  NormRows<X, Y> norm() {
    const auto given = [&](Parts part, const auto& array) { return parts & part ? array.data() : nullptr; };
    return {dim,
            x.data(),
            given(kY, y),
            given(kBias, bias),
            given(kScale, scale),
            given(kFactor, factor),
            rows > 1 ? rows / 2 : 1,
            gamma.data(),
            beta.data(),
            Math<X>(0.1),
            sum.data(),
            normed.data(),
            mean.data(),
            rstd.data()};
  }
  NormGradients<X, Y> gradients() {
    return {grad_normed.data(),
            parts & kY ? grad_sum.data() : nullptr,
            grad_x.data(),
            parts & (kScale | kFactor) ? grad_y.data() : nullptr,
            grad_gamma.data(),
            grad_beta.data(),
            parts & kBias ? grad_bias.data() : nullptr,
            parts & kScale ? grad_scale.data() : nullptr};
  }

  using M = Math<X>;
  Size rows, dim;
  int parts;
  std::vector<X> x = numbers<X>(rows * dim, 1), sum = x, grad_sum = numbers<X>(rows * dim, 2), grad_x = x;
  std::vector<Y> y = numbers<Y>(rows * dim, 3), normed = y, grad_normed = numbers<Y>(rows * dim, 4),
                 grad_y = y;
  std::vector<M> bias = numbers<M>(dim, 5), scale = numbers<M>(dim, 6), factor = {1.25, 0.5, 0.75};
  std::vector<M> gamma = numbers<M>(dim, 7), beta = numbers<M>(dim, 8);
  std::vector<M> grad_gamma = beta, grad_beta = beta, grad_bias = beta, grad_scale = beta, mean, rstd;
};

template <class X, class Y>
void check_norm(Size rows, Size dim, int parts) {
  SCOPED_TRACE(std::to_string(rows) + " x " + std::to_string(dim) + ", parts " + std::to_string(parts));
  NormArrays<X, Y> found(rows, dim, parts), expected(rows, dim, parts);
  std::vector<Math<X>> scratch(static_cast<std::size_t>(cuda::residual_norm_scratch(rows, dim)));
  ASSERT_EQ(cuda::residual_norm_forward(found.norm(), rows, nullptr), 0);
  residual_norm_forward(expected.norm(), 0, rows);
  expect_close<X>(found.sum, expected.sum, "sum");
  expect_close<Y>(found.normed, expected.normed, "normed");
  expect_close<Math<X>, X>(found.mean, expected.mean, "mean");
  expect_close<Math<X>, X>(found.rstd, expected.rstd, "rstd");

  found.sum = expected.sum;  // so that a sum rounded the other way does not count twice
  ASSERT_EQ(cuda::residual_norm_backward(found.norm(), found.gradients(), rows, scratch.data(), nullptr), 0);
  residual_norm_backward(expected.norm(), expected.gradients(), 0, rows);
  expect_close<X>(found.grad_x, expected.grad_x, "grad_x");
  expect_close<Y>(found.grad_y, expected.grad_y, "grad_y");
  expect_close<Math<X>, Y>(found.grad_gamma, expected.grad_gamma, "grad_gamma");
  expect_close<Math<X>, Y>(found.grad_beta, expected.grad_beta, "grad_beta");
  expect_close<Math<X>, Y>(found.grad_bias, expected.grad_bias, "grad_bias");
  expect_close<Math<X>, Y>(found.grad_scale, expected.grad_scale, "grad_scale");
}

template <class X, class Y>
void check_norms() {
  using Arrays = NormArrays<X, Y>;
  check_norm<X, Y>(0, 7, 0);
  check_norm<X, Y>(1, 1, 1);
  check_norm<X, Y>(70, 31, 15);
  for (const int parts : {0, 1, 1 | 2, 1 | 4, 1 | 8, 15}) check_norm<X, Y>(3, 200, parts);
  static_assert(Arrays::kFactor == 8);
}

TEST_F(Cuda, NormsInFloat) {
  check_norms<float, float>();
}
TEST_F(Cuda, NormsInDouble) {
  check_norms<double, double>();
}
TEST_F(Cuda, NormsInBfloat16) {
  check_norms<Bfloat16, Bfloat16>();
}
TEST_F(Cuda, NormsOfAFloatStreamWithABfloat16Branch) {
  check_norms<float, Bfloat16>();
}
TEST_F(Cuda, NormsOfWideRows) {
  check_norm<float, float>(1, 16384, 15);
}
TEST_F(Cuda, NormsLoopWhereBlocksAreFew) {
  emulation::most_blocks = 2;
  check_norm<float, float>(40, 300, 15);
}

template <class T>
const T* pointer(const at::Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}
template <class T>
T* target(const at::Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

void expect_near(const at::Tensor& found, const at::Tensor& expected, double tolerance) {
  EXPECT_TRUE(at::allclose(found.to(at::kDouble), expected.to(at::kDouble), tolerance, tolerance));
}

/// Seven tokens, of which one has no expert and others have several; a padded and a sorted layout.
template <class T>
void check_rows(at::ScalarType type, Size width) {
  at::manual_seed(3);
  const auto token = at::tensor({5, 0, 0, 3, 0, 3, 6, 1, 2}, at::kLong);
  const auto expert = at::tensor({1, 2, 0, 0, 1, 0, 2, 2, 2}, at::kLong);
  const auto random = [&](at::IntArrayRef shape) { return at::randn(shape, at::kDouble).to(type); };
  const double tolerance = kTolerance<T>;
  for (const bool padded : {false, true}) {
    const auto layout = lay_out_rows(token, expert, 7, 3, padded);
    const auto rows = layout->rows;
    const auto gate = at::randn({9}, at::kDouble).to(sizeof(T) == 8 ? at::kDouble : at::kFloat);
    const auto tokens = random({7, width}), values = random({rows, width}),
               by_assignment = random({9, width});
    const auto out = at::empty_like(values), combined = at::empty_like(tokens);
    const auto* const source = layout->source.data();
    const auto* const row_token = layout->row_token.data();
    const auto* const starts = layout->token_start.data();
    const auto* const token_rows = layout->token_rows.data();

    ASSERT_EQ(cuda::gather_rows(pointer<T>(tokens), row_token, target<T>(out), rows, width, nullptr), 0);
    EXPECT_TRUE(at::equal(out, gather_tokens(tokens, *layout)));
    ASSERT_EQ(cuda::gather_rows(pointer<T>(by_assignment), source, target<T>(out), rows, width, nullptr), 0);
    EXPECT_TRUE(at::equal(out, gather_assignments(by_assignment, *layout)));
    for (const auto& weights : {gate, at::Tensor()}) {
      const auto* const g = weights.defined() ? pointer<Math<T>>(weights) : nullptr;
      ASSERT_EQ(cuda::combine_rows(pointer<T>(values), g, source, starts, token_rows, target<T>(combined), 7,
                                   width, nullptr),
                0);
      expect_near(combined, combine_rows(values, weights, *layout), tolerance);
    }
    const auto grad_gate = at::empty_like(gate);
    ASSERT_EQ(cuda::combine_rows_backward(pointer<T>(tokens), pointer<T>(values), pointer<Math<T>>(gate),
                                          source, row_token, target<T>(out), target<Math<T>>(grad_gate), rows,
                                          width, nullptr),
              0);
    const auto [grad_values, expected_gate] = combine_rows_backward(tokens, values, gate, *layout);
    expect_near(out, grad_values, tolerance);
    expect_near(grad_gate, expected_gate, std::max(tolerance, 1e-5 * (sizeof(T) < 8)));
  }
}

TEST_F(Cuda, MixtureRows) {
  for (const Size width : {1, 31, 200}) {
    check_rows<float>(at::kFloat, width);
    check_rows<double>(at::kDouble, width);
    check_rows<Bfloat16>(at::kBFloat16, width);
  }
}
TEST_F(Cuda, MixtureRowsLoopWhereBlocksAreFew) {
  emulation::most_blocks = 2;
  check_rows<float>(at::kFloat, 40);
}
TEST_F(Cuda, MixtureRowsOfNothing) {
  EXPECT_EQ(cuda::gather_rows<float>(nullptr, nullptr, nullptr, 0, 4, nullptr), 0);
  EXPECT_EQ(cuda::combine_rows<float>(nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, 0, 4, nullptr),
            0);
  EXPECT_EQ(cuda::combine_rows_backward<float>(nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr,
                                               0, 4, nullptr),
            0);
}

/// Weights, gradients and two states, the second of which is not negative, of a parameter in two slices.
template <class T>
struct States {
  explicit States(Size size)
      : size(size),
        w(numbers<T>(size, 1)),
        g(numbers<T>(size, 2)),
        m(numbers<T>(size, 3)),
        v(numbers<T>(size, 4)) {
    for (auto& x : v) x *= x;
  }
  void expect(const States& expected) const {
    expect_close(w, expected.w, "w");
    expect_close(m, expected.m, "m");
    expect_close(v, expected.v, "v");
  }
  /// Parts of `most` elements; gradients of slice 0 are scaled by 0.7, of slice 1 by 0.3.
  void cut(Size most) {
    for (Size slice = 0; slice < 2; ++slice) {
      const auto first = std::ssize(parts), slice_end = slice == 0 ? size / 2 : size;
      for (Size begin = slice * (size / 2); begin < slice_end; begin += most)
        parts.push_back({w.data() + begin,
                         g.data() + begin,
                         {m.data() + begin, v.data() + begin},
                         std::min(most, slice_end - begin),
                         slice,
                         scale(slice),
                         0.05});
      slices.push_back({first, std::ssize(parts), slice == 0});
    }
  }
  static double scale(Size slice) { return slice == 0 ? 0.7 : 0.3; }

  Size size;
  std::vector<T> w, g, m, v;
  std::vector<cuda::Part<T>> parts;
  std::vector<cuda::Slice> slices;
};

template <class T>
void check_optimizers(Size size, Size part) {
  SCOPED_TRACE(size);
  const auto& plain = optimizer_kernels_reference<T>();
  States<T> found(size), expected(size);
  found.cut(part);
  const auto count = std::ssize(found.parts);
  // f(constants, first element, elements) for both slices
  const auto for_each_slice = [&](auto constants, const auto& f) {
    for (const Size slice : {0, 1}) {
      constants.gradient_scale = States<T>::scale(slice);
      f(constants, slice * (size / 2), slice == 0 ? size / 2 : size - size / 2);
    }
  };
  for (const bool decoupled : {true, false}) {
    AdamWConstants adamw = {1, 0, 0.9, 0.99, 1, 0.01, 1.5, 1e-6};
    ASSERT_EQ(cuda::adamw(found.parts.data(), count, adamw, 0.1, decoupled, nullptr), 0);
    (decoupled ? adamw.keep : adamw.coupled_decay) = decoupled ? 1 - 0.1 * 0.05 : 0.05;
    for_each_slice(adamw, [&](const AdamWConstants& c, Size at, Size many) {
      plain.adamw(expected.w.data() + at, expected.g.data() + at, expected.m.data() + at,
                  expected.v.data() + at, many, c);
    });
    found.expect(expected);
  }
  for (const bool nesterov : {false, true}) {
    const SgdConstants sgd = {1, 0.05, 0.1, 0.9, 0.8, nesterov};
    ASSERT_EQ(cuda::sgd(found.parts.data(), count, sgd, nullptr), 0);
    for_each_slice(sgd, [&](const SgdConstants& c, Size at, Size many) {
      plain.sgd(expected.w.data() + at, expected.g.data() + at, expected.m.data() + at, many, c);
    });
  }
  const SgdConstants without_momentum = {1, 0.05, 0.1, 0, 1, false};
  for (auto& one : found.parts) one.states[0] = nullptr;
  ASSERT_EQ(cuda::sgd(found.parts.data(), count, without_momentum, nullptr), 0);
  for_each_slice(without_momentum, [&](const SgdConstants& c, Size at, Size many) {
    plain.sgd(expected.w.data() + at, expected.g.data() + at, nullptr, many, c);
  });
  found.expect(expected);
}

template <class T>
void check_lamb(Size size, Size part) {
  SCOPED_TRACE(size);
  constexpr double kLr = 0.02, kLargest = 5;
  const auto& plain = optimizer_kernels_reference<T>();
  const LambConstants lamb = {0.5, 0.9, 0.1, 0.99, 1.3, 1.5, 1e-6, 0};
  States<T> found(size), expected(size);
  found.cut(part);
  std::vector<LambSquares> squares(found.parts.size());
  std::vector<double> rates(found.slices.size());
  ASSERT_EQ(cuda::lamb(found.parts.data(), std::ssize(found.parts), found.slices.data(), 2, lamb, kLr,
                       kLargest, squares.data(), rates.data(), nullptr),
            0);
  for (const Size slice : {0, 1}) {
    auto c = lamb;
    c.gradient_scale *= States<T>::scale(slice);
    c.decay = 0.05;
    const auto at = slice * (size / 2), many = slice == 0 ? size / 2 : size - size / 2;
    if (many == 0) continue;
    const auto sums = plain.lamb_moments(expected.w.data() + at, expected.g.data() + at,
                                         expected.m.data() + at, expected.v.data() + at, many, c);
    const double rate = slice == 0 ? kLr * std::min(kLargest, std::sqrt(sums.w / sums.u)) : kLr;
    EXPECT_NEAR(rates[static_cast<std::size_t>(slice)], rate, 1e-5 * rate);
    plain.lamb_weights(expected.w.data() + at, expected.m.data() + at, expected.v.data() + at, many, rate, c);
  }
  found.expect(expected);
}

constexpr std::pair<Size, Size> kSizesAndParts[] = {{0, 7}, {2, 7}, {30, 7}, {1000, 300}};

TEST_F(Cuda, OptimizerSteps) {
  for (const auto& [size, part] : kSizesAndParts) {
    check_optimizers<float>(size, part);
    check_optimizers<double>(size, part);
  }
}
TEST_F(Cuda, LambSteps) {
  for (const auto& [size, part] : kSizesAndParts) {
    check_lamb<float>(size, part);
    check_lamb<double>(size, part);
  }
}
TEST_F(Cuda, OptimizerStepsLoopWhereBlocksAreFew) {
  emulation::most_blocks = 2;
  check_optimizers<float>(60, 10);
  check_lamb<float>(60, 10);
}
TEST_F(Cuda, LambAddsTheSumsOfMorePartsThanABlockHasThreads) {
  check_lamb<float>(2 * 260, 1);
}
TEST_F(Cuda, ParametersWithoutGradientDecayAlone) {
  States<float> found(10), expected(10);
  found.cut(4);
  for (auto& part : found.parts) part.g = nullptr;
  const SgdConstants sgd = {1, 0.05, 0.1, 0.9, 0.8, false};
  ASSERT_EQ(cuda::sgd(found.parts.data(), std::ssize(found.parts), sgd, nullptr), 0);
  expected.g.assign(10, 0);
  optimizer_kernels_reference<float>().sgd(expected.w.data(), expected.g.data(), expected.m.data(), 10, sgd);
  found.expect(expected);
}

}  // namespace
}  // namespace stoa::ops::test
#endif
