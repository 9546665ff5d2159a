// Training with the operators' fast forms follows the same curve as with the plain ones.
#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include "stoa/ops/gemm.h"
#include "stoa/optim/optimizer.h"
#include "stoa/systems/wide_net/model.h"
#include "stoa/tensor/runtime.h"

namespace stoa::wide_net {
namespace {

std::vector<double> losses_of(const WideNetOptions& options, bool bf16 = false) {
  Runtime runtime;
  runtime.bf16 = bf16;
  torch::manual_seed(12);
  WideNetImpl model(options, {3, 16, 10});
  model.train();
  const auto optimizer = optim::make_optimizer(nn::distinct_parameters(model), {});
  const auto images = at::randn({24, 3, 16, 16});
  const auto labels = at::randint(10, {24}, at::kLong);
  std::vector<double> losses;
  for (int step = 0; step < 20; ++step) {
    torch::manual_seed(static_cast<std::uint64_t>(step));
    optimizer->zero_grad();
    const auto output = [&] {
      const AutocastScope autocast(runtime);
      return model.classify(images);
    }();
    auto loss = at::cross_entropy_loss(output.logits, labels);
    losses.push_back(loss.item<double>());
    for (const auto& side : output.side.losses) loss = loss + side.value;
    loss.backward();
    optimizer->step(3e-3);
  }
  return losses;
}

void expect_same_curve(WideNetOptions options) {
  const auto fast = losses_of(options);
  ops::forbid_gemm_blocks(true);
  options.backend = ops::MixtureBackend::kNaive;
  const auto plain = losses_of(options);
  ops::forbid_gemm_blocks(false);
  EXPECT_LT(fast.back(), 0.6 * fast.front());  // something was learned
  for (std::size_t i = 0; i < fast.size(); ++i)
    EXPECT_NEAR(fast[i], plain[i], 2e-3 * plain.front()) << "step " << i;
}

WideNetOptions small() {
  WideNetOptions o;
  o.patch = 4;
  o.dim = 48;
  o.depth = 3;
  o.heads = 3;
  o.mlp_dim = 96;
  return o;
}

TEST(FastForms, TrainAWideNetAlike) {
  expect_same_curve(small());
}

TEST(FastForms, TrainAWideNetAlikeWithOperandsInBfloat16) {
  if (!ops::has_gemm_blocks(ops::Operands::kBfloat16))
    GTEST_SKIP() << "this CPU does not multiply bf16 natively";
  auto options = small();
  options.router.noise = 0;
  const auto whole = losses_of(options), rounded = losses_of(options, /*bf16=*/true);
  EXPECT_NE(whole, rounded);
  for (std::size_t i = 0; i < whole.size(); ++i)
    EXPECT_NEAR(whole[i], rounded[i], 0.05 * whole.front()) << "step " << i;
}

TEST(FastForms, TrainAVisionTransformerAlike) {
  auto options = small();
  options.mixture_layers = 0;
  options.share_attention = options.share_mlp = false;
  options.class_slot = ClassSlot::kZero;
  options.pooling = Pooling::kToken;
  options.drop_path = 0.2;
  options.layer_scale = 0.5;
  options.dropout = 0.1;
  expect_same_curve(options);
}

}  // namespace
}  // namespace stoa::wide_net
