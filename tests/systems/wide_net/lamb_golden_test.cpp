// Five LAMB steps on WideNet against the original program: losses, balance, gradient norms, weights.
#include <gtest/gtest.h>

#include "stoa/optim/clip.h"
#include "stoa/optim/optimizer.h"
#include "support/widenet_golden.h"

namespace stoa {
namespace {

struct Trained {
  std::vector<std::array<double, 3>> history;  // cross-entropy, balance, gradient norm before clipping
  std::shared_ptr<wide_net::WideNetImpl> model;
};

Trained train_five_steps(at::ScalarType type) {
  const auto golden = test::load_golden("widenet_a");
  const auto lamb = test::load_golden("lamb");
  const auto options = test::golden_options(true, "router.capacity_factor = 4.0");
  Trained result;
  result.model = std::make_shared<wide_net::WideNetImpl>(options, test::golden_input(true));
  result.model->to(type);
  test::load_golden_weights(*result.model, golden);
  result.model->eval();

  optim::OptimizerOptions update;
  update.kind = optim::OptimizerKind::kLamb;
  // the recording's constants are float32 numbers, in its double runs too
  update.betas = {0.9f, 0.999f};
  update.eps = 1e-6f;
  update.weight_decay = 0.1f;
  update.exclude_vectors = false;
  auto optimizer = optim::make_optimizer(nn::distinct_parameters(*result.model), update);
  const auto images = test::golden_images(golden, type);
  const auto labels = lamb.at("widenet_a/labels").to(at::kLong);
  for (int step = 0; step <= 5; ++step) {
    optimizer->zero_grad();
    const auto output = result.model->classify(images);
    const auto loss = at::cross_entropy_loss(output.logits, labels, {}, at::Reduction::Mean, -100, 0.1);
    const auto balance = output.side.losses.at(0).value;
    (loss + balance).backward();
    const double norm = optim::clip_global_norm(optimizer->parameters(), 1.0);
    result.history.push_back({loss.item<double>(), balance.item<double>(), norm});
    if (step < 5) optimizer->step(0.01f);
  }
  return result;
}

TEST(WideNetLambGolden, HistoryInDouble) {
  const auto golden = test::load_golden("lamb").at("widenet_a/history").to(at::kDouble);
  const auto trained = train_five_steps(at::kDouble);
  for (int step = 0; step <= 5; ++step)
    for (int column = 0; column < 3; ++column)
      EXPECT_NEAR(trained.history[step][column], golden[step][column].item<double>(), 1e-8)
          << step << ", " << column;
}

TEST(WideNetLambGolden, HistoryInFloat) {
  const auto golden = test::load_golden("lamb").at("widenet_a/float32.history").to(at::kDouble);
  const auto trained = train_five_steps(at::kFloat);
  for (int step = 0; step <= 5; ++step)
    for (int column = 0; column < 3; ++column)
      EXPECT_NEAR(trained.history[step][column], golden[step][column].item<double>(), 1e-5)
          << step << ", " << column;
}

TEST(WideNetLambGolden, WeightsAfterFiveSteps) {
  const auto lamb = test::load_golden("lamb");
  const auto trained = train_five_steps(at::kDouble);
  const auto state = nn::module_state(*trained.model);
  int compared = 0;
  for (const auto& [name, value] : lamb) {
    const std::string start = "widenet_a/after5.";
    if (!name.starts_with(start)) continue;
    const auto key = name.substr(start.size());
    // the gradient of k's bias is rounding noise, which LAMB scales up to a step of full size
    if (key == "attn.k.bias") continue;
    const double scale = std::max(1e-3, value.abs().max().item<double>());
    EXPECT_LT(test::largest_difference(test::golden_view(state, key, 24), value) / scale, 2e-6) << key;
    ++compared;
  }
  EXPECT_GT(compared, 40);
}

}  // namespace
}  // namespace stoa
