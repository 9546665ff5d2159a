#include "stoa/optim/average.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "stoa/base/errors.h"
#include "support/thrown.h"

namespace stoa::optim {
namespace {

struct Toy : torch::nn::Module {
  explicit Toy(std::int64_t size = 2) {
    weight = register_parameter("weight", at::ones({size}, at::kDouble));
    mean = register_buffer("mean", at::zeros({1}));
    count = register_buffer("count", at::zeros({}, at::kLong));
  }
  void set(double value) {
    at::NoGradGuard no_grad;
    weight.fill_(value);
    mean.fill_(value);
    count.fill_(static_cast<std::int64_t>(value));
  }
  at::Tensor weight, mean, count;
};

double weight_average(const MovingAverage& average) {
  return average.state().at("weight")[0].item<double>();
}

TEST(MovingAverage, BeginsAtTheWeights) {
  Toy toy;
  const MovingAverage average(toy, 0.99);
  toy.set(5);
  EXPECT_EQ(weight_average(average), 1);
}

TEST(MovingAverage, FirstUpdatesForgetQuickly) {
  Toy toy;
  MovingAverage average(toy, 0.99);
  toy.set(2);
  average.update();
  EXPECT_DOUBLE_EQ(weight_average(average), 1.0 * 2 / 11 + 2.0 * 9 / 11);
  toy.set(3);
  average.update();
  EXPECT_DOUBLE_EQ(weight_average(average), (2.0 / 11 + 18.0 / 11) * 3 / 12 + 3.0 * 9 / 12);
}

TEST(MovingAverage, LaterUpdatesUseTheDecayItself) {
  Toy toy;
  MovingAverage average(toy, 0.1);
  toy.set(2);
  average.update();
  EXPECT_DOUBLE_EQ(weight_average(average), 1.9);
}

TEST(MovingAverage, BuffersAreAveragedAndCountersCopied) {
  Toy toy;
  MovingAverage average(toy, 0.1);
  toy.set(2);
  average.update();
  EXPECT_FLOAT_EQ(average.state().at("mean").item<float>(), 1.8F);
  EXPECT_EQ(average.state().at("count").item<std::int64_t>(), 2);
}

TEST(MovingAverage, SwapPutsTheAveragesIntoTheModelAndBack) {
  Toy toy;
  MovingAverage average(toy, 0.1);
  toy.set(2);
  average.update();
  average.swap();
  EXPECT_DOUBLE_EQ(toy.weight[0].item<double>(), 1.9);
  average.swap();
  EXPECT_EQ(toy.weight[0].item<double>(), 2);
  EXPECT_DOUBLE_EQ(weight_average(average), 1.9);
}

TEST(MovingAverage, ContinuesFromALoadedState) {
  Toy toy;
  MovingAverage average(toy, 0.99);
  toy.set(2);
  average.update();
  Toy other;
  MovingAverage resumed(other, 0.99);
  resumed.load(average.state(), "average.safetensors");
  toy.set(3);
  other.set(3);
  average.update();
  resumed.update();
  EXPECT_EQ(weight_average(resumed), weight_average(average));
}

TEST(MovingAverage, RefusesTheStateOfAnotherModel) {
  Toy toy, larger(3);
  MovingAverage average(toy, 0.99);
  const auto message = test::thrown<DataError>(
      [&] { average.load(MovingAverage(larger, 0.99).state(), "average.safetensors"); });
  STOA_EXPECT_CONTAINS(message, "average.safetensors: tensor `weight` has shape [3], [2] is needed");
}

TEST(MovingAverage, RefusesADecayOutsideZeroToOne) {
  Toy toy;
  EXPECT_THROW(MovingAverage(toy, 1), ConfigError);
  EXPECT_THROW(MovingAverage(toy, -0.1), ConfigError);
}

}  // namespace
}  // namespace stoa::optim
