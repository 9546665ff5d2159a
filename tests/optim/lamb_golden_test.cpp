// LAMB of TensorFlow Addons 0.23 on five tensors for five steps (tests/golden/README.md).
#include <gtest/gtest.h>

#include "stoa/base/format.h"
#include "stoa/optim/clip.h"
#include "stoa/optim/schedule.h"
#include "stoa/tensor/safetensors.h"
#include "support/parameters.h"

namespace stoa::optim {
namespace {

constexpr const char* kNames[] = {"matrix", "bias_zero", "gain_one", "table", "scalar_small"};

const std::map<std::string, at::Tensor>& golden() {
  static const auto file = load_safetensors(std::string(STOA_SOURCE_DIR) + "/tests/golden/lamb.safetensors");
  return file.tensors;
}

/// Constants as the recording has them: float32 numbers, also in its double runs.
OptimizerOptions golden_options(bool decay) {
  OptimizerOptions options;
  options.kind = OptimizerKind::kLamb;
  options.betas = {0.9F, 0.999F};
  options.eps = 1e-6F;
  options.weight_decay = decay ? 0.1F : 0.0F;
  options.exclude_vectors = false;
  return options;
}

/// Weights by name after each of the five steps.
std::vector<std::map<std::string, at::Tensor>> run(bool decay_and_clip, at::ScalarType type) {
  std::vector<nn::NamedParameter> parameters;
  for (const std::string name : kNames)
    parameters.push_back(test::parameter(name, golden().at("toy/start." + name).to(type)));
  const auto optimizer = make_optimizer(parameters, golden_options(decay_and_clip));
  std::vector<std::map<std::string, at::Tensor>> steps;
  for (int k = 0; k < 5; ++k) {
    for (const auto& p : parameters)
      test::set_gradient(p, golden().at(format("toy/grad.{}.{}", k, p.name)).clone());
    if (decay_and_clip) clip_global_norm(parameters, 1);
    optimizer->step(golden().at("toy/lr")[k].item<double>());
    steps.emplace_back();
    for (const auto& p : parameters) steps.back()[p.name] = p.tensor.detach().clone();
  }
  return steps;
}

void expect_recorded_steps(bool decay_and_clip, at::ScalarType type, double tolerance) {
  const std::string name = decay_and_clip ? "toy/wd0.1_clip1" : "toy/wd0_noclip";
  const auto steps = run(decay_and_clip, type);
  for (int k = 1; k <= 5; ++k)
    for (const auto& [tensor, value] : steps[k - 1])
      EXPECT_LT(test::distance(value, golden().at(format("{}/step.{}.{}", name, k, tensor))), tolerance)
          << tensor << " after " << k;
}

TEST(LambGolden, DecayAndClippingInDouble) {
  expect_recorded_steps(true, at::kDouble, 1e-14);
}

TEST(LambGolden, NoDecayNoClippingInDouble) {
  expect_recorded_steps(false, at::kDouble, 1e-14);
}

TEST(LambGolden, DecayAndClippingInFloat) {
  expect_recorded_steps(true, at::kFloat, 1e-6);
}

TEST(LambGolden, NoDecayNoClippingInFloat) {
  expect_recorded_steps(false, at::kFloat, 1e-6);
}

TEST(LambGolden, TheRecordedFloatRunIsAsNear) {
  for (const bool decay_and_clip : {true, false}) {
    const std::string name = decay_and_clip ? "toy/wd0.1_clip1" : "toy/wd0_noclip";
    const auto last = run(decay_and_clip, at::kFloat).back();
    for (const auto& [tensor, value] : last)
      EXPECT_LT(test::distance(value, golden().at(format("{}/float32.step.5.{}", name, tensor))), 1e-6)
          << tensor;
  }
}

TEST(LambGolden, TheLinearScheduleGivesTheRecordedRates) {
  ScheduleOptions schedule;
  schedule.warmup = 2;
  schedule.start = schedule.end = 1e-5;
  for (int t = 0; t < 5; ++t)
    EXPECT_NEAR(learning_rate(schedule, 0.01, t, 6), golden().at("toy/lr")[t].item<double>(), 1e-9) << t;
}

}  // namespace
}  // namespace stoa::optim
