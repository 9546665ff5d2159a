// Clipping as a factor of the step, against clipping in memory before it.
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "stoa/optim/clip.h"
#include "support/parameters.h"

namespace stoa::optim {
namespace {

using test::doubles;
using test::parameter;
using test::set_gradient;

constexpr double kLr = 0.05;
constexpr OptimizerKind kKinds[] = {OptimizerKind::kSgd, OptimizerKind::kAdamW, OptimizerKind::kLamb};

OptimizerOptions options_of(OptimizerKind kind) {
  OptimizerOptions options;
  options.kind = kind;
  options.weight_decay = 0.1;
  options.dialect = kind == OptimizerKind::kLamb ? LambDialect::kNvLamb : LambDialect::kPaper;
  return options;
}

/// A matrix, a fused one of three slices, a vector without gradient, one that lies transposed in memory, one
/// in fp64 and one in bf16.
std::vector<nn::NamedParameter> mixed_parameters() {
  at::manual_seed(9);
  std::vector<nn::NamedParameter> parameters = {parameter("matrix", at::randn({70, 301})),
                                                parameter("fused", at::randn({33, 5}), 3),
                                                parameter("idle", at::randn({7})),
                                                {"strided", at::randn({6, 5}).t().requires_grad_(), 5},
                                                parameter("double", at::randn({11}, at::kDouble)),
                                                parameter("half", at::randn({12, 3}).to(at::kBFloat16), 2)};
  for (const auto& p : parameters)
    if (p.name != "idle") set_gradient(p, at::randn_like(p.tensor.detach()));
  parameters[1].tensor.mutable_grad().narrow(0, 0, 11).mul_(0.01);  // its first slice needs no clipping
  return parameters;
}

void expect_equal_weights(const std::vector<nn::NamedParameter>& found,
                          const std::vector<nn::NamedParameter>& wanted) {
  for (std::size_t i = 0; i < found.size(); ++i)
    EXPECT_TRUE(at::equal(found[i].tensor, wanted[i].tensor)) << found[i].name;
}

TEST(Clipping, GlobalFactorEqualsClippingInMemory) {
  for (const auto kind : kKinds) {
    const auto folded = mixed_parameters(), clipped = mixed_parameters();
    const auto first = make_optimizer(folded, options_of(kind)),
               second = make_optimizer(clipped, options_of(kind));
    const auto scale = first->clipping(2.0, false);
    EXPECT_EQ(scale.norm, clip_global_norm(clipped, 2.0));
    EXPECT_NEAR(scale.scaled_norm, 2.0, 1e-12);
    first->step(kLr, scale);
    second->step(kLr);
    if (kind == OptimizerKind::kLamb) continue;  // its joint norm is taken anew from rounded gradients
    expect_equal_weights(folded, clipped);
  }
}

TEST(Clipping, EachSlicesFactorEqualsClippingInMemory) {
  for (const auto kind : kKinds) {
    const auto folded = mixed_parameters(), clipped = mixed_parameters();
    const auto first = make_optimizer(folded, options_of(kind)),
               second = make_optimizer(clipped, options_of(kind));
    const auto scale = first->clipping(0.9, true);
    EXPECT_EQ(scale.norm, clip_each_norm(clipped, 0.9));
    EXPECT_NEAR(scale.scaled_norm, gradient_norm(clipped), 1e-2);  // bf16 gradients are rounded when clipped
    first->step(kLr, scale);
    second->step(kLr);
    if (kind == OptimizerKind::kLamb) continue;
    for (std::size_t i = 0; i + 1 < folded.size(); ++i)
      EXPECT_TRUE(at::equal(folded[i].tensor, clipped[i].tensor)) << folded[i].name;
    EXPECT_LT(test::distance(folded.back().tensor, clipped.back().tensor), 0.02);
  }
}

TEST(Clipping, NvLambsJointNormIsThatOfTheClippedGradients) {
  const auto trained = [](bool each_slice, bool in_memory) {
    const auto w = parameter("w", doubles({3, 4, 1, 2}).reshape({4, 1}), 2);
    set_gradient(w, doubles({6, -8, 1, 1}).reshape({4, 1}));
    auto options = options_of(OptimizerKind::kLamb);
    const auto optimizer = make_optimizer({w}, options);
    const auto scale = optimizer->clipping(4, each_slice);
    if (!in_memory) {
      optimizer->step(kLr, scale);
      return w.tensor.detach();
    }
    each_slice ? clip_each_norm({w}, 4) : clip_global_norm({w}, 4);
    optimizer->step(kLr);
    return w.tensor.detach();
  };
  for (const bool each_slice : {false, true})
    EXPECT_LT(test::distance(trained(each_slice, false), trained(each_slice, true)), 1e-14) << each_slice;
}

TEST(Clipping, GradientsStayAsTheyAre) {
  const auto w = parameter("w", doubles({1, 1}));
  set_gradient(w, doubles({3, 4}));
  const auto optimizer = make_optimizer({w}, options_of(OptimizerKind::kAdamW));
  optimizer->step(kLr, optimizer->clipping(1, false));
  EXPECT_TRUE(at::equal(w.tensor.grad(), doubles({3, 4})));
}

TEST(Clipping, LimitZeroOnlyMeasures) {
  const auto w = parameter("w", doubles({1, 1}));
  set_gradient(w, doubles({3, 4}));
  const auto optimizer = make_optimizer({w}, options_of(OptimizerKind::kSgd));
  const auto scale = optimizer->clipping(0, false);
  EXPECT_DOUBLE_EQ(scale.norm, 5);
  EXPECT_DOUBLE_EQ(scale.scaled_norm, 5);
  EXPECT_EQ(scale.factor, 1);
}

TEST(Clipping, NormsThatAreNotFiniteAreReportedAndNotHeld) {
  const auto w = parameter("w", doubles({1, 1})), other = parameter("other", doubles({1, 1}));
  set_gradient(w, doubles({INFINITY, 4}));
  set_gradient(other, doubles({3, 4}));
  const auto optimizer = make_optimizer({w, other}, options_of(OptimizerKind::kSgd));
  EXPECT_EQ(optimizer->clipping(1, false).norm, INFINITY);
  EXPECT_EQ(optimizer->clipping(1, false).factor, 1);
  EXPECT_EQ(optimizer->clipping(1, true).factors, (std::vector<double>{1, 0.2}));
}

TEST(Clipping, AFactorOfOneChangesNothing) {
  for (const auto kind : kKinds) {
    const auto plain = mixed_parameters(), scaled = mixed_parameters();
    make_optimizer(plain, options_of(kind))->step(kLr);
    const auto optimizer = make_optimizer(scaled, options_of(kind));
    optimizer->step(kLr, optimizer->clipping(1e6, false));
    expect_equal_weights(scaled, plain);
  }
}

/// Matrices of many sizes, one of them larger than what LAMB keeps in the cache between its passes.
std::vector<nn::NamedParameter> many_parameters() {
  at::manual_seed(10);
  std::vector<nn::NamedParameter> parameters;
  for (int i = 0; i < 300; ++i) {
    const auto value = at::randn({3, i == 150 ? 70001 : 1 + i * 37 % 1500});
    parameters.push_back(parameter(std::to_string(i), value));
    set_gradient(parameters.back(), at::randn_like(value));
  }
  return parameters;
}

TEST(Clipping, ClippedStepsDoNotDependOnTheNumberOfThreads) {
  for (const auto kind : kKinds)
    for (const bool each_slice : {false, true}) {
      std::vector<std::vector<nn::NamedParameter>> results;
      for (const int threads : {1, 2}) {
        at::set_num_threads(threads);
        results.push_back(many_parameters());
        const auto optimizer = make_optimizer(results.back(), options_of(kind));
        for (int step = 0; step < 2; ++step) optimizer->step(kLr, optimizer->clipping(30, each_slice));
      }
      expect_equal_weights(results[1], results[0]);
    }
}

TEST(Clipping, TensorsTrainTogetherAsAlone) {
  for (const auto kind : kKinds) {
    const auto together = many_parameters(), alone = many_parameters();
    auto options = options_of(kind);
    options.dialect = LambDialect::kPaper;  // nvlamb's norm is a joint one
    make_optimizer(together, options)->step(kLr);
    for (const auto& p : alone) make_optimizer({p}, options)->step(kLr);
    expect_equal_weights(together, alone);
  }
}

TEST(Clipping, AGradientThatLiesTransposedCountsLikeAnyOther) {
  for (const auto kind : kKinds) {
    const auto plain = parameter("w", at::ones({40, 30})), transposed = parameter("w", at::ones({40, 30}));
    set_gradient(plain, at::randn({40, 30}));
    transposed.tensor.mutable_grad() = plain.tensor.grad().t().contiguous().t();
    for (const auto& p : {plain, transposed}) {
      const auto optimizer = make_optimizer({p}, options_of(kind));
      optimizer->step(kLr, optimizer->clipping(1, false));
    }
    EXPECT_TRUE(at::equal(plain.tensor, transposed.tensor)) << static_cast<int>(kind);
  }
}

}  // namespace
}  // namespace stoa::optim
