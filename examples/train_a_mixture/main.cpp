// Trains a mixture of experts on tensors of your own, with Stoa as a library (CMakeLists.txt says how to
// build it).
#include <ATen/ATen.h>
#include <torch/types.h>

#include <cmath>
#include <cstdio>
#include <exception>

#include "stoa/nn/moe/mixture.h"
#include "stoa/optim/optimizer.h"
#include "stoa/tensor/host_allocator.h"

namespace {

constexpr std::int64_t kDim = 16, kTokens = 32, kKinds = 4, kSteps = 600;

// A stand-in for your own tensors: tokens of four kinds, each kind with a linear map of its own from x to y.
struct Problem {
  at::Tensor centres = 2 * at::randn({kKinds, kDim});
  at::Tensor maps = at::randn({kKinds, kDim, kDim}) / std::sqrt(kDim);

  // x and y [samples, tokens, dim]
  std::pair<at::Tensor, at::Tensor> sample(std::int64_t samples) const {
    const at::Tensor kind = at::randint(kKinds, {samples, kTokens}, at::kLong);
    const at::Tensor x = centres.index({kind}) + at::randn({samples, kTokens, kDim});
    return {x, at::einsum("std,stde->ste", {x, maps.index({kind})})};
  }
};

void train() {
  stoa::configure_allocator();
  at::manual_seed(0);
  const Problem problem;

  stoa::nn::MixtureOptions options;
  options.dim = kDim;
  options.hidden = 32;
  options.router.experts = 8;
  options.router.top_k = 2;
  stoa::nn::Mixture mixture(options);

  stoa::optim::OptimizerOptions adam;
  adam.lr = 0.01;
  const auto optimizer = stoa::optim::make_optimizer(stoa::nn::distinct_parameters(*mixture), adam);

  for (std::int64_t step = 0; step < kSteps; ++step) {
    const auto [x, y] = problem.sample(64);
    const stoa::nn::MixtureOutput result = mixture->forward(x);
    at::Tensor loss = at::mse_loss(result.output, y);
    if (step % 100 == 0) std::printf("step %3ld: squared error %.4f\n", long(step), loss.item<double>());
    const auto side = stoa::nn::routing_outputs({result.statistics}, options.router);
    for (const auto& [name, value] : side.losses) loss = loss + value;  // keeps all experts busy
    optimizer->zero_grad();
    loss.backward();
    optimizer->step(adam.lr * (1 - static_cast<double>(step) / kSteps));
  }

  mixture->eval();  // no noise, and no token is dropped
  const torch::NoGradGuard no_gradients;
  const auto [x, y] = problem.sample(256);
  const stoa::nn::MixtureOutput result = mixture->forward(x);
  const double unexplained = (at::mse_loss(result.output, y) / y.var()).item<double>();
  std::printf("explained variance %.3f; tokens by expert:", 1 - unexplained);
  for (std::int64_t expert = 0; expert < options.router.experts; ++expert)
    std::printf(" %ld", long(result.statistics.kept[expert].item<std::int64_t>()));
  std::printf("\n");
}

}  // namespace

int main() {
  try {
    train();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
