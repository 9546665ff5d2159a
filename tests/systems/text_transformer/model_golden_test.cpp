// Tiny BERT, ALBERT, DistilBERT and GPT-2 of Python's transformers (tests/golden/README.md).
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include "stoa/ops/linear_cross_entropy.h"
#include "stoa/optim/optimizer.h"
#include "systems/text_transformer/problem.h"

namespace stoa::text_transformer {
namespace {

using test::distance;
using test::TextGolden;

struct Case {
  const char* name;
  TextHead head;
  bool segments, pairs;
};

void PrintTo(const Case& c, std::ostream* to) {
  *to << c.name;
}

class TextTransformerGolden : public ::testing::TestWithParam<Case> {};

TEST_P(TextTransformerGolden, EveryHiddenStateAndScoreIsTheRecordedOne) {
  const auto& c = GetParam();
  const TextGolden golden(c.name);
  auto model = golden.model(c.head, c.pairs);
  const auto tokens = golden.tokens(c.segments);
  at::NoGradGuard no_grad;
  std::vector<at::Tensor> layers;
  const auto output = model->forward(tokens, &layers);
  ASSERT_EQ(layers.size(), 4U);
  for (std::size_t i = 0; i < layers.size(); ++i)
    EXPECT_LT(distance(layers[i], tokens.pack(golden[format("hidden/{}", i)])), 1e-12) << "layer " << i;
  const auto scores = model->language_scores(output.hidden);
  auto logits = scores.rows.matmul(scores.weight.t());
  if (scores.bias.defined()) logits = logits + scores.bias;
  EXPECT_LT(distance(logits, tokens.pack(golden["logits"])), 1e-11);
  if (c.pairs) {
    EXPECT_LT(distance(model->pair_scores(output.hidden, tokens), golden["pair"]), 1e-12);
  }
}

INSTANTIATE_TEST_SUITE_P(All, TextTransformerGolden,
                         ::testing::Values(Case{"bert", TextHead::kMasked, true, true},
                                           Case{"albert", TextHead::kMasked, true, true},
                                           Case{"distilbert", TextHead::kMasked, false, false},
                                           Case{"gpt2", TextHead::kCausal, false, false}));

TEST(TextTransformerGolden, TenStepsOfBertGiveTheRecordedLosses) {
  const TextGolden golden("bert");
  auto model = golden.model(TextHead::kMasked, true);
  model->train();
  optim::OptimizerOptions options;
  options.weight_decay = 0.01;
  options.exclude_vectors = false;
  const auto optimizer = optim::make_optimizer(nn::distinct_parameters(*model), options);
  const auto tokens = golden.tokens(true);
  const auto targets = tokens.pack(golden["targets"]);
  for (int step = 0; step < 10; ++step) {
    optimizer->zero_grad();
    const auto hidden = model->forward(tokens).hidden;
    const auto scores = model->language_scores(hidden);
    const auto masked = ops::linear_cross_entropy(scores.rows, scores.weight, scores.bias, targets).loss;
    const auto pairs = at::cross_entropy_loss(model->pair_scores(hidden, tokens), golden["pair_labels"]);
    const auto loss = masked + pairs;
    EXPECT_NEAR(loss.item<double>(), golden["losses"][step].item<double>(), 1e-9) << "step " << step;
    loss.backward();
    optimizer->step(1e-3);
  }
}

}  // namespace
}  // namespace stoa::text_transformer
