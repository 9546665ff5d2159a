// Click-through prediction as a whole: recipe, data, tables, trainer, evaluation, prediction.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <numeric>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/nn/embedding_tables.h"
#include "stoa/systems/catalog.h"
#include "stoa/train/checkpoint.h"
#include "stoa/train/events.h"
#include "stoa/train/initial.h"
#include "stoa/train/trainer.h"
#include "support/click_files.h"
#include "support/temp_dir.h"
#include "support/thrown.h"

namespace stoa {
namespace {

namespace fs = std::filesystem;

/// 60 steps on generated rows that fit a test.
Config recipe(const std::vector<std::string>& set = {}) {
  Config config = Config::from_text(R"(
title = "small"
[task]
name = "click_through"
[data]
format = "zipf"
zipf = { fields = 4, ids = 50, train_rows = 3000, test_rows = 2000 }
[model]
name = "cow_clip"
hidden = [8]
[embedding]
dim = 4
lr = 1e-2
l2 = 1e-5
[optimizer]
name = "adamw"
lr = 1e-2
[schedule]
name = "constant"
[train]
steps = 60
batch_size = 128
log_every = 10
[runtime]
device = "cpu"
threads = 1
precision = "fp32"
)",
                                    "small.toml");
  for (const auto& assignment : set) config.set(assignment);
  return config;
}

TrainResult train(const fs::path& out, const std::vector<std::string>& set = {}) {
  TrainRequest request;
  request.recipe = recipe(set);
  request.out = out;
  return run_training(request, catalog());
}

/// All that a checkpoint of the last step holds, flattened.
std::map<std::string, at::Tensor> weights(const fs::path& run) {
  auto stored = read_run_weights(run, "last");
  auto all = stored.tensors;
  all.insert(stored.sparse.begin(), stored.sparse.end());
  return all;
}

void expect_same_weights(const fs::path& a, const fs::path& b) {
  const auto left = weights(a), right = weights(b);
  ASSERT_EQ(left.size(), right.size());
  for (const auto& [name, tensor] : left) EXPECT_TRUE(tensor.equal(right.at(name))) << name;
}

/// What a run has logged, without what the clock says.
std::vector<Json> log_of(const fs::path& run) {
  auto lines = read_events(run);
  for (auto& line : lines)
    for (const char* timed : {"seconds", "samples_per_second"}) line.erase(timed);
  return lines;
}

TEST(ClickThrough, LearnsAndMeasures) {
  const test::TempDir dir;
  const auto result = train(dir.path() / "run");
  EXPECT_GT(result.metrics["auc"], 0.6);
  EXPECT_LT(result.metrics["logloss"], 0.62);
  EXPECT_NEAR(result.metrics["calibration"], 1, 0.2);
  auto run = load_run(dir.path() / "run", catalog(), "last", true);
  EvaluateOptions options;
  options.batch_size = 300;  // another one than in training
  options.exhibits = true;
  const auto again = run.task->evaluate(options);
  EXPECT_NEAR(again.metrics["auc"], result.metrics["auc"], 1e-12);
  ASSERT_EQ(again.exhibits.size(), 3U);
  EXPECT_GT(std::get<TableExhibit>(again.exhibits[0].content).rows.size(), 2U);
  for (const auto& line : std::get<LinesExhibit>(again.exhibits[2].content).lines)
    EXPECT_NEAR(std::accumulate(line.y.begin(), line.y.end(), 0.0), 1, 1e-9) << line.name;
}

TEST(ClickThrough, RowsOfRareIdsAreMeasuredApart) {
  const test::TempDir dir;
  const auto result = train(dir.path() / "run", {"data.zipf.ids=2000"});
  for (const char* bucket : {"auc_seen_0", "auc_seen_1_to_9", "auc_seen_10_to_99"})
    EXPECT_TRUE(result.metrics.has(bucket)) << bucket;
}

TEST(ClickThrough, TheLogTellsOfTheTables) {
  const test::TempDir dir;
  train(dir.path() / "run", {"train.steps=20"});
  const Json line = read_events(dir.path() / "run").at(1);
  ASSERT_EQ(line.at("kind"), "train");
  EXPECT_GT(line.at("ids_per_batch"), 4);
  EXPECT_LE(line.at("clip_frac"), 1);
  EXPECT_GT(line.at("row_norm"), 0);
  const std::vector<double> norms = line.at("statistics").at("rows.gradient_norms");
  EXPECT_NEAR(std::accumulate(norms.begin(), norms.end(), 0.0), 1, 1e-4);
}

TEST(ClickThrough, ABatchLargerThanTheDataIsRefused) {
  const test::TempDir dir;
  STOA_EXPECT_CONTAINS(
      test::thrown<ConfigError>([&] { train(dir.path() / "run", {"train.batch_size=3001"}); }),
      "`train.batch_size` is 3001, but there are 3000 training rows");
}

TEST(ClickThrough, StridesKeepTheAccuracyOfDenseSteps) {
  const test::TempDir dir;
  const auto auc = [&](const std::string& absent) {
    TrainRequest request;
    request.recipe = Config::from_file(STOA_SOURCE_DIR "/recipes/cow_clip/zipf.toml");
    for (const char* set : {"data.zipf.ids=500", "data.zipf.train_rows=20000", "data.zipf.test_rows=20000",
                            "train.epochs=4", "train.eval_every=0"})
      request.recipe->set(set);
    request.recipe->set("embedding.absent=\"" + absent + "\"");
    request.out = dir.path() / absent;
    return run_training(request, catalog()).metrics["auc"];
  };
  const double dense = auc("dense");
  EXPECT_EQ(auc("replay"), dense);
  EXPECT_NEAR(auc("strided"), dense, 1e-3);
}

TEST(ClickThrough, AResumedRunEndsBitForBitAlike) {
  for (const std::string absent : {"dense", "strided"}) {
    const test::TempDir dir;
    const std::vector<std::string> set = {"embedding.absent=\"" + absent + "\"", "checkpoint.every=25",
                                          "checkpoint.keep_last=9", "train.log_every=1"};
    train(dir.path() / "whole", set);
    fs::copy(dir.path() / "whole", dir.path() / "part", fs::copy_options::recursive);
    TrainRequest request;
    request.resume = dir.path() / "part";
    request.resume_step = 25;
    run_training(request, catalog());
    expect_same_weights(dir.path() / "whole", dir.path() / "part");
    EXPECT_EQ(log_of(dir.path() / "whole"), log_of(dir.path() / "part"));
  }
}

TEST(ClickThrough, MicroBatchesMakeTheSameStep) {
  const test::TempDir dir;
  const auto whole = train(dir.path() / "whole", {"train.steps=5"});
  train(dir.path() / "cut", {"train.steps=5", "train.micro_batch_size=50"});
  const auto a = weights(dir.path() / "whole"), b = weights(dir.path() / "cut");
  for (const auto& [name, tensor] : a)
    EXPECT_TRUE(tensor.to(at::kDouble).allclose(b.at(name).to(at::kDouble), 1e-3, 2e-5)) << name;
}

/// Prepares a day of rows and trains on them.
class Days : public ::testing::Test {
 protected:
  fs::path prepare(const std::string& day, std::uint64_t seed, const fs::path& vocabulary_of = {}) {
    test::write_text(dir_ / (day + ".txt"), test::criteo_text(600, seed));
    auto options = test::prepare_options("criteo", {dir_ / (day + ".txt")}, dir_ / day);
    options.vocabulary_of = vocabulary_of;
    return prepare_tabular(options).folder;
  }
  fs::path train(const std::string& name, const fs::path& data, const std::vector<std::string>& set = {}) {
    auto values = recipe().values();
    values["data"] = {{"path", data.string()}};
    TrainRequest request;
    request.recipe = Config::from_json(values, "day.toml");
    for (const auto& assignment : set) request.recipe->set(assignment);
    request.out = dir_ / name;
    return run_training(request, catalog()).run;
  }
  static nn::EmbeddingTables& tables(const LoadedRun& run) {
    return dynamic_cast<nn::EmbeddingTables&>(*run.task->sparse_weights());
  }
  test::TempDir dir_;
};

TEST_F(Days, ANewDayGoesOnFromTheRowsOfTheDayBefore) {
  const auto day1 = prepare("day1", 1), day2 = prepare("day2", 2, day1);
  const auto old_run = train("old", day1);
  const auto new_run = train(
      "new", day2,
      {"train.steps=1", "embedding.lr=0", "embedding.l2=0", "initial.weights=\"" + old_run.string() + "\""});
  const auto before = load_run(old_run, catalog(), "last", false),
             after = load_run(new_run, catalog(), "last", false);
  bool grown = false;
  for (std::int64_t field = 0; field < 26; ++field) {
    const auto old_rows = tables(before).embeddings(field), rows = tables(after).embeddings(field);
    EXPECT_TRUE(rows.narrow(0, 0, old_rows.size(0)).equal(old_rows)) << field;
    if (rows.size(0) == old_rows.size(0)) continue;
    grown = true;
    EXPECT_GT(rows.narrow(0, old_rows.size(0), rows.size(0) - old_rows.size(0)).abs().min().item<float>(), 0);
  }
  EXPECT_TRUE(grown);
}

TEST_F(Days, ADayWithAVocabularyOfItsOwnIsRefused) {
  const auto day1 = prepare("day1", 1), day2 = prepare("day2", 2);
  const auto old_run = train("old", day1, {"train.steps=1"});
  STOA_EXPECT_CONTAINS(
      test::thrown<DataError>([&] { train("new", day2, {"initial.weights=\"" + old_run.string() + "\""}); }),
      "--vocabulary-of");
}

TEST(ClickThrough, OtherDataThanTheRunsAreRefused) {
  const test::TempDir dir;
  train(dir.path() / "run", {"train.steps=2"});
  std::string text = read_file(dir.path() / "run" / "recipe.toml");
  const auto at = text.find("seed = 0", text.find("[data.zipf]"));
  ASSERT_NE(at, std::string::npos) << text;
  text.replace(at, 8, "seed = 7");
  write_file_atomically(dir.path() / "run" / "recipe.toml", text);
  STOA_EXPECT_CONTAINS(
      test::thrown<DataError>([&] { load_run(dir.path() / "run", catalog(), "last", true); }), "vocabulary");
}

TEST(ClickThrough, ScoresRowsOfAFile) {
  const test::TempDir dir;
  train(dir.path() / "run", {"train.steps=20"});
  auto run = load_run(dir.path() / "run", catalog(), "last", true);
  run.task->save_examples(dir.path() / "examples", 5);
  const std::string file = (dir.path() / "examples" / "examples.jsonl").string();
  const auto found = run.task->predict(std::vector<std::string>{file});
  ASSERT_EQ(found.size(), 1U);
  ASSERT_EQ(found[0].json["probabilities"].size(), 5U);
  for (const auto& rate : found[0].json["probabilities"]) EXPECT_TRUE(rate > 0 && rate < 1);

  const auto refused = [&](const std::string& line) {
    write_file_atomically(dir.path() / "bad.jsonl", line);
    return test::thrown<DataError>(
        [&] { run.task->predict(std::vector<std::string>{(dir.path() / "bad.jsonl").string()}); });
  };
  STOA_EXPECT_CONTAINS(refused("{\"ids\": [1, 2, 3, 50]}\n"), "line 1: id 50 of field 3");
  STOA_EXPECT_CONTAINS(refused("{\"ids\": [1, 2]}\n"), "list of 4");
  STOA_EXPECT_CONTAINS(refused("{\"ids\": [1, 2\n"), "line 1, column");
  STOA_EXPECT_CONTAINS(refused("\n"), "no row");
  STOA_EXPECT_CONTAINS(refused("1,2,3,4\n"), "generated");
}

TEST(ClickThrough, AveragesOfTablesAreRefused) {
  const test::TempDir dir;
  STOA_EXPECT_CONTAINS(test::thrown<ConfigError>([&] { train(dir.path() / "run", {"train.ema=0.9"}); }),
                       "train.ema");
}

TEST(ClickThrough, LossesThatAreNotFiniteNameTheStep) {
  const test::TempDir dir;
  STOA_EXPECT_CONTAINS(test::thrown<NumericError>([&] {
                         train(dir.path() / "run", {"embedding.lr=1e30", "optimizer.lr=1e30"});
                       }),
                       "step ");
}

}  // namespace
}  // namespace stoa
