#include "stoa/train/training_step.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "stoa/base/errors.h"
#include "stoa/nn/parameters.h"
#include "support/thrown.h"
#include "support/toy_task.h"

namespace stoa {
namespace {

using test::ToyOptions;
using test::ToyTask;

/// Gradients and outcome of one batch of 10 samples, cut into micro-batches of `micro`.
struct Step {
  std::vector<at::Tensor> gradients;
  BatchOutcome outcome;

  Step(const ToyOptions& options, std::int64_t micro) {
    at::manual_seed(3);
    ToyTask task(options);
    task.model().train();
    outcome = accumulate_gradients(task, task.samples(at::arange(10)), {0, 1}, micro, Runtime{}, true);
    for (const auto& parameter : nn::distinct_parameters(task.model()))
      gradients.push_back(parameter.tensor.grad());
  }
};

double distance(const Step& a, const Step& b) {
  double largest = 0;
  for (std::size_t i = 0; i < a.gradients.size(); ++i) {
    const auto apart = (a.gradients[i] - b.gradients.at(i)).abs().max().item<double>();
    largest = std::max(largest, std::isnan(apart) ? HUGE_VAL : apart);
  }
  return largest;
}

const ToyOptions kWithSideLoss = {.activity_cost = 0.3};
const ToyOptions kWeighted = {.weighted = true, .activity_cost = 0.3};

TEST(AccumulateGradients, EqualMicroBatchesEqualTheWholeBatch) {
  EXPECT_LT(distance(Step(kWithSideLoss, 0), Step(kWithSideLoss, 5)), 1e-12);
}

TEST(AccumulateGradients, ASmallerLastMicroBatchCountsLess) {
  EXPECT_LT(distance(Step(kWithSideLoss, 0), Step(kWithSideLoss, 4)), 1e-12);
}

TEST(AccumulateGradients, MicroBatchesCountByTheTasksWeight) {
  EXPECT_LT(distance(Step(kWeighted, 0), Step(kWeighted, 4)), 1e-12);
}

TEST(AccumulateGradients, AMicroBatchLargerThanTheBatchIsTheBatch) {
  EXPECT_EQ(distance(Step(kWithSideLoss, 0), Step(kWithSideLoss, 64)), 0);
}

TEST(AccumulateGradients, TheSameUnitsAreDroppedHoweverABatchIsCut) {
  const ToyOptions dropping = {.weighted = true, .dropout = 0.4};
  EXPECT_LT(distance(Step(dropping, 0), Step(dropping, 4)), 1e-12);
  EXPECT_GT(distance(Step(dropping, 0), Step(kWeighted, 0)), 1e-3);
}

TEST(AccumulateGradients, TheSideLossIsLearnedToo) {
  EXPECT_GT(distance(Step(kWithSideLoss, 0), Step({}, 0)), 1e-3);
}

TEST(AccumulateGradients, TheOutcomeDoesNotDependOnTheCut) {
  const Step whole(kWeighted, 0), cut(kWeighted, 3);
  for (const auto numbers : {&BatchOutcome::losses, &BatchOutcome::metrics}) {
    const auto &a = whole.outcome.*numbers, &b = cut.outcome.*numbers;
    ASSERT_EQ(a.size(), b.size());
    for (std::size_t i = 0; i < a.size(); ++i) {
      EXPECT_EQ(a[i].first, b[i].first);
      EXPECT_NEAR(a[i].second, b[i].second, 1e-12);
    }
  }
  for (std::size_t i = 0; i < 5; ++i)
    EXPECT_NEAR(whole.outcome.statistics["units"][i].get<double>(),
                cut.outcome.statistics["units"][i].get<double>(), 1e-5);
}

TEST(AccumulateGradients, TheLossIsReportedWithoutSideLosses) {
  const Step with(kWithSideLoss, 0), without({}, 0);
  EXPECT_EQ(with.outcome.losses.at(0), without.outcome.losses.at(0));
  EXPECT_EQ(with.outcome.losses.at(1).first, "activity");
}

TEST(AccumulateGradients, ABatchThatWeighsNothingIsRefused) {
  ToyTask task({});
  Batch batch = task.samples(at::arange(4));
  batch.tensors["weight"].zero_();
  STOA_EXPECT_CONTAINS(test::thrown<DataError>([&] {
                         accumulate_gradients(task, batch, {6, 9}, 2, Runtime{}, false);
                       }),
                       "step 7: the batch has nothing to learn from");
}

TEST(AccumulateGradients, AMicroBatchThatWeighsNothingDoesNotMatter) {
  at::manual_seed(3);
  ToyTask task({});
  Batch batch = task.samples(at::arange(8));
  batch.tensors["weight"].narrow(0, 4, 4).zero_();
  const auto cut = accumulate_gradients(task, batch, {0, 1}, 4, Runtime{}, false);
  const auto first = accumulate_gradients(task, batch.slice(0, 4), {0, 1}, 0, Runtime{}, false);
  EXPECT_EQ(cut.losses, first.losses);
}

TEST(StepMeans, AreOverTheStepsThatReportedTheName) {
  StepMeans means;
  means.add({{"loss", 1}});
  means.add({{"loss", 2}, {"rare", 5}});
  EXPECT_EQ(means.means(), Json::parse(R"({"loss": 1.5, "rare": 5.0})"));
}

TEST(StepMeans, GoOnFromTheirStateToTheLastBit) {
  StepMeans means, resumed;
  means.add({{"loss", 0.1}});
  means.add({{"loss", 0.2}});
  resumed.load(Json::parse(means.state().dump()));
  for (StepMeans* each : {&means, &resumed}) each->add({{"loss", 0.3}});
  EXPECT_EQ(resumed.means().dump(), means.means().dump());
}

}  // namespace
}  // namespace stoa
