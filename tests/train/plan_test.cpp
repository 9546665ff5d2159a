#include "stoa/train/plan.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "stoa/base/errors.h"
#include "stoa/dist/gradient_buckets.h"
#include "support/thrown.h"

namespace stoa {
namespace {

using test::thrown;

PlanMachine machine(double memory = 1e12) {
  return {memory, 1e11, 1e10, 0, 0, {1e9, 1e-5}};
}

/// 1000 numbers trained by Adam, 50 of each sample kept; nothing in it can be split.
PlanModel plain() {
  PlanModel model;
  model.parameters = model.learned = 1000;
  model.states = 2;
  model.kept = model.block_kept = 50;
  model.macs = 1000;
  model.batch = model.micro_batch = 10;
  return model;
}

/// A transformer of four blocks of width 64 on 128 tokens.
PlanModel transformer() {
  PlanModel model;
  model.tokens = 128;
  model.width = 64;
  model.depth = 4;
  model.heads = 4;
  model.hidden = 256;
  model.block_learned = 4 * (4 * 64 * 64 + 2 * 64 * 256);
  model.learned = model.parameters = model.block_learned + 1000;
  model.states = 2;
  model.attention_macs = 4 * 2. * 128 * 128 * 64;
  model.macs = 128 * model.block_learned + model.attention_macs;
  model.block_kept = 4 * 128 * (8 * 64 + 256);
  model.kept = model.block_kept + 10000;
  model.splits_sequences = model.can_recompute = true;
  model.batch = model.micro_batch = 16;
  return model;
}

/// The same with a mixture of 8 experts in place of each perceptron, two of them for each token.
PlanModel mixtures() {
  auto model = transformer();
  const double matrices = 4 * 2 * 64 * 256, rows = 4 * 128 * 2;
  model.mixtures = 4;
  model.experts = 8;
  model.choices = 2;
  model.expert_learned = 8 * matrices;
  model.block_learned = 4 * 4 * 64 * 64 + model.expert_learned;
  model.learned = model.parameters = model.block_learned + 1000;
  model.expert_macs = 128 * 2 * matrices;
  model.macs = 128. * 4 * 4 * 64 * 64 + model.attention_macs + model.expert_macs;
  model.expert_kept = 4 * 128 * 64 + rows * (2 * 256 + 64);
  model.block_kept = 4 * 128 * 7 * 64 + model.expert_kept;
  model.kept = model.block_kept + 10000;
  return model;
}

Split with_experts(std::int64_t data, std::int64_t expert, std::int64_t micro) {
  Split split{data};
  split.expert = expert;
  split.micro_batch = micro;
  return split;
}

Split split(std::int64_t data, std::int64_t sequence = 1, std::int64_t tensor = 1, std::int64_t pipeline = 1,
            std::int64_t zero = 0, std::int64_t micro = 16, bool recompute = false) {
  return {data, sequence, tensor, pipeline, zero, micro, recompute};
}

TEST(PlanMemory, OfOneProcessIsTheLargestMomentOfAStep) {
  const auto whole = predict_memory(plain(), split(1, 1, 1, 1, 0, 10), machine());
  EXPECT_EQ(whole.weights, 4000);
  EXPECT_EQ(whole.optimizer, 8000);
  EXPECT_EQ(whole.gradients, 4000);  // more than the 10 x 50 x 4 bytes of activations, which are gone by then
  EXPECT_EQ(whole.activations, 0);
  EXPECT_EQ(whole.total(), 16000);
  auto wide = plain();
  wide.kept = wide.block_kept = 500;
  const auto activations = predict_memory(wide, split(1, 1, 1, 1, 0, 10), machine());
  EXPECT_EQ(activations.activations, 20000);
  EXPECT_EQ(activations.gradients, 0);  // none has been made yet
}

TEST(PlanMemory, GradientsOfEarlierMicroBatchesStayWhileTheNextIsKept) {
  const auto cut = predict_memory(plain(), split(1, 1, 1, 1, 0, 5), machine());
  EXPECT_EQ(cut.gradients, 4000);
  EXPECT_EQ(cut.activations, 5 * 50 * 4);
}

TEST(PlanMemory, ZeroDealsOutStatesThenGradientsThenWeights) {
  auto model = plain();
  model.parameters = model.learned = 1e9;
  const auto of = [&](std::int64_t zero) {
    return predict_memory(model, split(2, 1, 1, 1, zero, 5), machine());
  };
  EXPECT_EQ(of(0).optimizer, 8e9);
  EXPECT_EQ(of(1).optimizer, 4e9);
  EXPECT_EQ(of(1).gradients, 4e9);
  EXPECT_EQ(of(1).buffers, 4e9);  // whole copies on their way
  EXPECT_EQ(of(2).gradients, 2e9);
  EXPECT_EQ(of(2).buffers, 4.0 * dist::GradientBuckets::kBucketBytes);
  EXPECT_EQ(of(2).weights, 4e9);
  EXPECT_EQ(of(3).weights, 2e9 + 4e9);  // nothing is known of layers: all weights are there in a pass
  const auto blocks = transformer();
  EXPECT_DOUBLE_EQ(predict_memory(blocks, split(2, 1, 1, 1, 3, 8), machine()).weights,
                   4 * (blocks.learned / 2 + 1000 + 2 * blocks.block_learned / 4));
}

TEST(PlanMemory, GradientsAreWholeUntilTheLastMicroBatchGoesBack) {
  auto model = plain();
  model.parameters = model.learned = 1e9;
  const auto zero = predict_memory(model, split(2, 1, 1, 1, 2, 1), machine());
  EXPECT_EQ(zero.gradients, 4e9);
  EXPECT_EQ(zero.buffers, 0);
}

TEST(PlanMemory, ZeroDealsOutWhatAStageHas) {
  const auto model = transformer();
  const auto stage = predict_memory(model, split(1, 1, 1, 4, 0, 4), machine()),
             dealt = predict_memory(model, split(4, 1, 1, 4, 1, 4), machine()),
             weights = predict_memory(model, split(4, 1, 1, 4, 3, 4), machine());
  EXPECT_DOUBLE_EQ(dealt.optimizer, stage.optimizer / 4);
  EXPECT_DOUBLE_EQ(dealt.weights, stage.weights);
  EXPECT_DOUBLE_EQ(weights.weights, stage.weights / 4 + stage.weights);  // its one block is there in a pass
}

/// Experts among the ranks that hold the same, all else among all.
TEST(PlanMemory, ZeroDealsOutExpertsAmongThoseThatHoldThem) {
  const auto model = mixtures();
  const double rest = model.learned - model.expert_learned;
  auto some = with_experts(8, 4, 2), alone = with_experts(8, 8, 2);
  some.zero = alone.zero = 1;
  EXPECT_DOUBLE_EQ(predict_memory(model, some, machine()).optimizer,
                   8 * (rest / 8 + model.expert_learned / 4 / 2));
  EXPECT_DOUBLE_EQ(predict_memory(model, alone, machine()).optimizer,
                   8 * (rest / 8 + model.expert_learned / 8));
  alone.zero = 3;  // what a rank has alone is never gathered
  EXPECT_DOUBLE_EQ(predict_memory(model, alone, machine()).weights,
                   4 * (rest / 8 + model.expert_learned / 8 + 1000 + 2 * (rest - 1000) / 4));
}

TEST(PlanTime, LayersAreGatheredTwiceForEveryMicroBatch) {
  const auto model = transformer();
  auto slow = machine();
  slow.link = {1e6, 0};
  slow.flops = slow.bandwidth = 1e30;  // nothing hides
  const auto of = [&](std::int64_t zero, std::int64_t micro) {
    return predict_time(model, split(2, 1, 1, 1, zero, micro), slow).gradients;
  };
  const double gather = dist::all_gather_seconds(4 * model.block_learned, 2, slow.link);
  EXPECT_NEAR(of(3, 8) - of(2, 8), gather, 1e-9);      // the other one is in place of that of the update
  EXPECT_NEAR(of(3, 2) - of(2, 2), 7 * gather, 1e-9);  // 4 micro-batches
}

TEST(PlanMemory, ActivationsAreDividedByReplicasSequencesTensorsAndStages) {
  const auto model = transformer();
  const auto of = [&](const Split& s) { return predict_memory(model, s, machine()).activations; };
  const double whole = of(split(1));
  EXPECT_DOUBLE_EQ(whole, 4 * 16 * model.kept);
  EXPECT_DOUBLE_EQ(of(split(4, 1, 1, 1, 0, 4)), whole / 4);
  EXPECT_DOUBLE_EQ(of(split(1, 4)), whole / 4);
  // of 8 x 64 + 256 numbers a token keeps in a block, 4 x 64 are whole on all ranks, and 64 of a sum are more
  EXPECT_DOUBLE_EQ(of(split(1, 1, 4)), 4 * 16 * (10000 + 4 * 128 * (5 * 64 + (4 * 64 + 256) / 4.0)));
  // a stage has a quarter of the blocks, but of four micro-batches
  EXPECT_DOUBLE_EQ(of(split(1, 1, 1, 4, 0, 4)), whole / 4 + 4 * 16 * 10000 * 0.75);
}

TEST(PlanMemory, RecomputedBlocksKeepTheirInputs) {
  const auto model = transformer();
  const double inputs = 2 * 128 * 64;
  EXPECT_DOUBLE_EQ(predict_memory(model, split(1, 1, 1, 1, 0, 16, true), machine()).activations,
                   4 * 16 * (10000 + 4 * inputs + model.block_kept / 4 - inputs));
}

TEST(PlanMemory, OfALargeVocabularyTheScoresOfSomeRowsAreThere) {
  auto model = transformer();
  model.vocabulary = 32768;
  model.scores_learned = 32768 * 64;
  model.learned = model.parameters = model.block_learned + model.scores_learned;
  const auto memory = predict_memory(model, split(1), machine());
  EXPECT_EQ(memory.moment, "the loss is made");
  EXPECT_EQ(memory.gradients, 4 * model.scores_learned);
  // 512 rows of scores and, for each of 32 groups of classes and once more, of the gradient of x
  EXPECT_DOUBLE_EQ(memory.work, 4 * 512 * (32768. + 33 * 64));
}

TEST(PlanTime, IsArithmeticAndPassesOverMemory) {
  auto model = plain();
  const auto time = predict_time(model, split(1, 1, 1, 1, 0, 10), machine());
  EXPECT_DOUBLE_EQ(time.arithmetic, 10 * 6 * 1000 / 1e11);
  EXPECT_DOUBLE_EQ(time.memory, (10 * 4 * 4 * 50 + 4 * 1000 * 7) / 1e10);
  EXPECT_EQ(time.total(), time.arithmetic + time.memory);
  const auto again = predict_time(model, split(1, 1, 1, 1, 0, 10, true), machine());
  EXPECT_DOUBLE_EQ(again.arithmetic, 10 * 8 * 1000 / 1e11);
  EXPECT_GT(again.memory, time.memory);
}

TEST(PlanTime, GradientSumsHideBehindTheBackwardPass) {
  auto model = transformer();
  auto fast = machine(), slow = machine();
  slow.link.bytes_per_s = 1e6;
  const auto hidden = predict_time(model, split(2, 1, 1, 1, 0, 8), fast);
  const auto bare = predict_time(model, split(2, 1, 1, 1, 0, 8), slow);
  EXPECT_LT(hidden.gradients, 0.2 * hidden.total());
  EXPECT_GT(bare.gradients, 0.8 * bare.total());
  EXPECT_EQ(predict_time(model, split(1), slow).gradients, 0);
}

TEST(PlanTime, IdleStagesAreTheShareOfTheSpec) {
  const auto model = transformer();
  auto free = machine();
  free.link = {1e30, 0};
  const auto time = predict_time(model, split(1, 1, 1, 4, 0, 2), free);  // 8 micro-batches
  const double busy = time.arithmetic + 16 * 4 * 4 * (model.block_kept / 4 + 10000) / 1e10;
  EXPECT_NEAR(time.pipeline / (busy + time.pipeline), dist::pipeline_idle(4, 8), 1e-9);
}

TEST(Plan, UsesAllDevicesInEverySplitTheModelAllows) {
  const auto model = transformer();
  const auto found = plan(model, 8, machine());
  for (const auto& planned : found) {
    EXPECT_EQ(planned.split.devices(), 8);
    EXPECT_EQ(model.heads % planned.split.tensor, 0);
    EXPECT_EQ(model.depth % planned.split.pipeline, 0);
    EXPECT_EQ(planned.refused, "");
  }
  // ordered factorisations of 8 into four, less those with 8 heads or 8 stages
  EXPECT_EQ(found.size(), 18);
}

TEST(Plan, OrdersByTimeThenByMemory) {
  const auto model = transformer();
  const auto all = plan(model, 8, machine());
  const auto by_time = [](const auto& a, const auto& b) { return a.time.total() < b.time.total(); };
  EXPECT_TRUE(std::ranges::is_sorted(all, by_time));
  EXPECT_TRUE(std::ranges::all_of(all, &PlannedSplit::fits));
  auto sizes = std::vector<double>();
  for (const auto& planned : all) sizes.push_back(predict_memory(model, planned.split, machine()).total());
  const auto some = plan(model, 8, machine(1e5));
  EXPECT_FALSE(some[0].fits);
  const auto by_memory = [](const auto& a, const auto& b) { return a.memory.total() < b.memory.total(); };
  EXPECT_TRUE(std::ranges::is_sorted(some, by_memory));
}

TEST(Plan, TakesTheSimplestSettingsWhereAllFits) {
  const auto found = plan(transformer(), 1, machine());
  ASSERT_EQ(found.size(), 1);
  EXPECT_EQ(found[0].split, split(1));
}

TEST(Plan, CutsBatchesAndRunsBlocksAgainOnlyToFit) {
  const auto model = transformer();
  const auto whole = predict_memory(model, split(1), machine()).total();
  const auto tight = plan(model, 1, machine(0.7 * whole))[0];
  EXPECT_TRUE(tight.fits);
  EXPECT_EQ(tight.split.micro_batch, 8);
  EXPECT_FALSE(tight.split.recompute);
  auto one = model;
  one.batch = one.micro_batch = 1;
  const auto least = predict_memory(one, split(1, 1, 1, 1, 0, 1), machine());
  const auto again = plan(one, 1, machine(least.total() - 0.3 * least.activations))[0];
  EXPECT_TRUE(again.fits);
  EXPECT_TRUE(again.split.recompute);
}

TEST(Plan, SaysWhatTakesTheMostWhereNothingFits) {
  const auto found = plan(transformer(), 1, machine(1000))[0];
  EXPECT_FALSE(found.fits);
  STOA_EXPECT_CONTAINS(found.reason, "too much: ");
  STOA_EXPECT_CONTAINS(found.reason, "optimiser states take ");
  auto small = machine(1000);
  small.program = 1e15;
  STOA_EXPECT_CONTAINS(plan(transformer(), 1, small)[0].reason, "too much: the program takes ");
}

TEST(Plan, SaysWhatTheTimeGoesInto) {
  auto slow = machine();
  slow.link = {1e6, 1e-3};
  const auto found = plan(plain(), 10, slow)[0];
  STOA_EXPECT_CONTAINS(found.reason, "% arithmetic, ");
  STOA_EXPECT_CONTAINS(found.reason, "% gradient sums");
}

TEST(Plan, RefusesDevicesThatNothingDividesInto) {
  auto model = transformer();
  model.batch = model.micro_batch = 6;
  const auto error = thrown<ConfigError>([&] { plan(model, 7, machine()); });
  STOA_EXPECT_CONTAINS(error, "7 devices");
  STOA_EXPECT_CONTAINS(error, "batch of 6");
  STOA_EXPECT_CONTAINS(error, "128 tokens");
  STOA_EXPECT_CONTAINS(thrown<ConfigError>([] { plan(plain(), 11, machine()); }),
                       "nothing else of this model can be split");
}

TEST(PlanMemory, ExpertsAndTheirStatesAreDealtOut) {
  const auto model = mixtures();
  const auto whole = predict_memory(model, with_experts(8, 1, 2), machine()),
             dealt = predict_memory(model, with_experts(8, 4, 2), machine());
  EXPECT_DOUBLE_EQ(whole.weights - dealt.weights, 4 * 0.75 * model.expert_learned);
  EXPECT_DOUBLE_EQ(whole.optimizer - dealt.optimizer, 8 * 0.75 * model.expert_learned);
}

TEST(PlanMemory, RowsThatTravelToExpertsAreKeptTwiceMore) {
  const auto model = mixtures();
  const auto here = predict_memory(model, with_experts(2, 1, 8), machine()),
             elsewhere = predict_memory(model, with_experts(2, 2, 8), machine());
  EXPECT_DOUBLE_EQ(here.activations, 4 * 8 * model.kept);
  EXPECT_DOUBLE_EQ(elsewhere.activations - here.activations, 4 * 8 * 4 * 128 * 2 * 2 * 64.);
}

TEST(PlanMemory, MixturesAreWholeWhereMatricesAreCut) {
  const auto model = mixtures();
  const auto whole = predict_memory(model, split(1), machine()),
             cut = predict_memory(model, split(1, 1, 2), machine());
  EXPECT_DOUBLE_EQ(whole.weights - cut.weights, 4 * 0.5 * (model.block_learned - model.expert_learned));
  EXPECT_GE(cut.activations, 4 * 16 * model.expert_kept);
}

TEST(PlanMemory, HiddenUnitsOfExpertsAreDealtOutWhereTheyCanBe) {
  auto model = mixtures();
  const auto of = [&] { return predict_memory(model, split(1, 1, 2), machine()); };
  const auto whole = of();
  model.cuts_experts = true;
  const auto cut = of();
  EXPECT_DOUBLE_EQ(whole.weights - cut.weights, 4 * 0.5 * model.expert_learned);
  EXPECT_DOUBLE_EQ(whole.activations - cut.activations, 4 * 16 * 0.5 * 4 * 128 * 2 * 2 * 256.);
}

TEST(PlanMemory, EveryStageHasBlocksThatAllShare) {
  auto model = transformer();
  const auto weights = [&] { return predict_memory(model, split(1, 1, 1, 4, 0, 4), machine()).weights; };
  EXPECT_DOUBLE_EQ(weights(), 4 * (model.block_learned / 4 + 1000));
  model.shared = true;
  EXPECT_DOUBLE_EQ(weights(), 4 * (model.block_learned + 1000));
}

TEST(PlanTime, RowsTravelToExpertsAndBack) {
  const auto model = mixtures();
  const auto time = predict_time(model, with_experts(4, 2, 4), machine());
  const double rows = dist::expert_traffic(4 * 128, 2, 64, 2) * 4 / 1e9 + 5 * 1e-5;
  const double routes = 3 * dist::all_gather_seconds(8 * 8 * 4, 4, machine().link);
  EXPECT_DOUBLE_EQ(time.expert, 4 * (rows + routes));
  EXPECT_DOUBLE_EQ(predict_time(model, with_experts(4, 1, 4), machine()).expert, 4 * routes);
  EXPECT_EQ(predict_time(transformer(), with_experts(4, 1, 4), machine()).expert, 0);
}

TEST(PlanTime, GradientsOfExpertsAreSummedOverThoseThatHoldThem) {
  const auto model = mixtures();
  auto slow = machine();
  slow.link = {1e6, 0};
  slow.flops = slow.bandwidth = 1e30;  // nothing hides
  const auto of = [&](std::int64_t expert) {
    return predict_time(model, with_experts(4, expert, 4), slow).gradients;
  };
  const auto sum = [&](double numbers, std::int64_t ranks) {
    return dist::all_reduce_seconds(4 * numbers, ranks, slow.link);
  };
  EXPECT_NEAR(of(1) - of(2), sum(model.expert_learned, 4) - sum(model.expert_learned / 2, 2), 1e-9);
  EXPECT_NEAR(of(1) - of(4), sum(model.expert_learned, 4), 1e-9);  // each holder is the only one
}

TEST(PlanTime, MatricesOfAttentionAloneAreSummedWhereMixturesStand) {
  auto model = transformer();
  const double all = predict_time(model, split(1, 1, 2), machine()).tensor;
  model.mixtures = 4;
  EXPECT_DOUBLE_EQ(predict_time(model, split(1, 1, 2), machine()).tensor, all / 2);
  model.cuts_experts = true;
  EXPECT_DOUBLE_EQ(predict_time(model, split(1, 1, 2), machine()).tensor, all);
}

TEST(Plan, DealsExpertsOutAmongReplicasThatDivideThem) {
  const auto model = mixtures();
  std::int64_t dealt = 0;
  for (const auto& planned : plan(model, 12, machine())) {
    const auto& s = planned.split;
    EXPECT_EQ(s.devices(), 12);
    EXPECT_EQ(model.experts % s.expert, 0);
    EXPECT_EQ(s.data % s.expert, 0);
    dealt += s.expert > 1 ? 1 : 0;
  }
  EXPECT_GT(dealt, 0);
  for (const auto& planned : plan(transformer(), 4, machine())) EXPECT_EQ(planned.split.expert, 1);
}

TEST(PlanMemory, RoomBetweenTensorsIsAShareOfWhatComesAndGoes) {
  auto roomy = machine();
  roomy.spare = 0.5;
  roomy.program = 100;
  const auto memory = predict_memory(plain(), split(1, 1, 1, 1, 0, 5), roomy);
  EXPECT_EQ(memory.spare, 0.5 * (4000 + 5 * 50 * 4));
  EXPECT_EQ(memory.total(), memory.tensors() + memory.spare + 100);
}

TEST(PlanMemory, RowsOfTablesAreDealtOut) {
  auto model = plain();
  model.tables = 1e6;
  const auto weights = [&](std::int64_t data) {
    return predict_memory(model, split(data, 1, 1, 1, 0, 5), machine()).weights;
  };
  EXPECT_EQ(weights(1), 1e6 + 4000);
  EXPECT_EQ(weights(2), 5e5 + 4000);
}

TEST(Plan, ShowsWhatTheModelRefusesToday) {
  auto model = transformer();
  model.refused_parts[2] = "no halves";
  model.refused_stages[4] = "no quarters";
  const auto found = plan(model, 4, machine());
  const auto refused = [&](std::int64_t Split::*degree, std::int64_t value) {
    return std::ranges::find(found, value, [&](const auto& planned) { return planned.split.*degree; })
        ->refused;
  };
  EXPECT_EQ(refused(&Split::tensor, 2), "no halves");
  EXPECT_EQ(refused(&Split::pipeline, 4), "no quarters");
  EXPECT_EQ(refused(&Split::data, 4), "");
}

TEST(Plan, ReplicasThatMeetInPassesMakeEquallyMany) {
  auto model = mixtures();
  model.batch = 9;  // 5 and 4 samples
  model.micro_batch = 1;
  for (const auto& planned : plan(model, 2, machine())) {
    if (planned.split.expert == 1) continue;
    STOA_EXPECT_CONTAINS(planned.refused, "unequal numbers of passes");
  }
}

TEST(Plan, OfTheRecipeAsItStandsTakesItsOwnSettings) {
  auto model = transformer();
  model.micro_batch = 4;
  model.parallel.sequence = 2;
  model.recomputes = true;
  model.parallel.expert = 2;
  auto expected = split(2, 2, 1, 1, 0, 4, true);
  expected.expert = 2;
  EXPECT_EQ(recipe_split(model, 4), expected);
}

}  // namespace
}  // namespace stoa
