// Every row of the published tables (cowclip.md 3) has a recipe with its settings; experiments follow the
// rules.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "stoa/base/config.h"
#include "stoa/base/format.h"
#include "stoa/data/tabular/prepare.h"
#include "stoa/nn/init.h"
#include "stoa/optim/scaling.h"
#include "stoa/optim/schedule.h"
#include "stoa/systems/cow_clip/model.h"
#include "stoa/train/experiment.h"

namespace stoa::cow_clip {
namespace {

Config recipe(const std::string& name) {
  return Config::from_file(std::string(STOA_SOURCE_DIR) + "/recipes/cow_clip/" + name + ".toml");
}

double number(const Config& config, const char* key) {
  const Json* value = config.find(key);
  if (value != nullptr && value->is_number()) return value->get<double>();
  ADD_FAILURE() << config.name() << " has no " << key;
  return 0;
}

std::string text(const Config& config, const char* key) {
  const Json* value = config.find(key);
  return value != nullptr && value->is_string() ? value->get<std::string>() : "";
}

struct Network4 {
  const char* recipe;
  const char* network;
  std::int64_t criteo_parameters, avazu_parameters;
};
// Avazu's DCN and DCN v2 by the formulas of cowclip.md 2.2, with 220 inputs
const Network4 kRows[] = {
    {"deepfm", "deepfm", 430814, 409601},
    {"wdl", "wide_deep", 430814, 409601},
    {"dcn", "dcn", 432725, 409601 + 220 + 3 * 2 * 220},
    {"dcnv2", "dcn_v2_mix", 654950, 409601 + 220 + 3 * (2 * 4 * 220 * 32 + 4 * 32 * 32 + 220) + 4 * 220}};

struct DataSet {
  const char* name;
  double train_rows;
  double lr[8], l2[8], zeta[8];  // batch 1K to 128K
};
const DataSet kCriteo = {"criteo",
                         41256555,
                         {8e-4, 11.31e-4, 16e-4, 22.62e-4, 32e-4, 45.25e-4, 64e-4, 90.50e-4},
                         {1e-5, 2e-5, 4e-5, 8e-5, 16e-5, 32e-5, 64e-5, 128e-5},
                         {1e-5, 1e-5, 1e-5, 1e-5, 1e-5, 1e-5, 1e-5, 1e-5}};
const DataSet kAvazu = {"avazu",
                        32343173,
                        {1e-4, 1.41e-4, 2e-4, 2.83e-4, 4e-4, 5.66e-4, 8e-4, 16e-4},
                        {1e-5, 2e-5, 4e-5, 8e-5, 16e-5, 32e-5, 64e-5, 96e-5},
                        {1e-3, 1e-3, 1e-4, 1e-4, 1e-4, 1e-4, 1e-4, 1e-4}};

/// Parameters of the model a recipe describes.
std::int64_t parameters(const Config& config) {
  Json model = config.values().at("model");
  EXPECT_EQ(model.at("name"), "cow_clip");
  model.erase("name");
  CowClipOptions options;
  read_options(Config::from_json(model, config.name()), options);
  const ClickModelInput input{static_cast<std::int64_t>(number(config, "data.fields")),
                              static_cast<std::int64_t>(number(config, "data.numerics")),
                              static_cast<std::int64_t>(number(config, "embedding.dim"))};
  const nn::SkipInitialisation only_counted;
  return CowClipImpl(options, input).describe().parameters();
}

void check_table(const DataSet& data, std::int64_t Network4::*count) {
  for (const auto& row : kRows) {
    for (int i = 0; i < 8; ++i) {
      const auto config = recipe(format("{}_{}_{}k", data.name, row.recipe, 1 << i));
      const double batch = 1024 << i;
      SCOPED_TRACE(config.name());
      EXPECT_EQ(number(config, "train.batch_size"), batch);
      EXPECT_EQ(number(config, "train.epochs"), 10);
      EXPECT_DOUBLE_EQ(number(config, "optimizer.lr"), data.lr[i]);
      EXPECT_DOUBLE_EQ(number(config, "embedding.l2"), data.l2[i]);
      EXPECT_DOUBLE_EQ(number(config, "embedding.clip_floor"), data.zeta[i]);
      EXPECT_EQ(number(config, "embedding.lr"), 1e-4);
      EXPECT_EQ(number(config, "embedding.init_std"), 1e-2);
      EXPECT_EQ(text(config, "embedding.clip"), "cowclip");
      EXPECT_EQ(number(config, "schedule.warmup"), std::floor(data.train_rows / batch));
      EXPECT_EQ(text(config, "model.network"), row.network);
      EXPECT_EQ(parameters(config), row.*count);
    }
  }
}

TEST(CowClipRecipes, CriteoRowsArePublishedOnes) {
  check_table(kCriteo, &Network4::criteo_parameters);
}
TEST(CowClipRecipes, AvazuRowsArePublishedOnes) {
  check_table(kAvazu, &Network4::avazu_parameters);
}

TEST(CowClipRecipes, BaselinesArePublishedOnes) {
  for (const std::string data : {"criteo", "avazu"})
    for (const auto& row : kRows) {
      const auto config = recipe(data + "_" + row.recipe + "_baseline");
      SCOPED_TRACE(config.name());
      EXPECT_EQ(number(config, "train.batch_size"), 1024);
      EXPECT_EQ(number(config, "train.seed"), 1235);
      EXPECT_EQ(number(config, "optimizer.lr"), 1e-4);
      EXPECT_EQ(number(config, "embedding.lr"), 1e-4);
      EXPECT_EQ(number(config, "embedding.l2"), 1e-5);
      EXPECT_EQ(number(config, "embedding.init_std"), 1e-4);
      EXPECT_EQ(text(config, "embedding.clip"), "none");
      EXPECT_EQ(number(config, "schedule.warmup"), 0);
    }
}

TEST(CowClipRecipes, WarmUpOfThePublishedRun) {
  const auto config = recipe("criteo_deepfm_128k");
  optim::ScheduleOptions schedule;
  read_options(Config::from_json(config.values().at("schedule"), config.name()), schedule);
  const double peak = 90.5096e-4;
  EXPECT_DOUBLE_EQ(optim::learning_rate(schedule, peak, 0, 3150), 1e-8);
  EXPECT_NEAR(optim::learning_rate(schedule, peak, 157, 3150), peak / 2, 1e-8);
  EXPECT_DOUBLE_EQ(optim::learning_rate(schedule, peak, 314, 3150), peak);
  EXPECT_DOUBLE_EQ(optim::learning_rate(schedule, peak, 3149, 3150), peak);
}

/// Rows that an experiment calls by batch and rule.
struct ComparedRule {
  const char* name;
  optim::ScalingRule rule;
  bool restarted;  // tables begin wider, the rest warms up for one epoch
};
const ComparedRule kCompared[] = {{"none", optim::ScalingRule::kNone, false},
                                  {"sqrt", optim::ScalingRule::kSqrt, false},
                                  {"sqrt, L2 unscaled", optim::ScalingRule::kSqrtStar, false},
                                  {"linear", optim::ScalingRule::kLinear, false},
                                  {"n^2-lambda", optim::ScalingRule::kN2Lambda, true},
                                  {"CowClip's rule, no clip", optim::ScalingRule::kCowClip, true},
                                  {"CowClip", optim::ScalingRule::kCowClip, true}};

/// The comparison of rules at 8 and 32 times the recipe's batch has the settings that the rules give.
void check_comparison(const std::string& name, std::int64_t train_rows) {
  const auto experiment =
      read_experiment(std::string(STOA_SOURCE_DIR) + "/experiments/cow_clip_" + name + ".toml");
  const auto plain = recipe(name);
  const optim::BatchSettings base{128, number(plain, "embedding.lr"), number(plain, "optimizer.lr"),
                                  number(plain, "embedding.l2")};
  ASSERT_EQ(number(plain, "train.batch_size"), 128);
  for (const std::int64_t batch : {1024, 4096})
    for (const auto& compared : kCompared) {
      const auto title = format("batch {}, {}", batch, compared.name);
      SCOPED_TRACE(title);
      const auto row = std::ranges::find(experiment.rows, title, &ExperimentRow::name);
      ASSERT_NE(row, experiment.rows.end());
      auto config = plain;
      for (const auto& assignment : row->set) config.set(assignment);
      const auto scaled = optim::scale_batch(base, batch, compared.rule);
      const auto expect = [&](const char* key, double value) {
        EXPECT_NEAR(number(config, key), value, 1e-5 * value) << key;
      };
      expect("train.batch_size", static_cast<double>(batch));
      expect("embedding.lr", scaled.embedding_lr);
      expect("optimizer.lr", scaled.dense_lr);
      expect("embedding.l2", scaled.l2);
      expect("train.eval_every", static_cast<double>((train_rows + batch - 1) / batch));
      if (compared.restarted) expect("schedule.warmup", static_cast<double>(train_rows / batch));
      expect("embedding.init_std", compared.restarted ? 1e-2 : 1e-4);
      EXPECT_EQ(text(config, "embedding.clip"), compared.name == std::string("CowClip") ? "cowclip" : "none");
    }
}

TEST(CowClipExperiments, OfGeneratedClicksFollowsTheRules) {
  check_comparison("zipf", 400000);
}

TEST(CowClipExperiments, OfMovieLensFollowsTheRules) {
  const RowSplit split("random", "movielens", 0);
  std::int64_t train_rows = 0;
  for (std::int64_t row = 0; row < 100836; ++row) train_rows += split.of(row) == TabularSplit::kTrain ? 1 : 0;
  check_comparison("movielens", train_rows);
}

}  // namespace
}  // namespace stoa::cow_clip
