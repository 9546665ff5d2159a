#include "stoa/nn/embedding_tables.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/ops/simd.h"
#include "support/temp_dir.h"
#include "support/thrown.h"

namespace stoa::nn {
namespace {

const std::vector<std::int64_t> kSizes = {7, 400, 30};

EmbeddingOptions small(AbsentRows absent = AbsentRows::kReplay) {
  EmbeddingOptions options;
  options.lr = 1e-3;
  options.l2 = 1e-4;
  options.absent = absent;
  return options;
}

/// Ids [batch, 3] with a long tail: most rows are rare.
at::Tensor some_ids(std::int64_t batch, int seed) {
  at::manual_seed(static_cast<std::uint64_t>(seed));
  std::vector<at::Tensor> columns;
  for (const auto size : kSizes)
    columns.push_back((at::rand({batch}).pow(3) * static_cast<double>(size)).floor().to(at::kLong));
  return at::stack(columns, 1);
}

/// Gathers the gradient of a loss with fixed random slopes, those of `seed`.
void backward(EmbeddingTables& tables, const at::Tensor& ids, int seed, double scale = 1) {
  at::manual_seed(static_cast<std::uint64_t>(1000 + seed));
  const auto rows = tables.lookup(ids);
  const auto slopes = at::randn(rows.embeddings.sizes()) * 0.01,
             linear_slopes = at::randn(rows.linear.sizes()) * 0.01;
  (((rows.embeddings * slopes).sum() + (rows.linear * linear_slopes).sum()) * scale).backward();
}

std::vector<std::pair<std::string, double>> train(EmbeddingTables& tables, int first, int steps) {
  std::vector<std::pair<std::string, double>> numbers;
  for (int t = first; t < first + steps; ++t) {
    tables.zero_grad();
    backward(tables, some_ids(16, t), t);
    numbers = tables.step();
  }
  return numbers;
}

/// All weights and moments, every update done.
at::Tensor everything(EmbeddingTables& tables) {
  tables.flush();
  std::vector<at::Tensor> parts;
  const auto state = tables.state();
  for (const auto& [name, tensor] : state)
    if (name.starts_with("tables.rows.")) parts.push_back(tensor.narrow(1, 0, tensor.size(1) - 1).flatten());
  return at::cat(parts);
}

double number(const std::vector<std::pair<std::string, double>>& numbers, const std::string& name) {
  for (const auto& [key, value] : numbers)
    if (key == name) return value;
  ADD_FAILURE() << name << " is missing";
  return 0;
}

double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

TEST(EmbeddingTables, StartFromNormalRowsThatDiffer) {
  EmbeddingTables tables({20000, 3}, small(), 5);
  const auto embeddings = tables.embeddings(0);
  EXPECT_NEAR(embeddings.mean().item<double>(), 0, 1e-4);
  EXPECT_NEAR(embeddings.std().item<double>(), 1e-2, 1e-4);
  EXPECT_GT(largest_difference(embeddings.narrow(0, 0, 3), tables.embeddings(1)), 1e-3);
  EXPECT_EQ(tables.linear(0).abs().max().item<double>(), 0);
}

TEST(EmbeddingTables, StartDoesNotDependOnTheNumberOfThreads) {
  std::vector<at::Tensor> drawn;
  for (const int threads : {1, 3}) {
    at::set_num_threads(threads);
    drawn.push_back(EmbeddingTables({20000}, small(), 5).embeddings(0));
  }
  EXPECT_TRUE(at::equal(drawn[0], drawn[1]));
}

TEST(EmbeddingTables, LookupGivesTheRowsOfTheIds) {
  EmbeddingTables tables(kSizes, small(), 5);
  const auto linear = at::arange(30, at::kFloat);
  tables.set_weights(2, tables.embeddings(2), linear);
  const auto ids = some_ids(9, 1);
  for (const bool grad : {true, false}) {
    const at::AutoGradMode mode(grad);
    const auto rows = tables.lookup(ids);
    EXPECT_EQ(rows.embeddings.requires_grad(), grad);
    EXPECT_TRUE(at::equal(rows.embeddings.detach().select(1, 1),
                          tables.embeddings(1).index_select(0, ids.select(1, 1))));
    EXPECT_TRUE(at::equal(rows.linear.detach().select(1, 2), linear.index_select(0, ids.select(1, 2))));
  }
}

TEST(EmbeddingTables, AnIdOutOfRangeNamesFieldAndRow) {
  EmbeddingTables tables(kSizes, small(), 5);
  auto ids = some_ids(9, 1);
  ids[4][2] = 30;
  for (const bool grad : {true, false}) {
    const at::AutoGradMode mode(grad);
    STOA_EXPECT_CONTAINS(test::thrown<DataError>([&] { tables.lookup(ids); }),
                         "field 2, row 4 of the batch: id 30");
  }
}

TEST(EmbeddingTables, ReplayIsDenseToTheBit) {
  for (const auto& level : ops::simd_levels()) {
    ops::limit_simd(level);
    at::Tensor first;
    for (const int threads : {1, 4})
      for (const auto absent : {AbsentRows::kDense, AbsentRows::kReplay}) {
        at::set_num_threads(threads);
        EmbeddingTables tables(kSizes, small(absent), 5);
        train(tables, 0, 200);
        const auto found = everything(tables);
        if (!first.defined()) first = found;
        EXPECT_TRUE(at::equal(found, first)) << level << ", " << threads << " threads";
      }
  }
  ops::limit_simd("auto");
}

TEST(EmbeddingTables, ReplayIsDenseToTheBitWithoutL2) {
  auto options = small(AbsentRows::kDense);
  options.l2 = 0;
  EmbeddingTables dense(kSizes, options, 5);
  options.absent = AbsentRows::kReplay;
  EmbeddingTables replay(kSizes, options, 5);
  train(dense, 0, 100);
  train(replay, 0, 100);
  EXPECT_TRUE(at::equal(everything(dense), everything(replay)));
}

TEST(EmbeddingTables, StridedStaysNearDense) {
  const auto after = [](AbsentRows absent) {
    auto options = small(absent);
    options.lr = 1e-4;
    EmbeddingTables tables(kSizes, options, 5);
    train(tables, 0, 600);
    return tables.embeddings(1);
  };
  const auto dense = after(AbsentRows::kDense), strided = after(AbsentRows::kStrided),
             lazy = after(AbsentRows::kLazy);
  const auto distance = [&](const at::Tensor& other) { return (dense - other).abs().mean().item<double>(); };
  EXPECT_GT(distance(strided), 0);
  EXPECT_LT(distance(strided), 4e-4);  // a few steps of lr
  EXPECT_LT(distance(strided), 0.1 * distance(lazy));
}

TEST(EmbeddingTables, AbsentRowsShrinkInEveryModeButLazy) {
  const auto ids = at::zeros({4, 3}, at::kLong);
  for (const auto absent :
       {AbsentRows::kDense, AbsentRows::kReplay, AbsentRows::kStrided, AbsentRows::kLazy}) {
    EmbeddingTables tables(kSizes, small(absent), 5);
    const auto before = tables.embeddings(1).narrow(0, 1, 399);
    for (int t = 0; t < 60; ++t) {
      backward(tables, ids, t);
      tables.step();
    }
    const auto after = tables.embeddings(1).narrow(0, 1, 399);
    if (absent == AbsentRows::kLazy)
      EXPECT_TRUE(at::equal(before, after));
    else
      EXPECT_LT(after.norm().item<double>(), 0.2 * before.norm().item<double>()) << static_cast<int>(absent);
  }
}

TEST(EmbeddingTables, WithoutL2RowsNeverSeenStayAsTheyBegan) {
  const auto ids = at::zeros({4, 3}, at::kLong);
  for (const auto absent :
       {AbsentRows::kDense, AbsentRows::kReplay, AbsentRows::kStrided, AbsentRows::kLazy}) {
    auto options = small(absent);
    options.l2 = 0;
    EmbeddingTables tables(kSizes, options, 5);
    const auto before = tables.embeddings(1).narrow(0, 1, 399);
    for (int t = 0; t < 60; ++t) {
      backward(tables, ids, t);
      tables.step();
    }
    EXPECT_TRUE(at::equal(before, tables.embeddings(1).narrow(0, 1, 399))) << static_cast<int>(absent);
  }
}

TEST(EmbeddingTables, ReadingChangesNothing) {
  EmbeddingTables read(kSizes, small(AbsentRows::kStrided), 5), left(kSizes, small(AbsentRows::kStrided), 5);
  for (int t = 0; t < 30; ++t) {
    train(read, 10 * t, 10);
    train(left, 10 * t, 10);
    const at::NoGradGuard no_grad;
    read.lookup(some_ids(50, 5000 + t));
    read.embeddings(1);
    read.penalty();
    read.weight_norms(1);
  }
  EXPECT_TRUE(at::equal(everything(read), everything(left)));
}

TEST(EmbeddingTables, ReadingSeesPutOffUpdates) {
  EmbeddingTables dense(kSizes, small(AbsentRows::kDense), 5), replay(kSizes, small(), 5);
  train(dense, 0, 50);
  train(replay, 0, 50);
  const at::NoGradGuard no_grad;
  const auto ids = some_ids(200, 77);
  EXPECT_TRUE(at::equal(dense.lookup(ids).embeddings, replay.lookup(ids).embeddings));
  EXPECT_TRUE(at::equal(dense.embeddings(1), replay.embeddings(1)));
}

TEST(EmbeddingTables, TheOrderOfTheBatchDoesNotMatter) {
  EmbeddingTables forwards(kSizes, small(), 5), backwards(kSizes, small(), 5);
  for (int t = 0; t < 20; ++t) {
    const auto ids = some_ids(16, t), slopes = at::randn({16, 3, 10}) * 0.01;
    (forwards.lookup(ids).embeddings * slopes).sum().backward();
    (backwards.lookup(ids.flip(0)).embeddings * slopes.flip(0)).sum().backward();
    forwards.step();
    backwards.step();
  }
  EXPECT_LT(largest_difference(everything(forwards), everything(backwards)), 1e-6);
}

TEST(EmbeddingTables, MicroBatchesAreOneBatch) {
  EmbeddingTables whole(kSizes, small(), 5), parts(kSizes, small(), 5);
  double whole_clipped = 0, parts_clipped = 0;
  for (int t = 0; t < 20; ++t) {
    const auto ids = some_ids(16, t), slopes = at::randn({16, 3, 10});
    (whole.lookup(ids).embeddings * slopes).sum().backward();
    for (const auto& [begin, count] : {std::pair{0, 5}, {5, 5}, {10, 6}})
      (parts.lookup(ids.narrow(0, begin, count)).embeddings * slopes.narrow(0, begin, count))
          .sum()
          .backward();
    EXPECT_NEAR(whole.squared_gradient(), parts.squared_gradient(), 1e-4 * whole.squared_gradient());
    whole_clipped += number(whole.step(), "clip_frac");
    parts_clipped += number(parts.step(), "clip_frac");
  }
  EXPECT_GT(whole_clipped, 1) << "counts matter only where rows are clipped";
  EXPECT_DOUBLE_EQ(whole_clipped, parts_clipped);
  EXPECT_LT(largest_difference(everything(whole), everything(parts)), 1e-5);
}

TEST(EmbeddingTables, CountsRaiseTheLimitLinearly) {
  auto options = small();
  options.betas = {0, 0.999};
  options.l2 = 0;
  std::vector<double> norms;
  for (const std::int64_t count : {1, 2, 6}) {
    EmbeddingTables tables({3}, options, 5);
    (tables.lookup(at::ones({count, 1}, at::kLong)).embeddings * 1000).sum().backward();
    tables.step();
    norms.push_back(tables.state().at("tables.rows.0")[1].narrow(0, 11, 10).norm().item<double>());
  }
  EXPECT_NEAR(norms[1], 2 * norms[0], 1e-6);
  EXPECT_NEAR(norms[2], 6 * norms[0], 1e-6);
}

TEST(EmbeddingTables, ALargeRatioIsNoClip) {
  auto options = small();
  options.clip_ratio = 1e9;
  EmbeddingTables wide(kSizes, options, 5);
  options.clip = RowClip::kNone;
  EmbeddingTables none(kSizes, options, 5);
  EXPECT_EQ(number(train(wide, 0, 30), "clip_frac"), 0);
  train(none, 0, 30);
  EXPECT_TRUE(at::equal(everything(wide), everything(none)));
}

/// Norms of the clipped gradients of each field's embeddings after one step with large gradients.
std::vector<double> clipped_norms(EmbeddingOptions options, const at::Tensor& ids) {
  options.betas = {0, 0.999};
  options.l2 = 0;
  EmbeddingTables tables(kSizes, options, 5);
  (tables.lookup(ids).embeddings * 1000).sum().backward();
  EXPECT_EQ(number(tables.step(), "clip_frac"), 1);
  std::vector<double> norms;
  for (std::size_t field = 0; field < kSizes.size(); ++field)
    norms.push_back(
        tables.state().at(format("tables.rows.{}", field)).narrow(1, 11, 10).norm().item<double>());
  return norms;
}

TEST(EmbeddingTables, OtherClipsHoldTheNormsTheyName) {
  const auto ids = at::tensor({1, 2, 3, 1, 9, 3}, at::kLong).view({2, 3});
  auto options = small();
  options.clip_floor = 0.5;
  options.clip = RowClip::kGlobal;
  auto norms = clipped_norms(options, ids);
  EXPECT_NEAR(norms[0] * norms[0] + norms[1] * norms[1] + norms[2] * norms[2], 0.25, 1e-5);
  options.clip = RowClip::kField;
  for (const double norm : clipped_norms(options, ids)) EXPECT_NEAR(norm, 0.5, 1e-5);
  options.clip = RowClip::kIdConst;
  norms = clipped_norms(options, ids);
  EXPECT_NEAR(norms[0], 1, 1e-5);               // one id, twice
  EXPECT_NEAR(norms[1], std::sqrt(0.5), 1e-5);  // two ids, once each
  options.clip = RowClip::kFieldAdaptive;
  options.clip_floor = 0;
  norms = clipped_norms(options, ids);
  EmbeddingTables start(kSizes, small(), 5);
  const auto touched = start.embeddings(1).index_select(0, at::tensor({2, 9}, at::kLong));
  EXPECT_NEAR(norms[1], touched.norm().item<double>(), 1e-6);
}

TEST(EmbeddingTables, TheFloorOfThePaperHasNoRatioInIt) {
  auto options = small();
  options.clip_floor = 0.5;
  options.clip_ratio = 0.25;
  const auto ids = at::zeros({1, 3}, at::kLong);
  EXPECT_NEAR(clipped_norms(options, ids)[0], 0.0625 * std::sqrt(10.0) * 0.5, 1e-6);
  options.floor = ClipFloor::kPaper;
  EXPECT_NEAR(clipped_norms(options, ids)[0], 0.5, 1e-6);
}

TEST(EmbeddingTables, NumbersOfAStep) {
  EmbeddingTables tables(kSizes, small(), 5);
  const auto numbers = train(tables, 0, 1);
  std::int64_t distinct = 0;
  for (std::int64_t field = 0; field < 3; ++field)
    distinct += std::get<0>(at::_unique(some_ids(16, 0).select(1, field))).numel();
  EXPECT_EQ(number(numbers, "ids_per_batch"), static_cast<double>(distinct));
  EXPECT_GT(number(numbers, "clip_frac"), 0);
  EXPECT_GT(number(numbers, "row_norm"), 0);
  std::int64_t rows = 0;
  for (const auto count : tables.gradient_norms().rows) rows += count;
  EXPECT_EQ(rows, distinct);
}

TEST(EmbeddingTables, AStepWithoutGradientsOnlyShrinks) {
  EmbeddingTables tables(kSizes, small(AbsentRows::kDense), 5);
  const double before = tables.penalty();
  EXPECT_EQ(number(tables.step(), "ids_per_batch"), 0);
  EXPECT_EQ(tables.steps(), 1);
  EXPECT_LT(tables.penalty(), before);
}

TEST(EmbeddingTables, ZeroGradForgets) {
  EmbeddingTables tables(kSizes, small(), 5);
  backward(tables, some_ids(16, 1), 1);
  EXPECT_GT(tables.squared_gradient(), 0);
  tables.zero_grad();
  EXPECT_EQ(tables.squared_gradient(), 0);
  EXPECT_EQ(number(tables.step(), "ids_per_batch"), 0);
}

TEST(EmbeddingTables, GradientsThatAreNotFiniteAreSeen) {
  EmbeddingTables tables(kSizes, small(), 5);
  backward(tables, some_ids(16, 1), 1, std::numeric_limits<double>::quiet_NaN());
  EXPECT_FALSE(std::isfinite(tables.squared_gradient()));
}

TEST(EmbeddingTables, PenaltyAndHistogramAreOfTheWeights) {
  EmbeddingTables tables(kSizes, small(), 5);
  double squares = 0;
  for (std::int64_t field = 0; field < 3; ++field)
    squares += tables.embeddings(field).pow(2).sum().item<double>();
  EXPECT_NEAR(tables.penalty(), 1e-4 * squares, 1e-9);
  const auto histogram = tables.weight_norms(1);
  ASSERT_EQ(histogram.edges.size(), histogram.rows.size() + 1);
  const auto norms = tables.embeddings(1).norm(2, 1);
  std::int64_t rows = 0;
  for (std::size_t bin = 0; bin < histogram.rows.size(); ++bin) {
    EXPECT_EQ(histogram.rows[bin], (norms >= histogram.edges[bin])
                                       .logical_and(norms < histogram.edges[bin + 1])
                                       .sum()
                                       .item<std::int64_t>());
    rows += histogram.rows[bin];
  }
  EXPECT_EQ(rows, 400);
}

std::map<std::string, at::Tensor> copy_of(const std::map<std::string, at::Tensor>& state) {
  std::map<std::string, at::Tensor> copy;
  for (const auto& [name, tensor] : state) copy[name] = tensor.clone();
  return copy;
}

TEST(EmbeddingTables, AResumedRunIsTheSameToTheBit) {
  for (const auto absent :
       {AbsentRows::kDense, AbsentRows::kReplay, AbsentRows::kStrided, AbsentRows::kLazy}) {
    EmbeddingTables whole(kSizes, small(absent), 5), resumed(kSizes, small(absent), 99);
    train(whole, 0, 60);
    resumed.load(copy_of(whole.state()), "a checkpoint");
    EXPECT_EQ(resumed.steps(), 60);
    train(whole, 60, 60);
    train(resumed, 60, 60);
    EXPECT_TRUE(at::equal(everything(whole), everything(resumed))) << static_cast<int>(absent);
  }
}

TEST(EmbeddingTables, StatesThatDoNotFitAreRefused) {
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

TEST(EmbeddingTables, ANewTrainingStartsFromStoredWeights) {
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

TEST(EmbeddingTables, WhatStoredRowsHavePutOffIsDoneAsTheirTrainingWouldHave) {
  auto frozen = small();
  frozen.lr = frozen.l2 = 0;
  EmbeddingTables trained(kSizes, small(), 5), fresh(kSizes, frozen, 6);
  train(trained, 0, 30);
  fresh.start_from(copy_of(trained.state()), "yesterday");
  for (std::int64_t field = 0; field < 2; ++field)
    EXPECT_TRUE(at::equal(fresh.embeddings(field), trained.embeddings(field))) << field;
}

TEST(EmbeddingTables, ServedTablesAreReadAlikeInEachType) {
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

TEST(EmbeddingTables, ServedStatesThatDoNotFitAreRefused) {
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

TEST(EmbeddingTables, GrownTablesKeepTheirRowsAndDrawTheNewOnes) {
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

TEST(EmbeddingTables, FilesHoldTheSameTables) {
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

TEST(EmbeddingTables, AFolderThatCannotBeWrittenIsNamed) {
  auto options = small();
  options.storage = "/proc/tables";
  STOA_EXPECT_CONTAINS(test::thrown<IoError>([&] { EmbeddingTables(kSizes, options, 5); }), "/proc/tables");
}

TEST(EmbeddingTables, AnEmptyVocabularyIsRefused) {
  STOA_EXPECT_CONTAINS(test::thrown<DataError>([] { EmbeddingTables({7, 0}, small(), 5); }), "field 1");
}

}  // namespace
}  // namespace stoa::nn
