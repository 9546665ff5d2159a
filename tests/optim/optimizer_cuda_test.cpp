// The update rules on a GPU against those on the CPU.
#include <gtest/gtest.h>
#include <torch/cuda.h>

#include "stoa/optim/optimizer.h"
#include "support/parameters.h"

namespace stoa::optim {
namespace {

using test::distance;
using test::parameter;
using test::set_gradient;

class OptimizerOnCuda : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!torch::cuda::is_available()) GTEST_SKIP() << "LibTorch sees no CUDA device";
  }
};

/// A matrix of three slices, a large vector, one without gradient, and a strided matrix that the kernels
/// leave to ATen.
std::vector<nn::NamedParameter> parameters(at::ScalarType type, at::Device device) {
  at::manual_seed(6);
  const auto random = [&](at::IntArrayRef shape) { return at::randn(shape, at::kDouble).to(device, type); };
  auto all = std::vector{parameter("a", random({6, 700}), 3), parameter("b", random({20'000})),
                         parameter("still", random({9}))};
  all.push_back({"strided", random({5, 4}).t().set_requires_grad(true), 1});
  return all;
}

void expect_equal_steps(const OptimizerOptions& options, at::ScalarType type, double tolerance) {
  const auto here = parameters(type, at::kCPU), there = parameters(type, at::kCUDA);
  const auto ours = make_optimizer(here, options), theirs = make_optimizer(there, options);
  for (int step = 0; step < 5; ++step) {
    for (std::size_t i = 0; i < here.size(); ++i) {
      if (here[i].name == "still") continue;
      const auto gradient = at::randn(here[i].tensor.sizes(), at::kDouble);
      set_gradient(here[i], gradient);
      set_gradient(there[i], gradient.to(at::kCUDA));
    }
    const bool each_slice = step % 2 == 1;  // clips some slices and not others, then all together
    const double limit = each_slice ? 37 : 100;
    const auto scale = ours->clipping(limit, each_slice), other = theirs->clipping(limit, each_slice);
    EXPECT_NEAR(other.norm, scale.norm, 1e-5 * scale.norm);
    ours->step(options.lr, scale);
    theirs->step(options.lr, other);
    for (std::size_t i = 0; i < here.size(); ++i)
      ASSERT_LT(distance(here[i].tensor, there[i].tensor.cpu()), tolerance)
          << here[i].name << ", step " << step;
  }
}

void check(OptimizerOptions options) {
  options.lr = 0.05;
  options.weight_decay = 0.1;
  options.exclude_vectors = false;
  expect_equal_steps(options, at::kFloat, 2e-5);
  expect_equal_steps(options, at::kDouble, 1e-12);
  expect_equal_steps(options, at::kBFloat16, 0.1);  // by ATen
}

TEST_F(OptimizerOnCuda, SgdEqualsTheCpus) {
  for (const double momentum : {0.0, 0.9})
    for (const bool nesterov : {false, true}) {
      OptimizerOptions options;
      options.kind = OptimizerKind::kSgd;
      options.momentum = momentum;
      options.nesterov = nesterov && momentum > 0;
      check(options);
    }
}

TEST_F(OptimizerOnCuda, AdamWEqualsTheCpus) {
  for (const bool decoupled : {true, false}) {
    OptimizerOptions options;
    options.kind = OptimizerKind::kAdamW;
    options.decoupled = decoupled;
    check(options);
  }
}

TEST_F(OptimizerOnCuda, LambEqualsTheCpusInEveryDialect) {
  for (const auto dialect :
       {LambDialect::kPaper, LambDialect::kV1, LambDialect::kClip, LambDialect::kNvLamb}) {
    OptimizerOptions options;
    options.kind = OptimizerKind::kLamb;
    options.dialect = dialect;
    check(options);
  }
}

}  // namespace
}  // namespace stoa::optim
