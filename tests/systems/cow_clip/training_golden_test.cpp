// Whole training steps of DeepFM and DCN, tables and network together, against those of the original program.
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "stoa/nn/embedding_tables.h"
#include "stoa/optim/optimizer.h"
#include "stoa/optim/schedule.h"
#include "systems/cow_clip/recorded.h"

namespace stoa::cow_clip {
namespace {

struct Case {
  Network network;
  const char* name;
  double ratio, floor, l2, lr, dense_lr;
  double warmup;
  std::int64_t steps;
  nn::RowClip clip = nn::RowClip::kCowClip;
};

const Case kCases[] = {{Network::kDeepFm, "act", 1, 1e-5, 1e-3, 1e-3, 4e-3, 4, 6},
                       {Network::kDeepFm, "floor", 0.5, 2e-3, 1e-3, 1e-3, 4e-3, 4, 6},
                       {Network::kDeepFm, "inert", 1, 1, 1e-3, 1e-3, 4e-3, 4, 6},
                       {Network::kDeepFm, "base", 1, 0, 1e-5, 1e-4, 1e-4, 0, 6, nn::RowClip::kNone},
                       {Network::kDcn, "act", 1, 1e-5, 1e-3, 1e-3, 4e-3, 4, 3},
                       {Network::kDcn, "floor", 0.5, 2e-3, 1e-3, 1e-3, 4e-3, 4, 2},
                       {Network::kDcn, "inert", 1, 1, 1e-3, 1e-3, 4e-3, 4, 2},
                       {Network::kDcn, "base", 1, 0, 1e-5, 1e-4, 1e-4, 0, 2, nn::RowClip::kNone}};

void PrintTo(const Case& c, std::ostream* out) {
  *out << (c.network == Network::kDcn ? "dcn/" : "deepfm/") << c.name;
}

std::unique_ptr<nn::EmbeddingTables> recorded_tables(const test::RecordedSteps& golden, const Case& c,
                                                     nn::AbsentRows absent) {
  nn::EmbeddingOptions options;
  options.lr = c.lr;
  options.l2 = c.l2;
  options.clip = c.clip;
  options.clip_ratio = c.ratio;
  options.clip_floor = c.floor;
  options.absent = absent;
  auto tables = std::make_unique<nn::EmbeddingTables>(std::vector<std::int64_t>{5, 17, 40, 3}, options, 1);
  for (std::int64_t j = 0; j < test::kRecordedFields; ++j)
    tables->set_weights(j, golden.before(c.name, 1, format("W.{}", j)),
                        golden.before(c.name, 1, format("L.{}", j)).squeeze(1));
  return tables;
}

class CowClipTraining : public testing::TestWithParam<std::tuple<Case, nn::AbsentRows>> {};

TEST_P(CowClipTraining, WeightsAfterEveryStep) {
  const auto& [c, absent] = GetParam();
  const test::RecordedSteps golden(c.network);
  const auto owned = recorded_tables(golden, c, absent);
  auto& tables = *owned;
  const auto model = golden.model(c.name, 1, at::kFloat);
  optim::OptimizerOptions adam;
  adam.eps = 1e-7;
  adam.keras_eps = true;
  const auto optimizer = optim::make_optimizer(nn::distinct_parameters(*model), adam);
  optim::ScheduleOptions schedule;
  schedule.kind = optim::ScheduleKind::kConstant;
  schedule.warmup = c.warmup;
  schedule.start = 1e-8;
  for (std::int64_t step = 1; step <= c.steps; ++step) {
    SCOPED_TRACE(format("step {}", step));
    const auto recorded = [&](const std::string& what) {
      return golden.at(format("{}/step{}/{}", c.name, step, what));
    };
    optimizer->zero_grad();
    tables.zero_grad();
    const auto logits = model->score(tables.lookup(golden.batch("ids", step)), golden.batch("num", step));
    const auto bce = at::binary_cross_entropy_with_logits(logits, golden.batch("label", step));
    EXPECT_NEAR(bce.item<double>(), recorded("loss_bce").item<double>(), 1e-6);
    (bce + model->penalty(c.l2)).backward();
    const double lr = optim::learning_rate(schedule, c.dense_lr, step - 1, 100);
    EXPECT_NEAR(lr, recorded("lr_dense").item<double>(), 1e-9);
    optimizer->step(lr);
    tables.step();

    const auto state = nn::module_state(*model);
    for (const auto& weight : golden.dense_weights())
      EXPECT_LT(
          (golden.ours(state, weight) - recorded("after/" + weight).squeeze()).abs().max().item<double>(),
          1e-6)
          << weight;
    for (std::int64_t j = 0; j < test::kRecordedFields; ++j) {
      EXPECT_LT((tables.embeddings(j) - recorded(format("after/W.{}", j))).abs().max().item<double>(), 1e-6)
          << j;
      EXPECT_LT((tables.linear(j) - recorded(format("after/L.{}", j)).squeeze(1)).abs().max().item<double>(),
                1e-6)
          << j;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Recorded, CowClipTraining,
                         testing::Combine(testing::ValuesIn(kCases),
                                          testing::Values(nn::AbsentRows::kDense, nn::AbsentRows::kReplay)));

}  // namespace
}  // namespace stoa::cow_clip
