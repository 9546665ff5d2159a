#include "stoa/ops/residual_norm.h"

#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <limits>

#include "ops/fused_cases.h"
#include "ops/residual_norm_cases.h"
#include "stoa/base/errors.h"
#include "support/thrown.h"

namespace stoa::ops::test {
namespace {

constexpr NormTypes kFloats = {at::kFloat, at::kFloat, at::kFloat};

std::vector<at::Tensor> fast(const NormProblem& problem) {
  return results_and_gradients(problem.run(), problem.leaves());
}

std::vector<at::Tensor> plain(const NormProblem& problem) {
  return results_and_gradients(problem.reference(), problem.leaves());
}

void expect_agreement(const NormTypes& types, double tolerance) {
  for (const auto dim : kWidths)
    for (const auto rows : kRows)
      for (const auto& problem : norm_problems(rows, dim, types)) {
        const auto expected = plain(problem);
        every_simd_level([&] {
          SCOPED_TRACE(problem.name + ", " + std::to_string(rows) + " x " + std::to_string(dim));
          expect_close(fast(problem), expected, tolerance);
        });
      }
}

TEST(ResidualNorm, AgreesWithTheReferenceInFloat) {
  expect_agreement(kFloats, 1e-5);
}

TEST(ResidualNorm, AgreesWithTheReferenceInDouble) {
  expect_agreement({at::kDouble, at::kDouble, at::kDouble}, 1e-12);
}

TEST(ResidualNorm, AgreesWithTheReferenceInBfloat16) {
  expect_agreement({at::kBFloat16, at::kBFloat16, at::kBFloat16}, 0.02);
}

TEST(ResidualNorm, AgreesWithTheReferenceInBfloat16WithFloatParameters) {
  expect_agreement({at::kBFloat16, at::kBFloat16, at::kFloat}, 0.02);
}

TEST(ResidualNorm, AgreesWithTheReferenceForABfloat16BranchBesideAFloatStream) {
  expect_agreement({at::kFloat, at::kBFloat16, at::kFloat}, 0.02);
}

TEST(ResidualNorm, HalfGoesThroughTheReference) {
  for (const auto& problem : norm_problems(3, 5, {at::kHalf, at::kHalf, at::kFloat}))
    expect_equal(problem.run(), problem.reference());
}

TEST(ResidualNorm, IsAccurateFarFromZero) {
  // variance 1 around 1000: a sum of squares in float would lose it
  at::manual_seed(1);
  const auto x = at::randn({4, 768}) + 1000;
  const auto expected = at::layer_norm(x.to(at::kDouble), {768});
  const auto found = layer_norm(x, at::ones({768}), at::zeros({768}), 1e-5);
  EXPECT_LT((found - expected).abs().max().item<double>(), 1e-4);
}

TEST(ResidualNorm, UnalignedAndStridedInputsGiveTheSame) {
  for (const auto& problem : norm_problems(5, 65, kFloats)) {
    const auto expected = fast(problem);
    for (const auto& change : {unaligned, strided}) {
      auto moved = problem;
      for (auto* tensor : {&moved.x, &moved.y, &moved.bias, &moved.gamma, &moved.beta, &moved.scale})
        if (tensor->defined()) *tensor = change(tensor->detach()).requires_grad_(true);
      expect_equal(fast(moved), expected);
    }
  }
}

TEST(ResidualNorm, NonFiniteNumbersSpreadAsInTheReference) {
  constexpr auto kInfinity = std::numeric_limits<float>::infinity();
  every_simd_level([&] {
    for (const auto bad : {std::numeric_limits<float>::quiet_NaN(), kInfinity, -kInfinity}) {
      for (auto problem : norm_problems(3, 40, kFloats)) {
        problem.x.detach()[1][1][17] = bad;
        problem.x.detach()[0][2][39] = bad;
        expect_close(fast(problem), plain(problem), 1e-5);
      }
    }
  });
}

TEST(ResidualNorm, DoesNotDependOnThreads) {
  for (const auto& problem : norm_problems(700, 192, kFloats))
    expect_equal(on_threads(2, [&] { return fast(problem); }), on_threads(1, [&] { return fast(problem); }));
}

TEST(ResidualNorm, UnusedResultsGiveNoGradient) {
  const auto problem = norm_problems(3, 40, kFloats)[2];
  for (const std::size_t used : {0, 1}) {
    const auto run = [&](const std::vector<at::Tensor>& results) {
      return results_and_gradients({results[used]}, {problem.x, problem.y, problem.bias});
    };
    expect_close(run(problem.run()), run(problem.reference()), 1e-5);
  }
}

TEST(ResidualNorm, OnlyNeededGradientsAreMade) {
  for (const auto& problem : norm_problems(3, 40, kFloats)) {
    const auto leaves = problem.leaves();
    const auto expected = fast(problem);
    for (std::size_t wanted = 0; wanted < leaves.size(); ++wanted) {
      for (std::size_t i = 0; i < leaves.size(); ++i) leaves[i].requires_grad_(i == wanted);
      EXPECT_TRUE(at::equal(results_and_gradients(problem.run(), {leaves[wanted]})[0], expected[wanted]))
          << problem.name << ", leaf " << wanted;
    }
  }
}

TEST(ResidualNorm, GivesTheSameWithoutGradients) {
  for (const auto& problem : norm_problems(5, 65, kFloats)) {
    const auto expected = problem.run();
    const at::NoGradGuard no_grad;
    expect_equal(problem.run(), expected);
  }
}

TEST(ResidualNorm, BackwardTwiceGivesTheSame) {
  for (const auto& problem : norm_problems(5, 65, kFloats)) {
    const auto loss = problem.run().back().square().sum();
    const auto first = torch::autograd::grad({loss}, problem.leaves(), {}, /*retain_graph=*/true);
    expect_equal(torch::autograd::grad({loss}, problem.leaves()), first);
  }
}

TEST(ResidualNorm, SecondDerivativesAreRefusedRatherThanWrong) {
  const auto problem = norm_problems(2, 3, kFloats)[0];
  const auto message = stoa::test::thrown<Error>([&] {
    torch::autograd::grad({problem.run()[0].square().sum()}, {problem.x}, {}, true, /*create_graph=*/true);
  });
  STOA_EXPECT_CONTAINS(message, "second derivatives");
}

TEST(ResidualNorm, OperatorsAreReachableThroughTheDispatcher) {
  const auto problem = norm_problems(2, 3, kFloats)[2];
  const auto call = [](const char* name, const std::vector<c10::IValue>& arguments) {
    torch::jit::Stack stack(arguments);
    c10::Dispatcher::singleton().findSchemaOrThrow(name, "").callBoxed(stack);
    return stack;
  };
  const auto pair =
      call("stoa::residual_norm",
           {problem.x, problem.y, problem.bias, problem.gamma, problem.beta, NormProblem::kEps, {}, {}});
  expect_equal(results_and_gradients({pair.at(0).toTensor(), pair.at(1).toTensor()}, problem.leaves()),
               fast(problem));
  const auto normed = call("stoa::layer_norm", {problem.x, problem.gamma, problem.beta, NormProblem::kEps});
  EXPECT_TRUE(at::equal(normed.at(0).toTensor(),
                        layer_norm(problem.x, problem.gamma, problem.beta, NormProblem::kEps)));
}

TEST(ResidualNorm, AutocastChangesNothing) {
  for (const auto& problem : norm_problems(3, 40, {at::kFloat, at::kBFloat16, at::kFloat})) {
    const auto expected = fast(problem);
    at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
    at::autocast::set_autocast_enabled(at::kCPU, true);
    const auto results = problem.run();
    at::autocast::set_autocast_enabled(at::kCPU, false);
    expect_equal(results_and_gradients(results, problem.leaves()), expected);
  }
}

TEST(ResidualNorm, MetaTensorsGiveShapeAndType) {
  auto problem = norm_problems(2, 3, {at::kFloat, at::kBFloat16, at::kFloat})[2];
  for (auto* tensor : {&problem.x, &problem.y, &problem.bias, &problem.gamma, &problem.beta})
    *tensor = tensor->detach().to(at::kMeta);
  const auto results = problem.run();
  EXPECT_EQ(results[0].sizes(), problem.x.sizes());
  EXPECT_EQ(results[0].scalar_type(), at::kFloat);
  EXPECT_EQ(results[1].scalar_type(), at::kBFloat16);
}

TEST(ResidualNorm, WrongArgumentsAreNamed) {
  const auto wrong = [](const std::function<void(NormProblem&)>& change) {
    auto problem = norm_problems(2, 3, kFloats)[4];
    change(problem);
    return stoa::test::thrown<ShapeError>([&] { problem.run(); });
  };
  STOA_EXPECT_CONTAINS(wrong([](auto& p) {
                         p.y = at::zeros({2, 3});
                       }),
                       "residual_norm: y has shape [2, 3]; [2, 2, 3], that of x, is needed");
  STOA_EXPECT_CONTAINS(wrong([](auto& p) { p.gamma = at::zeros({4}); }),
                       "gamma has shape [4]; [3] is needed");
  STOA_EXPECT_CONTAINS(wrong([](auto& p) { p.beta = at::Tensor(); }), "beta is an undefined tensor");
  STOA_EXPECT_CONTAINS(wrong([](auto& p) { p.bias = at::zeros({1, 3}); }), "bias has shape [1, 3]");
  STOA_EXPECT_CONTAINS(wrong([](auto& p) { p.scale = at::zeros({2}); }), "scale has shape [2]");
  STOA_EXPECT_CONTAINS(wrong([](auto& p) { p.factor = at::zeros({3}); }), "a divisor of the 4 rows");
  STOA_EXPECT_CONTAINS(wrong([](auto& p) { p.x = at::zeros({2, 0}); }), "dim 1 or more");
  STOA_EXPECT_CONTAINS(stoa::test::thrown<ShapeError>([] {
                         residual_norm(at::zeros({2, 3}), {}, {}, at::ones({3}), at::ones({3}), 1e-6);
                       }),
                       "call layer_norm");
}

}  // namespace
}  // namespace stoa::ops::test
