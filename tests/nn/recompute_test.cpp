#include "stoa/nn/recompute.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/types.h>
#include <torch/utils.h>

#include "stoa/tensor/runtime.h"

namespace stoa::nn {
namespace {

struct Case {
  at::Tensor x = at::randn({6, 8}).requires_grad_(), y = at::randn({6, 8}).requires_grad_(),
             w = at::randn({8, 8}).requires_grad_();
  int runs = 0;
  Block block = [this](const std::vector<at::Tensor>& in) {
    ++runs;
    const auto h = at::dropout(at::gelu(at::linear(in[0], w)), 0.5, true);
    return std::vector<at::Tensor>{h + in[1], h.square().mean()};
  };

  /// Outputs, then gradients, with random numbers from one seed.
  std::vector<at::Tensor> results(bool again) {
    torch::manual_seed(3);
    for (auto* leaf : {&x, &y, &w}) leaf->mutable_grad() = at::Tensor();
    auto out = again ? recompute(block, {x, y}) : block({x, y});
    at::rand({5});  // the second run must not see where the generator is by then
    (out[0].to(at::kFloat).pow(3).sum() + 2 * out[1]).backward();
    return {out[0].detach(), out[1].detach(), x.grad(), y.grad(), w.grad()};
  }
};

TEST(Recompute, GivesTheSameOutputsAndGradients) {
  Case c;
  const auto wanted = c.results(false);
  c.runs = 0;
  const auto found = c.results(true);
  EXPECT_EQ(c.runs, 2);
  for (std::size_t i = 0; i < wanted.size(); ++i) EXPECT_TRUE(found[i].equal(wanted[i])) << i;
}

TEST(Recompute, RunsTheBlockUnderTheSameAutocast) {
  Case c;
  Runtime runtime;
  runtime.bf16 = true;
  const auto results = [&](bool again) {
    const AutocastScope autocast(runtime);
    return c.results(again);
  };
  const auto wanted = results(false), found = results(true);
  for (std::size_t i = 0; i < wanted.size(); ++i) EXPECT_TRUE(found[i].equal(wanted[i])) << i;
}

TEST(Recompute, LeavesTheGeneratorWhereItWas) {
  Case c;
  c.results(true);
  const auto after = at::rand({3});
  c.results(false);
  EXPECT_TRUE(at::rand({3}).equal(after));
}

TEST(Recompute, RunsOnceWithoutGradients) {
  Case c;
  const at::NoGradGuard no_gradients;
  recompute(c.block, {c.x, c.y});
  EXPECT_EQ(c.runs, 1);
}

TEST(Recompute, MakesOnlyTheGradientsThatAreAskedFor) {
  Case c;
  c.x.set_requires_grad(false);
  recompute(c.block, {c.x, c.y})[1].backward();
  EXPECT_FALSE(c.x.grad().defined());
  EXPECT_TRUE(c.w.grad().defined());
}

}  // namespace
}  // namespace stoa::nn
