#include "stoa/optim/optimizer.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/optim.h>

#include <cmath>

#include "stoa/base/config.h"
#include "stoa/base/errors.h"
#include "support/parameters.h"
#include "support/thrown.h"

namespace stoa::optim {
namespace {

using test::distance;
using test::doubles;
using test::parameter;
using test::set_gradient;
using test::thrown;
using test::trajectory;

constexpr OptimizerKind kKinds[] = {OptimizerKind::kSgd, OptimizerKind::kAdamW, OptimizerKind::kLamb};

OptimizerOptions options_of(OptimizerKind kind, double lr, double weight_decay = 0) {
  OptimizerOptions options;
  options.kind = kind;
  options.lr = lr;
  options.weight_decay = weight_decay;
  options.exclude_vectors = false;
  return options;
}

/// Weights of a scalar after each step with gradients .5, -.25, .1 (large-scale-optimisation.md, check 7.4).
void expect_scalar_steps(const OptimizerOptions& options, const std::vector<double>& expected,
                         double tolerance) {
  const auto weights = trajectory(options, doubles({1}), {doubles({0.5}), doubles({-0.25}), doubles({0.1})});
  for (std::size_t i = 0; i < expected.size(); ++i)
    EXPECT_NEAR(weights[i].item<double>(), expected[i], tolerance) << "step " << i + 1;
}

TEST(Optimizer, AdamsStepsOnAScalar) {
  expect_scalar_steps(options_of(OptimizerKind::kAdamW, 0.1), {0.900000002, 0.873366299, 0.841841943},
                      5.1e-10);
}

TEST(Optimizer, AdamWsStepsOnAScalar) {
  expect_scalar_steps(options_of(OptimizerKind::kAdamW, 0.1, 0.1), {0.890000002, 0.854466299, 0.81439728},
                      5.1e-10);
}

TEST(Optimizer, NesterovsStepsOnAScalar) {
  auto options = options_of(OptimizerKind::kSgd, 0.1);
  options.nesterov = true;
  expect_scalar_steps(options, {0.905, 0.912, 0.8768}, 5e-5);
}

TEST(Optimizer, CoupledDecayIsAddedToTheGradient) {
  auto options = options_of(OptimizerKind::kAdamW, 0.1, 0.1);
  options.decoupled = false;
  expect_scalar_steps(options, {0.900000002, 0.854441367, 0.802403794}, 5.1e-10);
}

TEST(Optimizer, AdamWithoutBiasCorrectionTakesItsMomentsAsTheyAre) {
  auto options = options_of(OptimizerKind::kAdamW, 0.1);
  options.bias_correction = false;
  expect_scalar_steps(options, {1 - 0.1 * 0.05 / (std::sqrt(0.00025) + 1e-8)}, 1e-14);
}

TEST(Optimizer, KerasAddsEpsilonBeforeTheBiasCorrection) {
  auto options = options_of(OptimizerKind::kAdamW, 1e-4, 2e-5);  // no gradient but that of 1e-5 w^2
  options.decoupled = false;
  options.eps = 1e-7;
  options.keras_eps = true;
  const std::vector<double> expected = {0.009994052, 0.009985846, 0.009975984};  // cowclip.md 7
  const std::vector<at::Tensor> none(3, doubles({0}));
  const auto weights = trajectory(options, doubles({0.01}), none);
  for (std::size_t i = 0; i < expected.size(); ++i)
    EXPECT_NEAR(weights[i].item<double>(), expected[i], 1e-9) << "step " << i + 1;
}

/// Twenty steps of ours and of LibTorch's on the same random gradients, with a rate that changes.
template <class Reference, class ReferenceOptions>
void expect_equal_to_libtorch(const OptimizerOptions& options, ReferenceOptions reference_options) {
  at::manual_seed(3);
  const std::vector<nn::NamedParameter> ours = {parameter("a", at::randn({7, 5}, at::kDouble)),
                                                parameter("b", at::randn({6}, at::kDouble))};
  std::vector<at::Tensor> theirs;
  for (const auto& p : ours) theirs.push_back(p.tensor.detach().clone().set_requires_grad(true));
  const auto optimizer = make_optimizer(ours, options);
  Reference reference(theirs, reference_options);
  for (int step = 0; step < 20; ++step) {
    for (std::size_t i = 0; i < ours.size(); ++i) {
      set_gradient(ours[i], at::randn_like(ours[i].tensor.detach()));
      theirs[i].mutable_grad() = ours[i].tensor.grad().clone();
    }
    const double lr = options.lr * (20 - step) / 20;
    optimizer->step(lr);
    static_cast<ReferenceOptions&>(reference.param_groups()[0].options()).lr(lr);
    reference.step();
    for (std::size_t i = 0; i < ours.size(); ++i)
      ASSERT_LT(distance(ours[i].tensor, theirs[i]), 1e-12) << "step " << step;
  }
}

TEST(Optimizer, AdamWEqualsLibTorchs) {
  expect_equal_to_libtorch<torch::optim::AdamW>(options_of(OptimizerKind::kAdamW, 0.1, 0.05),
                                                torch::optim::AdamWOptions(0.1).weight_decay(0.05));
}

TEST(Optimizer, PlainSgdEqualsLibTorchs) {
  auto options = options_of(OptimizerKind::kSgd, 0.1, 0.05);
  options.momentum = 0;
  expect_equal_to_libtorch<torch::optim::SGD>(options, torch::optim::SGDOptions(0.1).weight_decay(0.05));
}

TEST(Optimizer, DampenedMomentumEqualsLibTorchs) {
  auto options = options_of(OptimizerKind::kSgd, 0.1, 0.05);
  options.dampening = 0.3;
  expect_equal_to_libtorch<torch::optim::SGD>(
      options, torch::optim::SGDOptions(0.1).momentum(0.9).dampening(0.3).weight_decay(0.05));
}

TEST(Optimizer, NesterovMomentumEqualsLibTorchs) {
  auto options = options_of(OptimizerKind::kSgd, 0.1, 0.05);
  options.nesterov = true;
  expect_equal_to_libtorch<torch::optim::SGD>(
      options, torch::optim::SGDOptions(0.1).momentum(0.9).nesterov(true).weight_decay(0.05));
}

TEST(Optimizer, TensorsWithoutChunksTrainAlike) {
  for (const auto kind : kKinds)
    for (const bool nesterov : {false, true}) {
      at::manual_seed(4);
      auto options = options_of(kind, 0.1, 0.05);
      options.nesterov = nesterov;
      const auto start = at::randn({6, 5}, at::kDouble);
      const auto plain = parameter("w", start, 3);
      const nn::NamedParameter strided = {"w", start.t().contiguous().t().set_requires_grad(true), 3};
      ASSERT_FALSE(strided.tensor.is_contiguous());
      const auto first = make_optimizer({plain}, options), second = make_optimizer({strided}, options);
      for (int step = 0; step < 4; ++step) {
        set_gradient(plain, at::randn({6, 5}, at::kDouble));
        set_gradient(strided, plain.tensor.grad());
        first->step(0.1);
        second->step(0.1);
      }
      EXPECT_LT(distance(plain.tensor, strided.tensor), 1e-14) << static_cast<int>(kind);
    }
}

TEST(Optimizer, HalfWeightsAreUpdatedInFloat) {
  for (const auto kind : kKinds) {
    const auto half = parameter("w", at::full({3, 3}, 1.0, at::kBFloat16)),
               full = parameter("w", at::full({3, 3}, 1.0F));
    const auto options = options_of(kind, 0.05, 0.1);
    const auto first = make_optimizer({half}, options), second = make_optimizer({full}, options);
    set_gradient(half, at::full({3, 3}, 0.5));
    set_gradient(full, at::full({3, 3}, 0.5));
    first->step(0.05);
    second->step(0.05);
    EXPECT_TRUE(at::equal(half.tensor.detach(), full.tensor.detach().to(at::kBFloat16)))
        << static_cast<int>(kind);
    for (const auto& [name, tensor] : first->state())
      if (name != "step") {
        EXPECT_EQ(tensor.scalar_type(), at::kFloat) << name;
      }
  }
}

TEST(Optimizer, ResultsDoNotDependOnTheNumberOfThreads) {
  for (const auto kind : kKinds) {
    std::vector<at::Tensor> results;
    for (const int threads : {1, 3}) {
      at::set_num_threads(threads);
      at::manual_seed(5);
      const auto start = at::randn({400, 301});
      results.push_back(
          trajectory(options_of(kind, 0.01, 0.1), start, {at::ones({400, 301}), start.square()}).back());
    }
    EXPECT_TRUE(at::equal(results[0], results[1])) << static_cast<int>(kind);
  }
}

TEST(Optimizer, ResumedRunsContinueBitByBit) {
  for (const auto kind : kKinds) {
    auto options = options_of(kind, 0.1, 0.1);
    options.dampening = 0.5;
    const auto start = doubles({3, 4}), g = doubles({0.6, -0.8});
    const auto expected = trajectory(options, start, {g, g, g * 0.5}).back();
    const auto first = parameter("w", start);
    const auto before = make_optimizer({first}, options);
    set_gradient(first, g);
    before->step(options.lr);
    before->step(options.lr);
    const auto second = parameter("w", first.tensor);
    const auto after = make_optimizer({second}, options);
    after->load(before->state(), "optimizer.safetensors");
    set_gradient(second, g * 0.5);
    after->step(options.lr);
    EXPECT_TRUE(at::equal(second.tensor.detach(), expected)) << static_cast<int>(kind);
  }
}

TEST(Optimizer, StateIsNamedAfterTheParameters) {
  const auto optimizer = make_optimizer({parameter("layer.weight", at::ones({2, 2}))}, {});
  std::vector<std::string> names;
  for (const auto& item : optimizer->state()) names.push_back(item.first);
  EXPECT_EQ(names, (std::vector<std::string>{"layer.weight.exp_avg", "layer.weight.exp_avg_sq", "step"}));
}

TEST(Optimizer, AStateThatDoesNotFitIsRefusedWithFileAndTensor) {
  const auto optimizer = make_optimizer({parameter("w", at::ones({2, 2}))}, {});
  const auto refusal = [&](const std::map<std::string, at::Tensor>& state) {
    return thrown<DataError>([&] { optimizer->load(state, "run/optimizer.safetensors"); });
  };
  auto state = optimizer->state();
  state.erase("w.exp_avg");
  STOA_EXPECT_CONTAINS(refusal(state), "run/optimizer.safetensors: tensor `w.exp_avg` is missing");
  state["w.exp_avg"] = at::zeros({3});
  STOA_EXPECT_CONTAINS(refusal(state), "`w.exp_avg` has shape [3], [2, 2] is needed");
  state = optimizer->state();
  state["v.exp_avg"] = at::zeros({3});
  STOA_EXPECT_CONTAINS(refusal(state), "`v.exp_avg` has no place here");
}

TEST(Optimizer, VectorsAndListedNamesGetNoDecay) {
  for (const auto kind : {OptimizerKind::kSgd, OptimizerKind::kAdamW}) {
    auto options = options_of(kind, 0.1, 0.5);
    options.exclude_vectors = true;
    options.exclude = {"position"};
    const std::vector<nn::NamedParameter> parameters = {parameter("weight", at::ones({2, 2})),
                                                        parameter("bias", at::ones({2})),
                                                        parameter("scale", at::ones({})),
                                                        parameter("position", at::ones({2, 2})),
                                                        parameter("stack", at::ones({3, 2}), 3),
                                                        parameter("qkv", at::ones({6}), 3),
                                                        parameter("experts", at::ones({3, 2, 2}), 3)};
    make_optimizer(parameters, options)->step(0.1);
    for (const auto& p : parameters) {
      const bool decays = p.name == "weight" || p.name == "experts";
      EXPECT_EQ(p.tensor.max().item<float>(), decays ? 0.95F : 1.0F) << p.name;
    }
  }
}

TEST(Optimizer, ParametersWithoutGradientCountAsHavingAZeroOne) {
  for (const auto kind : kKinds) {
    const auto options = options_of(kind, 0.1, 0.1);
    const auto with = parameter("w", at::ones({2, 2})), without = parameter("w", at::ones({2, 2}));
    set_gradient(with, at::zeros({2, 2}));
    make_optimizer({with}, options)->step(0.1);
    make_optimizer({without}, options)->step(0.1);
    EXPECT_TRUE(at::equal(with.tensor, without.tensor)) << static_cast<int>(kind);
  }
}

TEST(Optimizer, FrozenParametersStay) {
  auto frozen = parameter("frozen", at::ones({2, 2}));
  frozen.tensor.requires_grad_(false);
  const auto optimizer =
      make_optimizer({frozen, parameter("w", at::ones({2, 2}))}, options_of(OptimizerKind::kAdamW, 0.1, 0.5));
  optimizer->step(0.1);
  EXPECT_EQ(frozen.tensor.min().item<float>(), 1);
  EXPECT_EQ(optimizer->parameters().size(), 1U);
}

TEST(Optimizer, AutogradNoticesWeightsChangedUnderAGraph) {
  const auto w = parameter("w", at::ones({2, 2}));
  const auto loss = w.tensor.square().sum();
  make_optimizer({w}, options_of(OptimizerKind::kAdamW, 0.1, 0.5))->step(0.1);
  EXPECT_THROW(loss.backward(), std::exception);
}

TEST(Optimizer, ZeroGradDropsTheGradients) {
  const auto w = parameter("w", at::ones({2, 2}));
  set_gradient(w, at::ones({2, 2}));
  make_optimizer({w}, {})->zero_grad();
  EXPECT_FALSE(w.tensor.grad().defined());
}

TEST(Optimizer, LambBringsItsOwnEpsilonUnlessOneIsGiven) {
  const auto eps = [](const char* recipe) {
    OptimizerOptions options;
    read_options(Config::from_text(recipe, "recipe.toml"), options);
    return options.eps;
  };
  EXPECT_EQ(eps("name = 'lamb'"), 1e-6);
  EXPECT_EQ(eps("name = 'lamb'\neps = 1e-7"), 1e-7);
  EXPECT_EQ(eps("name = 'adamw'"), 1e-8);
}

TEST(Optimizer, SettingsOutOfRangeAreRefusedByName) {
  const auto refusal = [](OptimizerKind kind, auto change) {
    auto options = options_of(kind, 0.1);
    change(options);
    return thrown<ConfigError>([&] { options.validate(); });
  };
  STOA_EXPECT_CONTAINS(refusal(kKinds[0], [](auto& o) { o.lr = -1; }), "`optimizer.lr` is -1");
  STOA_EXPECT_CONTAINS(refusal(kKinds[0], [](auto& o) { o.weight_decay = NAN; }),
                       "`optimizer.weight_decay` is nan");
  STOA_EXPECT_CONTAINS(refusal(kKinds[0], [](auto& o) { o.momentum = 1; }), "`optimizer.momentum` is 1");
  STOA_EXPECT_CONTAINS(refusal(kKinds[0], [](auto& o) { o.nesterov = true, o.momentum = 0; }),
                       "`optimizer.nesterov` needs `optimizer.momentum`");
  STOA_EXPECT_CONTAINS(refusal(kKinds[0], [](auto& o) { o.nesterov = true, o.dampening = 0.1; }),
                       "`optimizer.nesterov` needs `optimizer.momentum`");
  STOA_EXPECT_CONTAINS(refusal(kKinds[1], [](auto& o) { o.betas = {0.9, 1}; }), "`optimizer.betas` is 1");
  STOA_EXPECT_CONTAINS(refusal(kKinds[1], [](auto& o) { o.betas = {0.9}; }),
                       "`optimizer.betas` has 1 numbers");
  STOA_EXPECT_CONTAINS(refusal(kKinds[1], [](auto& o) { o.eps = -1; }), "`optimizer.eps` is -1");
  STOA_EXPECT_CONTAINS(refusal(kKinds[1], [](auto& o) { o.exclude = {""}; }),
                       "`optimizer.exclude` has an empty text");
  STOA_EXPECT_CONTAINS(refusal(kKinds[2], [](auto& o) { o.use_nvlamb = true; }), "`optimizer.use_nvlamb`");
}

TEST(Optimizer, OneTensorUnderTwoNamesIsRefused) {
  const auto w = parameter("w", at::ones({2, 2}));
  STOA_EXPECT_CONTAINS(thrown<ConfigError>([&] {
                         make_optimizer({w, {"tied", w.tensor, 1}}, {});
                       }),
                       "`w` and `tied`");
}

TEST(Optimizer, SlicesThatDoNotDivideAreRefused) {
  EXPECT_THROW(make_optimizer({parameter("w", at::ones({4, 2}), 3)}, {}), ShapeError);
}

TEST(Optimizer, AModelWithoutTrainableParametersIsRefused) {
  EXPECT_THROW(make_optimizer({}, {}), ConfigError);
}

TEST(Optimizer, SparseGradientsAreRefusedByName) {
  const auto w = parameter("table", at::ones({4, 2}));
  w.tensor.mutable_grad() = at::ones({4, 2}).to_sparse();
  const auto optimizer = make_optimizer({w}, {});
  STOA_EXPECT_CONTAINS(thrown<Error>([&] { optimizer->step(0.1); }), "`table` has a sparse gradient");
}

TEST(Optimizer, ARateThatIsNoNumberIsRefusedAndChangesNothing) {
  const auto w = parameter("w", at::ones({2, 2}));
  const auto optimizer = make_optimizer({w}, options_of(OptimizerKind::kAdamW, 0.1, 0.5));
  EXPECT_THROW(optimizer->step(NAN), ConfigError);
  EXPECT_EQ(w.tensor.min().item<float>(), 1);
  EXPECT_EQ(optimizer->state().at("step").item<std::int64_t>(), 0);
}

}  // namespace
}  // namespace stoa::optim
