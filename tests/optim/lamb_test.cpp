#include <gtest/gtest.h>

#include <cmath>

#include "support/parameters.h"

namespace stoa::optim {
namespace {

using test::distance;
using test::doubles;
using test::parameter;
using test::set_gradient;
using test::trajectory;

constexpr double kLr = 0.01, kDecay = 0.01, kEps = 1e-6;

/// The settings of large-scale-optimisation.md, check 7.2.
OptimizerOptions lamb(LambDialect dialect = LambDialect::kPaper, double weight_decay = kDecay) {
  OptimizerOptions options;
  options.kind = OptimizerKind::kLamb;
  options.lr = kLr;
  options.weight_decay = weight_decay;
  options.eps = kEps;
  options.dialect = dialect;
  options.exclude_vectors = false;
  return options;
}

const std::vector<at::Tensor>& gradients() {
  static const std::vector<at::Tensor> values = {doubles({0.6, -0.8}), doubles({0.2, 0.1})};
  return values;
}

void expect_steps(const OptimizerOptions& options, const std::vector<at::Tensor>& expected) {
  const auto weights = trajectory(options, doubles({3, 4}), gradients());
  for (std::size_t i = 0; i < expected.size(); ++i)
    EXPECT_LT(distance(weights[i], expected[i]), 5.1e-10) << "step " << i + 1;
}

/// u of the first step with bias correction: g / (|g| + eps) + decay w.
at::Tensor first_update(const at::Tensor& w, const at::Tensor& g, double weight_decay = kDecay) {
  return g / (g.abs() + kEps) + weight_decay * w;
}

at::Tensor after_first(const OptimizerOptions& options, const at::Tensor& w, const at::Tensor& g) {
  return trajectory(options, w, {g}).front();
}

TEST(Lamb, ThePapersSteps) {
  expect_steps(lamb(), {doubles({2.963423633, 4.034090605}), doubles({2.920328548, 4.059554116})});
}

TEST(Lamb, ThePapersRatio) {
  const auto u = first_update(doubles({3, 4}), gradients()[0]);
  EXPECT_NEAR(5 / u.norm().item<double>(), 3.551109, 5e-7);
  EXPECT_LT(distance(after_first(lamb(), doubles({3, 4}), gradients()[0]),
                     doubles({3, 4}) - kLr * 5 / u.norm() * u),
            1e-15);
}

TEST(Lamb, StepsWithoutBiasCorrection) {
  auto options = lamb();
  options.bias_correction = false;
  expect_steps(options, {doubles({2.964255138, 4.034961477}), doubles({2.922108554, 4.061988088})});
}

TEST(Lamb, TheGradientsScaleDoesNotMatter) {
  const auto small = trajectory(lamb(), doubles({3, 4}), gradients());
  const auto large = trajectory(lamb(), doubles({3, 4}), {gradients()[0] * 1000, gradients()[1] * 1000});
  EXPECT_LT(distance(small.back(), large.back()), 1e-6);
  EXPECT_GT(distance(small.back(), large.back()), 0);
}

TEST(Lamb, DialectV1HoldsTheRatioAtTen) {
  const auto w = doubles({30, 40}), g = gradients()[0], u = first_update(w, g);
  ASSERT_GT(50 / u.norm().item<double>(), 10);
  EXPECT_LT(distance(after_first(lamb(LambDialect::kV1), w, g), w - kLr * 10 * u), 1e-14);
  EXPECT_TRUE(at::equal(after_first(lamb(LambDialect::kV1), doubles({3, 4}), g),
                        after_first(lamb(), doubles({3, 4}), g)));
}

TEST(Lamb, DialectClipHoldsTheRatioAtOne) {
  const auto w = doubles({3, 4}), g = gradients()[0], small = doubles({0.3, 0.4});
  EXPECT_LT(distance(after_first(lamb(LambDialect::kClip), w, g), w - kLr * first_update(w, g)), 1e-15);
  EXPECT_TRUE(at::equal(after_first(lamb(LambDialect::kClip), small, g), after_first(lamb(), small, g)));
}

TEST(Lamb, DialectNvLambDividesByTheJointNormAboveOne) {
  const auto scaled =
      trajectory(lamb(LambDialect::kNvLamb), doubles({3, 4}), {doubles({6, -8}), gradients()[1]});
  EXPECT_LT(distance(scaled[0], doubles({2.963423633, 4.034090605})), 5.1e-10);
  EXPECT_LT(distance(scaled[1], doubles({2.920328548, 4.059554116})), 5.1e-10);
}

TEST(Lamb, DialectNvLambsNormIsOverAllParametersTogether) {
  const auto w = parameter("w", doubles({3, 4})), other = parameter("other", doubles({1}));
  set_gradient(w, doubles({6, -8}));
  set_gradient(other, doubles({std::sqrt(300.0)}));
  const auto optimizer = make_optimizer({w, other}, lamb(LambDialect::kNvLamb));
  optimizer->step(kLr);
  EXPECT_LT(distance(optimizer->state().at("w.exp_avg"), doubles({0.03, -0.04})), 1e-16);
}

TEST(Lamb, DialectNvLambKeepsRatioOneWithoutDecayUnlessAsked) {
  const auto w = doubles({3, 4}), g = gradients()[0], u = first_update(w, g, 0);
  auto options = lamb(LambDialect::kNvLamb, 0);
  EXPECT_LT(distance(after_first(options, w, g), w - kLr * u), 1e-15);
  options.use_nvlamb = true;
  EXPECT_LT(distance(after_first(options, w, g), w - kLr * 5 / u.norm() * u), 1e-15);
}

TEST(Lamb, DialectNvLambCanAddWholeGradients) {
  auto options = lamb(LambDialect::kNvLamb);
  options.grad_averaging = false;
  const auto w = doubles({3, 4}), g = gradients()[0], u = 10 * g / (g.abs() + kEps) + kDecay * w;
  EXPECT_LT(distance(after_first(options, w, g), w - kLr * 5 / u.norm() * u), 1e-14);
}

TEST(Lamb, ExcludedTensorsGetNeitherRatioNorDecay) {
  auto options = lamb();
  options.exclude = {"w"};
  const auto w = doubles({3, 4}), g = gradients()[0];
  EXPECT_LT(distance(after_first(options, w, g), w - kLr * first_update(w, g, 0)), 1e-15);
  options.exclude.clear();
  options.exclude_vectors = true;
  EXPECT_LT(distance(after_first(options, w, g), w - kLr * first_update(w, g, 0)), 1e-15);
}

TEST(Lamb, AZeroTensorMovesWithRatioOne) {
  const auto w = doubles({0, 0}), g = gradients()[0];
  EXPECT_LT(distance(after_first(lamb(), w, g), -kLr * first_update(w, g)), 1e-16);
}

TEST(Lamb, WithoutAnyGradientOnlyDecayMovesTheWeights) {
  const auto w = doubles({3, 4});
  EXPECT_LT(distance(after_first(lamb(), w, doubles({0, 0})), w * (1 - kLr)), 1e-15);
  EXPECT_TRUE(at::equal(after_first(lamb(LambDialect::kPaper, 0), w, doubles({0, 0})), w));
}

/// Fused tensors with their slices, and the same slices as tensors of their own.
struct Fused {
  std::string name;
  at::Tensor value;
  bool keep_dim;  ///< slices of a fused tensor keep dimension 0, those of a stack lose it
};

void expect_slices_train_as_parts(const OptimizerOptions& options) {
  at::manual_seed(6);
  const std::vector<Fused> tensors = {{"qkv_weight", at::randn({6, 4}), true},
                                      {"qkv_bias", at::randn({6}), true},
                                      {"expert_weight", at::randn({3, 90, 101}), false},
                                      {"expert_bias", at::randn({3, 5}), false}};
  std::vector<nn::NamedParameter> fused, parts;
  const auto slice = [](const Fused& tensor, const at::Tensor& of, int i) {
    return tensor.keep_dim ? of.chunk(3)[i] : of[i];
  };
  for (const auto& tensor : tensors) {
    fused.push_back(parameter(tensor.name, tensor.value, 3));
    for (int i = 0; i < 3; ++i)
      parts.push_back(parameter(tensor.name + std::to_string(i), slice(tensor, tensor.value, i)));
  }
  const auto one = make_optimizer(fused, options), many = make_optimizer(parts, options);
  for (int step = 0; step < 3; ++step) {
    for (std::size_t k = 0; k < tensors.size(); ++k) {
      set_gradient(fused[k], at::randn_like(tensors[k].value));
      for (int i = 0; i < 3; ++i)
        set_gradient(parts[3 * k + i], slice(tensors[k], fused[k].tensor.grad(), i).clone());
    }
    one->step(0.1);
    many->step(0.1);
  }
  for (std::size_t k = 0; k < tensors.size(); ++k)
    for (int i = 0; i < 3; ++i)
      EXPECT_TRUE(at::equal(slice(tensors[k], fused[k].tensor, i), parts[3 * k + i].tensor))
          << parts[3 * k + i].name;
}

TEST(Lamb, SlicesTrainExactlyAsSeparateTensors) {
  expect_slices_train_as_parts(lamb());
}

TEST(Lamb, SlicesThatAreVectorsAreExcludedLikeVectors) {
  auto options = lamb();
  options.exclude_vectors = true;
  expect_slices_train_as_parts(options);
}

TEST(Lamb, AFusedTensorWithoutSlicesTrainsDifferently) {
  const auto whole = parameter("qkv", doubles({3, 4, 30, 40}).reshape({4, 1})),
             fused = parameter("qkv", whole.tensor, 2);
  for (const auto& p : {whole, fused}) {
    set_gradient(p, doubles({0.6, -0.8, 0.2, 0.1}).reshape({4, 1}));
    make_optimizer({p}, lamb())->step(kLr);
  }
  EXPECT_GT(distance(whole.tensor, fused.tensor), 1e-3);
}

}  // namespace
}  // namespace stoa::optim
