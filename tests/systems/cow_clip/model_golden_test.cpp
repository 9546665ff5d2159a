// DeepFM and DCN against training steps recorded from the original program: logits, losses, every gradient.
#include <gtest/gtest.h>

#include "systems/cow_clip/problem.h"
#include "systems/cow_clip/recorded.h"

namespace stoa::cow_clip {
namespace {

struct Case {
  Network network;
  const char* name;
  double l2;
  std::int64_t steps;
};

const Case kCases[] = {{Network::kDeepFm, "act", 1e-3, 6},   {Network::kDeepFm, "floor", 1e-3, 6},
                       {Network::kDeepFm, "inert", 1e-3, 6}, {Network::kDeepFm, "base", 1e-5, 6},
                       {Network::kDcn, "act", 1e-3, 3},      {Network::kDcn, "floor", 1e-3, 2},
                       {Network::kDcn, "inert", 1e-3, 2},    {Network::kDcn, "base", 1e-5, 2}};

void PrintTo(const Case& c, std::ostream* out) {
  *out << (c.network == Network::kDcn ? "dcn/" : "deepfm/") << c.name;
}

/// The tables' rows of a step's batch as leaves, and what their gradients are as the tables'.
struct Tables {
  Tables(const test::RecordedSteps& golden, const Case& c, std::int64_t step, at::ScalarType type) {
    ids = golden.batch("ids", step).to(at::kLong);
    std::vector<at::Tensor> embeddings, linear;
    for (std::int64_t j = 0; j < test::kRecordedFields; ++j) {
      weights.push_back(golden.before(c.name, step, format("W.{}", j)).to(type));
      first_order.push_back(golden.before(c.name, step, format("L.{}", j)).to(type));
      embeddings.push_back(weights.back().index_select(0, ids.select(1, j)));
      linear.push_back(first_order.back().squeeze(1).index_select(0, ids.select(1, j)));
      squares += weights.back().to(at::kDouble).square().sum().item<double>() +
                 first_order.back().to(at::kDouble).square().sum().item<double>();
    }
    rows.embeddings = at::stack(embeddings, 1).set_requires_grad(true);
    rows.linear = at::stack(linear, 1).set_requires_grad(true);
  }
  /// Gradient of the whole loss for field j's table of embeddings, or of first-order weights.
  at::Tensor embedding_gradient(std::int64_t j, double l2) const {
    return (2 * l2 * weights[static_cast<std::size_t>(j)])
        .index_add(0, ids.select(1, j), rows.embeddings.grad().select(1, j));
  }
  at::Tensor linear_gradient(std::int64_t j, double l2) const {
    return (2 * l2 * first_order[static_cast<std::size_t>(j)])
        .index_add(0, ids.select(1, j), rows.linear.grad().select(1, j).unsqueeze(1));
  }
  at::Tensor ids;
  std::vector<at::Tensor> weights, first_order;
  nn::EmbeddingRows rows;
  double squares = 0;
};

class CowClipGolden : public testing::TestWithParam<std::tuple<Case, at::ScalarType>> {};

TEST_P(CowClipGolden, LogitsLossesAndGradientsOfEveryStep) {
  const auto& [c, type] = GetParam();
  const test::RecordedSteps golden(c.network);
  ASSERT_EQ(golden.steps(c.name), c.steps);
  for (std::int64_t step = 1; step <= c.steps; ++step) {
    SCOPED_TRACE(format("step {}", step));
    const auto recorded = [&](const std::string& what) {
      return golden.at(format("{}/step{}/{}", c.name, step, what));
    };
    const auto model = golden.model(c.name, step, type);
    const Tables tables(golden, c, step, type);
    const auto logits = model->score(tables.rows, golden.batch("num", step).to(type));
    EXPECT_LT(largest_difference(logits, recorded("logit")), 2e-6);
    const auto bce = at::binary_cross_entropy_with_logits(logits, golden.batch("label", step).to(type));
    const auto penalised = bce + model->penalty(c.l2);
    EXPECT_NEAR(bce.item<double>(), recorded("loss_bce").item<double>(), 1e-6);
    EXPECT_NEAR(penalised.item<double>() + c.l2 * tables.squares, recorded("loss_total").item<double>(),
                1e-6);

    penalised.backward();
    test::Tensors gradients;
    for (const auto& parameter : nn::distinct_parameters(*model))
      gradients[parameter.name] = parameter.tensor.grad();
    for (const auto& weight : golden.dense_weights()) {
      const auto expected = recorded("grad/" + weight).squeeze();
      EXPECT_LT(largest_difference(golden.ours(gradients, weight), expected), 1e-6) << weight;
    }
    for (std::int64_t j = 0; j < test::kRecordedFields; ++j) {
      EXPECT_LT(largest_difference(tables.embedding_gradient(j, c.l2), recorded(format("grad/W.{}", j))),
                1e-6)
          << j;
      EXPECT_LT(largest_difference(tables.linear_gradient(j, c.l2), recorded(format("grad/L.{}", j))), 1e-6)
          << j;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Recorded, CowClipGolden,
                         testing::Combine(testing::ValuesIn(kCases),
                                          testing::Values(at::kDouble, at::kFloat)));

}  // namespace
}  // namespace stoa::cow_clip
