#include "stoa/nn/embedding_tables.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "nn/embedding_problem.h"
#include "stoa/base/errors.h"
#include "stoa/ops/simd.h"
#include "support/thrown.h"

namespace stoa::nn {
namespace {

TEST(EmbeddingTables, StartFromNormalRowsThatDiffer) {
  EmbeddingTables tables({20000, 3}, small(), 5);
  const auto embeddings = tables.embeddings(0);
  EXPECT_NEAR(embeddings.mean().item<double>(), 0, 1e-4);
  EXPECT_NEAR(embeddings.std().item<double>(), 1e-2, 1e-4);
  EXPECT_GT(largest_difference(embeddings.narrow(0, 0, 3), tables.embeddings(1)), 1e-3);
  EXPECT_EQ(tables.linear(0).abs().max().item<double>(), 0);
}

TEST(EmbeddingTables, FieldsStartAlikeWhereThatIsAskedFor) {
  auto options = small();
  options.same_rows = true;
  EmbeddingTables tables({40, 3}, options, 5);
  EXPECT_TRUE(at::equal(tables.embeddings(0).narrow(0, 0, 3), tables.embeddings(1)));
  EXPECT_GT(largest_difference(tables.embeddings(1)[0], tables.embeddings(1)[1]), 1e-3);
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

TEST(EmbeddingTables, RowsBeyond32BitOffsetsAreReached) {
  constexpr std::int64_t kBehind = 100, kRows = (std::int64_t{1} << 31) / 34 + kBehind;
  auto options = small();
  options.init_std = 0;  // nothing is drawn, so that only pages that are touched take memory
  std::optional<EmbeddingTables> tables;
  try {
    tables.emplace(std::vector<std::int64_t>{kRows}, options, 5);
  } catch (const DeviceError& error) {
    GTEST_SKIP() << error.what();
  }
  const auto last = at::full({3, 1}, kRows - 1, at::kLong);
  tables->lookup(last).embeddings.sum().backward();
  tables->step();
  const at::NoGradGuard no_grad;
  EXPECT_LT(tables->lookup(last).embeddings.max().item<float>(), 0);
  // where an offset cut to 31 bits would lead
  const auto near = at::arange(kBehind + 2, at::kLong).unsqueeze(1);
  EXPECT_EQ(tables->lookup(near).embeddings.abs().max().item<float>(), 0);
}

}  // namespace
}  // namespace stoa::nn
