// Checkpoints, warm starts, exports, larger tables and tables in files.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <vector>

#include "nn/embedding_problem.h"
#include "stoa/base/errors.h"
#include "support/temp_dir.h"
#include "support/thrown.h"

namespace stoa::nn {
namespace {

TEST(EmbeddingStorage, AResumedRunIsTheSameToTheBit) {
  for (const auto absent :
       {AbsentRows::kDense, AbsentRows::kReplay, AbsentRows::kStrided, AbsentRows::kLazy}) {
    EmbeddingTables whole(kSizes, small(absent), 5), resumed(kSizes, small(absent), 99);
    train(whole, 0, 60);
    resumed.load(copy_of(whole.state()), "a checkpoint");
    EXPECT_EQ(resumed.steps(), 60);
    EXPECT_EQ(resumed.gradient_norms().rows, whole.gradient_norms().rows);
    train(whole, 60, 60);
    train(resumed, 60, 60);
    EXPECT_TRUE(at::equal(everything(whole), everything(resumed))) << static_cast<int>(absent);
  }
}

TEST(EmbeddingStorage, StatesThatDoNotFitAreRefused) {
  EmbeddingTables tables(kSizes, small(), 5);
  const auto load = [&](auto change) {
    auto state = copy_of(tables.state());
    change(state);
    return test::thrown<DataError>([&] { tables.load(state, "run/tables"); });
  };
  STOA_EXPECT_CONTAINS(load([](auto& s) { s.erase("tables.rows.1"); }),
                       "run/tables: tensor `tables.rows.1` is missing");
  STOA_EXPECT_CONTAINS(load([](auto& s) {
                         s["tables.rows.0"] = at::zeros({8, 34});
                       }),
                       "has shape [8, 34], [7, 34]");
  STOA_EXPECT_CONTAINS(load([](auto& s) { s["more"] = at::zeros({1}); }), "`more` has no place");
  STOA_EXPECT_CONTAINS(load([](auto& s) { s["tables.steps"] -= 1; }), "`tables.steps` is -1");
  STOA_EXPECT_CONTAINS(load([](auto& s) { s["tables.update"][5] = 9; }), "mode 9");
  STOA_EXPECT_CONTAINS(load([](auto& s) { s["tables.update"][0] = -1; }), "embedding.lr");
  STOA_EXPECT_CONTAINS(load([](auto& s) { s["tables.rows.0"].select(1, 33).fill_(1); }),
                       "at steps 1065353216");
}

TEST(EmbeddingStorage, ANewTrainingStartsFromStoredWeights) {
  EmbeddingTables trained({7, 40}, small(), 5), fresh({7, 60}, small(), 6), drawn({7, 60}, small(), 6);
  for (int t = 0; t < 5; ++t) {
    backward(trained, some_ids(16, t).narrow(1, 0, 1).expand({16, 2}), t);
    trained.step();
  }
  fresh.start_from(copy_of(trained.state()), "yesterday");
  EXPECT_EQ(fresh.steps(), 0);
  EXPECT_TRUE(at::equal(fresh.embeddings(1).narrow(0, 0, 40), trained.embeddings(1)));
  EXPECT_TRUE(at::equal(fresh.linear(0), trained.linear(0)));
  EXPECT_TRUE(at::equal(fresh.embeddings(1).narrow(0, 40, 20), drawn.embeddings(1).narrow(0, 40, 20)));
  EXPECT_EQ(fresh.state().at("tables.rows.0").narrow(1, 11, 22).abs().max().item<double>(), 0);
  const auto message =
      test::thrown<DataError>([&] { trained.start_from(copy_of(fresh.state()), "tomorrow"); });
  STOA_EXPECT_CONTAINS(
      message, "tomorrow: tensor `tables.rows.1` has shape [60, 34], [40, 34] with as many rows or fewer");
}

TEST(EmbeddingStorage, WhatStoredRowsHavePutOffIsDoneAsTheirTrainingWouldHave) {
  auto frozen = small();
  frozen.lr = frozen.l2 = 0;
  EmbeddingTables trained(kSizes, small(), 5), fresh(kSizes, frozen, 6);
  train(trained, 0, 30);
  fresh.start_from(copy_of(trained.state()), "yesterday");
  for (std::int64_t field = 0; field < 2; ++field)
    EXPECT_TRUE(at::equal(fresh.embeddings(field), trained.embeddings(field))) << field;
}

TEST(EmbeddingStorage, RowsOfAnotherVocabularyAreRefused) {
  EmbeddingTables day1(kSizes, small(), 5), day2(kSizes, small(), 6), other(kSizes, small(), 7);
  day1.name_vocabulary("one", "");
  day2.name_vocabulary("two", "one");
  other.name_vocabulary("three", "two");
  const auto stored = copy_of(day1.state());
  day1.load(stored, "a checkpoint");
  day2.start_from(stored, "yesterday");
  STOA_EXPECT_CONTAINS(test::thrown<DataError>([&] { day2.load(stored, "yesterday"); }),
                       "yesterday: its rows are of vocabulary one, the data have two");
  STOA_EXPECT_CONTAINS(test::thrown<DataError>([&] { other.start_from(stored, "yesterday"); }),
                       "the data have three (grown from two), so the same ids mean other things");
}

TEST(EmbeddingStorage, RowsOfAnotherWidthAreRefused) {
  auto options = small();
  options.dim = 8;
  EmbeddingTables tables(kSizes, small(), 5), narrow(kSizes, options, 5);
  for (const bool resumed : {true, false}) {
    const auto message = test::thrown<DataError>([&] {
      resumed ? narrow.load(copy_of(tables.state()), "a run") : narrow.start_from(tables.state(), "a run");
    });
    STOA_EXPECT_CONTAINS(message, "a run: tensor `tables.rows.0` has shape [7, 34], [7, 28]");
  }
}

TEST(EmbeddingStorage, ServedTablesStartNoTraining) {
  EmbeddingTables tables(kSizes, small(), 5), fresh(kSizes, small(), 6);
  tables.serve(ServedType::kFloat);
  STOA_EXPECT_CONTAINS(test::thrown<DataError>([&] { fresh.start_from(tables.state(), "an export"); }),
                       "an export: its embedding tables were exported");
}

TEST(EmbeddingStorage, ServedTablesHaveTheSameNorms) {
  EmbeddingTables tables(kSizes, small(), 5);
  train(tables, 0, 30);
  const auto norms = tables.weight_norms(1).rows;
  const double penalty = tables.penalty();
  tables.serve(ServedType::kFloat);
  EXPECT_EQ(tables.weight_norms(1).rows, norms);
  EXPECT_DOUBLE_EQ(tables.penalty(), penalty);
}

TEST(EmbeddingStorage, ServedTablesAreReadAlikeInEachType) {
  for (const auto& [type, tolerance] :
       {std::pair{ServedType::kFloat, 0.0}, {ServedType::kHalf, 1e-3}, {ServedType::kInt8, 5e-3}}) {
    EmbeddingTables tables(kSizes, small(), 5), loaded(kSizes, small(), 6);
    train(tables, 0, 30);
    const auto ids = some_ids(16, 3);
    const at::NoGradGuard no_gradients;
    const auto before = tables.lookup(ids);
    tables.serve(type);
    loaded.load(copy_of(tables.state()), "an export");
    for (auto* served : {&tables, &loaded}) {
      const auto after = served->lookup(ids);
      EXPECT_LE(largest_difference(after.embeddings, before.embeddings),
                tolerance * before.embeddings.abs().max().item<double>());
      EXPECT_LE(largest_difference(after.linear, before.linear),
                tolerance * before.linear.abs().max().item<double>());
      const at::AutoGradMode gradients(true);
      STOA_EXPECT_CONTAINS(test::thrown<Error>([&] { served->lookup(ids); }), "exported");
    }
  }
}

TEST(EmbeddingStorage, ServedStatesThatDoNotFitAreRefused) {
  EmbeddingTables tables(kSizes, small(), 5), other(kSizes, small(), 6);
  tables.serve(ServedType::kInt8);
  const auto load = [&](auto change) {
    auto state = copy_of(tables.state());
    change(state);
    return test::thrown<DataError>([&] { other.load(state, "an export"); });
  };
  STOA_EXPECT_CONTAINS(load([](auto& s) { s.erase("served.numbers.1"); }), "`served.numbers.1` is missing");
  STOA_EXPECT_CONTAINS(load([](auto& s) { s["served.rows.1"] = s["served.rows.0"]; }), "`served.rows.1`");
  STOA_EXPECT_CONTAINS(load([](auto& s) { s["served.rows.1"] = s["served.rows.1"].to(at::kHalf); }),
                       "does not fit");
}

TEST(EmbeddingStorage, GrownTablesKeepTheirRowsAndDrawTheNewOnes) {
  EmbeddingTables tables({7, 40}, small(), 5), large({7, 60}, small(), 5);
  const auto fresh = large.embeddings(1).narrow(0, 40, 20);
  for (int t = 0; t < 5; ++t) {
    backward(tables, some_ids(16, t).narrow(1, 0, 1).expand({16, 2}), t);
    tables.step();
  }
  const auto before = tables.embeddings(1);
  tables.grow({7, 60});
  EXPECT_EQ(tables.sizes(), (std::vector<std::int64_t>{7, 60}));
  EXPECT_TRUE(at::equal(tables.embeddings(1).narrow(0, 0, 40), before));
  EXPECT_TRUE(at::equal(tables.embeddings(1).narrow(0, 40, 20), fresh));
  STOA_EXPECT_CONTAINS(test::thrown<DataError>([&] { tables.grow({7, 59}); }), "field 1");
}

TEST(EmbeddingStorage, FilesHoldTheSameTables) {
  const test::TempDir folder;
  EmbeddingTables in_memory(kSizes, small(), 5);
  auto options = small();
  options.storage = (folder / "tables").string();
  EmbeddingTables in_files(kSizes, options, 5);
  train(in_memory, 0, 20);
  train(in_files, 0, 20);
  EXPECT_TRUE(at::equal(everything(in_memory), everything(in_files)));
  EXPECT_TRUE(std::filesystem::is_empty(folder / "tables")) << "the files have no name";
}

TEST(EmbeddingStorage, AFolderThatCannotBeWrittenIsNamed) {
  auto options = small();
  options.storage = "/proc/tables";
  STOA_EXPECT_CONTAINS(test::thrown<IoError>([&] { EmbeddingTables(kSizes, options, 5).draw(); }),
                       "/proc/tables");
}

TEST(EmbeddingStorage, AnEmptyVocabularyIsRefused) {
  STOA_EXPECT_CONTAINS(test::thrown<DataError>([] { EmbeddingTables({7, 0}, small(), 5); }), "field 1");
}

}  // namespace
}  // namespace stoa::nn
