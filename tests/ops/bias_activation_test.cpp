#include "stoa/ops/bias_activation.h"

#include <ATen/core/dispatch/Dispatcher.h>

#include <limits>

#include "ops/fused_cases.h"
#include "stoa/base/errors.h"
#include "stoa/ops/bias_activation_kernels.h"
#include "support/thrown.h"

namespace stoa::ops::test {
namespace {

constexpr Activation kActivations[] = {Activation::kNone, Activation::kGeluTanh, Activation::kGeluErf,
                                       Activation::kRelu};

struct Case {
  at::Tensor x, bias;
  Activation activation;

  std::vector<at::Tensor> leaves() const {
    return bias.defined() ? std::vector<at::Tensor>{x, bias} : std::vector<at::Tensor>{x};
  }
  std::vector<at::Tensor> fast() const {
    return results_and_gradients({bias_activation(x, bias, activation)}, leaves());
  }
  std::vector<at::Tensor> plain() const {
    return results_and_gradients({bias_activation_reference(x, bias, activation)}, leaves());
  }
};

// Every activation, with and without bias.
std::vector<Case> cases(at::IntArrayRef shape, at::ScalarType type, at::ScalarType bias_type) {
  at::manual_seed(5);
  std::vector<Case> all;
  for (const auto f : kActivations)
    for (const bool with_bias : {true, false}) {
      const auto x = at::randn(shape, at::kDouble).mul_(3).to(type).requires_grad_(true);
      const auto bias = at::randn({shape.back()}, at::kDouble).to(bias_type).requires_grad_(true);
      all.push_back({x, with_bias ? bias : at::Tensor(), f});
    }
  return all;
}

void expect_agreement(at::ScalarType type, at::ScalarType bias_type, double tolerance) {
  for (const auto dim : kWidths)
    for (const auto rows : kRows)
      for (const auto& one : cases({rows, dim}, type, bias_type)) {
        const auto expected = one.plain();
        every_simd_level([&] {
          SCOPED_TRACE(std::to_string(static_cast<int>(one.activation)) + ": " + std::to_string(rows) +
                       " x " + std::to_string(dim));
          expect_close(one.fast(), expected, tolerance);
        });
      }
}

TEST(BiasActivation, AgreesWithTheReferenceInFloat) {
  expect_agreement(at::kFloat, at::kFloat, 2e-6);
}

TEST(BiasActivation, AgreesWithTheReferenceInDouble) {
  expect_agreement(at::kDouble, at::kDouble, 1e-13);
}

TEST(BiasActivation, AgreesWithTheReferenceInBfloat16) {
  expect_agreement(at::kBFloat16, at::kBFloat16, 0.01);
}

TEST(BiasActivation, AgreesWithTheReferenceInBfloat16WithAFloatBias) {
  expect_agreement(at::kBFloat16, at::kFloat, 0.01);
}

TEST(BiasActivation, HalfGoesThroughTheReference) {
  for (const auto& one : cases({3, 5}, at::kHalf, at::kFloat))
    EXPECT_TRUE(at::equal(bias_activation(one.x, one.bias, one.activation),
                          bias_activation_reference(one.x, one.bias, one.activation)));
}

// The largest error over [-12, 12] beside double, relative where x > -3, else absolute.
double worst_error(const at::Tensor& found, const at::Tensor& x, const at::Tensor& expected) {
  const auto scale = at::where(x > -3, expected.abs().clamp_min(1e-30), at::ones_like(expected));
  return ((found - expected).abs() / scale).max().item<double>();
}

TEST(BiasActivation, GeluIsAccurateInFloat) {
  const auto x = at::linspace(-12, 12, 200001, at::kFloat).requires_grad_(true);
  const auto exact = x.detach().to(at::kDouble).requires_grad_(true);
  every_simd_level([&] {
    for (const auto f : {Activation::kGeluTanh, Activation::kGeluErf}) {
      const auto y = bias_activation(x, {}, f);
      const auto expected = bias_activation_reference(exact, {}, f);
      EXPECT_LT(worst_error(y.detach(), exact.detach(), expected.detach()), 1e-6) << static_cast<int>(f);
      const auto slope = torch::autograd::grad({y.sum()}, {x})[0];
      const auto expected_slope = torch::autograd::grad({expected.sum()}, {exact})[0];
      EXPECT_LT((slope - expected_slope).abs().max().item<double>(), 1e-6) << static_cast<int>(f);
    }
  });
}

TEST(BiasActivation, NonFiniteAndHugeNumbersAreAsInTheReference) {
  constexpr auto kInfinity = std::numeric_limits<double>::infinity();
  const auto values =
      at::tensor({kInfinity, -kInfinity, std::nan(""), 1e30, -1e30, 100.0, -100.0, 0.0}, at::kDouble);
  every_simd_level([&] {
    for (const auto type : {at::kFloat, at::kDouble, at::kBFloat16})
      for (const auto f : kActivations) {
        // the reference in double, whose square of 1e30 does not overflow; ATen's float erf is NaN at
        // infinity
        const auto x = values.to(type).repeat({5}).requires_grad_(true);
        const auto exact = x.detach().to(at::kDouble).requires_grad_(true);
        auto found = results_and_gradients({bias_activation(x, {}, f)}, {x});
        for (auto& tensor : found) tensor = tensor.to(at::kDouble);
        SCOPED_TRACE(std::to_string(static_cast<int>(f)) + c10::toString(type));
        const auto expected = results_and_gradients({bias_activation_reference(exact, {}, f)}, {exact});
        EXPECT_TRUE(at::allclose(found[1], expected[1], 1e-2, 1e-6, true)) << found[1] << expected[1];
        EXPECT_TRUE(at::allclose(found[0], expected[0], 2e-2, 1e-6, true)) << found[0] << expected[0];
      }
  });
}

TEST(BiasActivation, RoundsBfloat16AsLibTorchDoes) {
  // sums that lie on, just above and just below the middle of two bfloat16 numbers, and beyond the largest
  at::manual_seed(9);
  const auto x = at::randn({64, 48}).mul_(1e3).to(at::kBFloat16);
  x[0][0] = std::numeric_limits<float>::quiet_NaN();
  x[0][1] = std::numeric_limits<float>::max();
  auto bias = at::randn({48});
  bias[1] = std::numeric_limits<float>::max();
  bias[2] = 0.00390625;
  const auto expected = (x.to(at::kFloat) + bias).to(at::kBFloat16);
  every_simd_level([&] {
    const auto found = bias_activation(x, bias, Activation::kNone);
    EXPECT_TRUE(at::equal(found.isnan(), expected.isnan()));
    EXPECT_TRUE(at::equal(found.nan_to_num(0), expected.nan_to_num(0)));
    EXPECT_TRUE(at::isinf(found[0][1]).item<bool>());
  });
}

TEST(BiasActivation, UnalignedAndStridedInputsGiveTheSame) {
  for (const auto& one : cases({2, 5, 65}, at::kFloat, at::kFloat))
    for (const auto& change : {unaligned, strided}) {
      auto moved = one;
      moved.x = change(one.x.detach()).requires_grad_(true);
      if (moved.bias.defined()) moved.bias = change(one.bias.detach()).requires_grad_(true);
      expect_equal(moved.fast(), one.fast());
    }
}

TEST(BiasActivation, DoesNotDependOnThreads) {
  for (const auto& one : cases({1400, 192}, at::kFloat, at::kFloat))
    expect_equal(on_threads(2, [&] { return one.fast(); }), on_threads(1, [&] { return one.fast(); }));
}

TEST(BiasActivation, OnlyNeededGradientsAreMade) {
  const auto one = cases({3, 40}, at::kFloat, at::kFloat)[2];
  const auto expected = one.fast();
  for (const std::size_t wanted : {0, 1}) {
    for (std::size_t i = 0; i < 2; ++i) one.leaves()[i].requires_grad_(i == wanted);
    const auto y = bias_activation(one.x, one.bias, one.activation);
    EXPECT_TRUE(at::equal(results_and_gradients({y}, {one.leaves()[wanted]})[0], expected[wanted]));
  }
}

TEST(BiasActivation, KernelsWorkInPlace) {
  for (const auto& one : cases({40, 31}, at::kFloat, at::kFloat)) {
    const auto grad = at::randn({40, 31});
    const auto y = bias_activation(one.x, one.bias, one.activation);
    const auto expected = torch::autograd::grad({y}, one.leaves(), {grad});
    const auto rows = one.x.detach().clone();
    const auto sums = at::zeros({31});
    const auto* const bias = one.bias.defined() ? one.bias.const_data_ptr<float>() : nullptr;
    const auto f = static_cast<std::int64_t>(one.activation);
    auto* const x = rows.mutable_data_ptr<float>();
    auto* const g = grad.mutable_data_ptr<float>();
    bias_activation_backward(g, x, bias, g, sums.mutable_data_ptr<float>(), 40, 31, f);
    EXPECT_TRUE(at::equal(grad, expected[0]));
    if (bias != nullptr) {
      EXPECT_TRUE(at::equal(sums, expected[1]));
    }
    bias_activation_forward(x, bias, x, 40, 31, f);
    EXPECT_TRUE(at::equal(rows, y));
  }
}

TEST(BiasActivation, SecondDerivativesAreRefusedRatherThanWrong) {
  const auto one = cases({2, 3}, at::kFloat, at::kFloat)[2];
  const auto message = stoa::test::thrown<Error>([&] {
    const auto y = bias_activation(one.x, one.bias, one.activation);
    torch::autograd::grad({y.square().sum()}, {one.x}, {}, true, /*create_graph=*/true);
  });
  STOA_EXPECT_CONTAINS(message, "second derivatives");
}

TEST(BiasActivation, OperatorIsReachableThroughTheDispatcher) {
  const auto one = cases({2, 3}, at::kFloat, at::kFloat)[2];
  torch::jit::Stack stack = {one.x, one.bias, 1};
  c10::Dispatcher::singleton().findSchemaOrThrow("stoa::bias_activation", "").callBoxed(stack);
  expect_equal(results_and_gradients({stack.at(0).toTensor()}, one.leaves()), one.fast());
}

TEST(BiasActivation, MetaTensorsGiveTheShape) {
  const auto y = bias_activation(at::empty({2, 5}, at::kMeta), at::empty({5}, at::kMeta), Activation::kRelu);
  EXPECT_EQ(y.sizes(), (std::vector<std::int64_t>{2, 5}));
}

TEST(BiasActivation, WrongArgumentsAreNamed) {
  const auto wrong = [](const at::Tensor& x, const at::Tensor& bias) {
    return stoa::test::thrown<Error>([&] { bias_activation(x, bias, Activation::kRelu); });
  };
  STOA_EXPECT_CONTAINS(wrong(at::zeros({2, 3}), at::zeros({4})),
                       "bias_activation: bias has shape [4]; [3] is needed");
  STOA_EXPECT_CONTAINS(wrong({}, {}), "x has no dimension");
  STOA_EXPECT_CONTAINS(wrong(at::zeros({2}, at::kLong), {}), "x is of type Long");
  STOA_EXPECT_CONTAINS(stoa::test::thrown<Error>([] { bias_activation(at::zeros({2}), {}, Activation{7}); }),
                       "7 is no activation");
}

}  // namespace
}  // namespace stoa::ops::test
