#include "stoa/ops/table_rows.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "stoa/base/errors.h"
#include "stoa/ops/simd.h"
#include "stoa/ops/table_rows_kernels.h"
#include "support/thrown.h"

namespace stoa::ops {
namespace {

constexpr std::int64_t kDims[] = {1, 3, 7, 8, 10, 15, 16, 33};
constexpr float kNoFloor = std::numeric_limits<float>::infinity();

/// Runs f with each SIMD level of the machine, then lifts the limit.
void at_every_level(const std::function<void()>& f) {
  for (const auto& level : simd_levels()) {
    limit_simd(level);
    SCOPED_TRACE(level);
    f();
  }
  limit_simd("auto");
}

/// A rule with its numbers by step.
struct Rule : RowRule {
  explicit Rule(std::int64_t dim, double l2 = 1e-3, double lr = 1e-3, MissedSteps how = MissedSteps::kExact) {
    format.dim = dim;
    pull = static_cast<float>(2 * l2);
    missed = how;
    for (int t = 0; t <= 3000; ++t)
      rates_.push_back(static_cast<float>(lr * std::sqrt(1 - std::pow(0.999, t)) / (1 - std::pow(0.9, t))));
    for (int n = 0; n < 256; ++n) fine_.push_back(static_cast<float>(std::pow(0.999, n)));
    for (int n = 0; n < 256; ++n) fade_.push_back(static_cast<float>(std::pow(0.9, n)));
    for (int n = 0; n < 12; ++n) coarse_.push_back(static_cast<float>(std::pow(0.999, 256 * n)));
    rates = rates_.data();
    last_rate = 3000;
    fine = fine_.data();
    fade = fade_.data();
    coarse = coarse_.data();
    coarse_size = 12;
  }
  Rule(const Rule&) = delete;

 private:
  std::vector<float> rates_, fine_, coarse_, fade_;
};

/// Rows that touch one another, behind a margin that no loop may write to.
struct Rows {
  Rows(std::int64_t n, const RowFormat& row_format, unsigned seed = 3) : count(n), format(row_format) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0, 0.01f);
    data.assign(static_cast<std::size_t>(n * format.stride() + 2), 42.0f);
    for (std::int64_t i = 0; i < n; ++i) {
      float* const row = at(i);
      for (std::int64_t k = 0; k < format.width(); ++k) {
        row[k] = normal(random);
        row[format.width() + k] = 0.1f * normal(random);
        row[2 * format.width() + k] = std::pow(normal(random), 2.0f);
      }
      set_last(i, 0);
    }
  }
  float* at(std::int64_t i) { return data.data() + 1 + i * format.stride(); }
  void set_last(std::int64_t i, std::int32_t step) {
    std::memcpy(at(i) + format.last_step(), &step, sizeof step);
  }
  std::int32_t last(std::int64_t i) {
    std::int32_t step;
    std::memcpy(&step, at(i) + format.last_step(), sizeof step);
    return step;
  }
  std::vector<float*> places() {
    std::vector<float*> result;
    for (std::int64_t i = 0; i < count; ++i) result.push_back(at(i));
    return result;
  }

  std::int64_t count;
  RowFormat format;
  std::vector<float> data;
};

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

/// The largest difference between two sets of rows, as a share of the largest number of its kind.
double difference(Rows& a, Rows& b) {
  double largest = 0;
  for (int part = 0; part < 3; ++part) {
    double difference = 0, scale = 1e-30;
    for (std::int64_t i = 0; i < a.count; ++i)
      for (std::int64_t k = 0; k < a.format.width(); ++k) {
        const double x = a.at(i)[part * a.format.width() + k], y = b.at(i)[part * a.format.width() + k];
        const double apart = std::abs(x - y);
        difference = std::max(difference, std::isnan(apart) ? HUGE_VAL : apart);
        scale = std::max(scale, std::abs(y));
      }
    largest = std::max(largest, difference / scale);
  }
  return largest;
}

std::vector<float> random_gradients(std::int64_t count, float scale) {
  std::mt19937 random(11);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> result(static_cast<std::size_t>(count));
  for (auto& g : result) g = normal(random);
  return result;
}

TEST(TableRowKernels, AdvanceIsThatOfThePlainLoops) {
  at_every_level([] {
    for (const auto dim : kDims)
      for (const auto how : {MissedSteps::kSkip, MissedSteps::kExact, MissedSteps::kStrided}) {
        const Rule rule(dim, 1e-3, 1e-3, how);
        Rows ours(9, rule.format), plain(9, rule.format);
        for (std::int64_t i = 0; i < 9; ++i) {
          const auto last = static_cast<std::int32_t>(i * i * i % 400);
          ours.set_last(i, last);
          plain.set_last(i, last);
        }
        table_row_kernels().advance(ours.places().data(), 9, 400, rule);
        table_row_kernels_reference().advance(plain.places().data(), 9, 400, rule);
        EXPECT_LT(difference(ours, plain), 1e-5) << dim << ", " << static_cast<int>(how);
        EXPECT_EQ(ours.last(3), plain.last(3));
        EXPECT_EQ(ours.data.front(), 42);
        EXPECT_EQ(ours.data.back(), 42);
      }
  });
}

TEST(TableRowKernels, StepsMadeLaterAreTheSameToTheBit) {
  at_every_level([] {
    for (const auto dim : kDims) {
      const Rule rule(dim);
      Rows at_once(7, rule.format), one_by_one(7, rule.format);
      table_row_kernels().advance(at_once.places().data(), 7, 300, rule);
      for (int t = 1; t <= 300; ++t) table_row_kernels().advance_range(one_by_one.at(0), 7, t, rule);
      EXPECT_TRUE(same_bits(at_once.data, one_by_one.data)) << dim;
    }
  });
}

TEST(TableRowKernels, RowsDoNotDependOnThoseBesideThem) {
  at_every_level([] {
    const Rule rule(10, 1e-3, 1e-3, MissedSteps::kStrided);
    Rows together(11, rule.format), alone(11, rule.format);
    for (std::int64_t i = 0; i < 11; ++i) {
      together.set_last(i, static_cast<std::int32_t>(37 * i));
      alone.set_last(i, static_cast<std::int32_t>(37 * i));
    }
    table_row_kernels().advance(together.places().data(), 11, 500, rule);
    for (auto* row : alone.places()) table_row_kernels().advance(&row, 1, 500, rule);
    EXPECT_TRUE(same_bits(together.data, alone.data));
  });
}

TEST(TableRowKernels, ReadGivesWhatAdvanceLeavesAndChangesNothing) {
  at_every_level([] {
    for (const auto dim : kDims) {
      const Rule rule(dim, 1e-3, 1e-3, MissedSteps::kStrided);
      Rows rows(7, rule.format);
      rows.set_last(2, 90);
      const auto before = rows.data;
      std::vector<float> embeddings(static_cast<std::size_t>(7 * dim)), linear(7);
      const auto places = rows.places();
      table_row_kernels().read(places.data(), 7, 90, rule, {embeddings.data(), dim, linear.data(), 1});
      EXPECT_TRUE(same_bits(rows.data, before)) << dim;
      table_row_kernels().advance(places.data(), 7, 90, rule);
      for (std::int64_t i = 0; i < 7; ++i) {
        for (std::int64_t k = 0; k < dim; ++k)
          EXPECT_EQ(embeddings[static_cast<std::size_t>(i * dim + k)], rows.at(i)[k]) << dim;
        EXPECT_EQ(linear[static_cast<std::size_t>(i)], rows.at(i)[dim]) << dim;
      }
    }
  });
}

TEST(TableRowKernels, UpdateIsThatOfThePlainLoops) {
  at_every_level([] {
    for (const auto dim : kDims)
      for (const auto& limit : {RowLimit{1, 1e-5f, 1}, RowLimit{0, kNoFloor, 0.25f}}) {
        const Rule rule(dim);
        Rows ours(9, rule.format), plain(9, rule.format);
        const auto g = random_gradients(9 * (dim + 1), 0.02f);
        const std::vector<std::int32_t> counts = {1, 2, 3, 1, 1, 9, 1, 1, 2};
        std::vector<float> norms(9), plain_norms(9);
        const auto clipped = table_row_kernels().update(ours.places().data(), g.data(), counts.data(), 9, 5,
                                                        rule, limit, norms.data());
        EXPECT_EQ(clipped,
                  table_row_kernels_reference().update(plain.places().data(), g.data(), counts.data(), 9, 5,
                                                       rule, limit, plain_norms.data()))
            << dim;
        EXPECT_GT(clipped, 0);
        EXPECT_LT(difference(ours, plain), 1e-5) << dim;
        for (std::size_t i = 0; i < 9; ++i)
          EXPECT_NEAR(norms[i], plain_norms[i], 1e-6 * plain_norms[i] + 1e-12);
        EXPECT_EQ(ours.last(8), 5);
        EXPECT_EQ(ours.data.back(), 42);
      }
  });
}

TEST(TableRowKernels, SquaresSumsAndCopiesAreThoseOfThePlainLoops) {
  at_every_level([] {
    for (const auto dim : kDims) {
      const Rule rule(dim);
      Rows rows(4, rule.format);
      const auto places = rows.places();
      const auto g = random_gradients(6 * (dim + 1), 1);
      std::vector<double> a(4), b(4), plain_a(4), plain_b(4);
      table_row_kernels().squares(places.data(), g.data(), 4, rule, a.data(), b.data());
      table_row_kernels_reference().squares(places.data(), g.data(), 4, rule, plain_a.data(), plain_b.data());
      for (std::size_t i = 0; i < 4; ++i) {
        EXPECT_NEAR(a[i], plain_a[i], 1e-5 * plain_a[i]);
        EXPECT_NEAR(b[i], plain_b[i], 1e-5 * plain_b[i]);
      }
      const std::vector<std::int32_t> occurrences = {4, 0, 2, 5, 1, 3};
      const std::vector<std::int64_t> starts = {0, 3, 4, 6};
      std::vector<float> sums(static_cast<std::size_t>(3 * (dim + 1))), plain_sums = sums;
      const OccurrenceGradients gradients = {g.data(), g.data()};
      table_row_kernels().sum(gradients, occurrences.data(), starts.data(), 0, 3, dim, sums.data());
      table_row_kernels_reference().sum(gradients, occurrences.data(), starts.data(), 0, 3, dim,
                                        plain_sums.data());
      EXPECT_TRUE(same_bits(sums, plain_sums)) << dim;
      std::vector<float> e(static_cast<std::size_t>(6 * dim)), l(6), plain_e = e, plain_l = l;
      const std::vector<std::int32_t> where = {2, 0, 1, 1, 2, 0};
      table_row_kernels().spread(sums.data(), where.data(), 6, dim, {e.data(), dim, l.data(), 1});
      table_row_kernels_reference().spread(sums.data(), where.data(), 6, dim,
                                           {plain_e.data(), dim, plain_l.data(), 1});
      EXPECT_TRUE(same_bits(e, plain_e) && same_bits(l, plain_l)) << dim;
    }
  });
}

/// An absent row's weights after 1, 2 and 3 steps from w = 0.01, lr 1e-4.
std::vector<float> absent_trace(double l2) {
  const Rule rule(10, l2, 1e-4);
  Rows rows(1, rule.format);
  std::fill_n(rows.at(0), 33, 0.0f);
  std::fill_n(rows.at(0), 11, 0.01f);
  std::vector<float> trace;
  for (int t = 1; t <= 3; ++t) {
    table_row_kernels().advance_range(rows.at(0), 1, t, rule);
    trace.push_back(rows.at(0)[9]);
  }
  return trace;
}

TEST(TableRowKernels, AbsentRowsFollowTheRecordedTrace) {
  at_every_level([] {
    const auto weak = absent_trace(1e-5), strong = absent_trace(128e-5);
    const double expected_weak[] = {0.009994052, 0.009985846, 0.009975984};
    const double expected_strong[] = {0.009910995, 0.009819085, 0.009725863};
    for (std::size_t t = 0; t < 3; ++t) {
      EXPECT_NEAR(weak[t], expected_weak[t], 1e-9) << t;
      EXPECT_NEAR(strong[t], expected_strong[t], 1e-9) << t;
    }
  });
}

/// The clipped gradient of an embedding, read from the first moment of a step with beta1 = 0.
std::vector<float> clipped(const std::vector<float>& w, const std::vector<float>& g, std::int32_t count,
                           const RowLimit& limit) {
  const auto dim = static_cast<std::int64_t>(w.size());
  Rule rule(dim, 0);
  rule.beta1 = 0;
  rule.fresh1 = 1;
  Rows rows(1, rule.format);
  std::fill_n(rows.at(0), 3 * (dim + 1), 0.0f);
  std::ranges::copy(w, rows.at(0));
  auto gradient = g;
  gradient.push_back(100);  // of the linear weight
  float norm = 0;
  auto* place = rows.at(0);
  table_row_kernels().update(&place, gradient.data(), &count, 1, 1, rule, limit, &norm);
  EXPECT_EQ(rows.at(0)[2 * dim + 1], 100) << "linear weights are not clipped";
  return {rows.at(0) + dim + 1, rows.at(0) + 2 * dim + 1};
}

void expect_near(const std::vector<float>& found, const std::vector<float>& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], 1e-7) << i;
}

TEST(TableRowKernels, ClipExamples) {
  at_every_level([] {
    const RowLimit limit = {1, 1e-5f * std::sqrt(2.0f), 1};
    expect_near(clipped({0.03f, 0.04f}, {0.3f, 0.4f}, 3, limit), {0.09f, 0.12f});
    expect_near(clipped({0.03f, 0.04f}, {0.3f, 0.4f}, 10, limit), {0.3f, 0.4f});
    expect_near(clipped({0.03f, 0.04f}, {0, 0}, 1, limit), {0, 0});
    expect_near(clipped({0, 0, 0, 0}, {0, 0.5f, 0, 0}, 1, {1, 0.02f, 1}), {0, 0.02f, 0, 0});
    expect_near(clipped({0, 0}, {0.3f, 0.4f}, 1, {1, 0, 1}), {0, 0});
  });
}

/// A weight's way from a touch with gradient `g`, over `gap` missed steps.
double way(MissedSteps how, float g, std::int64_t gap) {
  const Rule rule(10, 1e-5, 1e-4, how);
  Rows rows(1, rule.format);
  std::fill_n(rows.at(0), 33, 0.0f);
  std::fill_n(rows.at(0), 11, 0.01f);
  rows.set_last(0, 1000);
  auto* place = rows.at(0);
  const std::vector<float> gradient(11, g);
  const std::int32_t count = 1;
  float norm = 0;
  table_row_kernels().update(&place, gradient.data(), &count, 1, 1001, rule, {0, kNoFloor, 1}, &norm);
  table_row_kernels().advance(&place, 1, 1001 + gap, rule);
  return static_cast<double>(rows.at(0)[3]) - 0.01;
}

TEST(TableRowKernels, StridesKeepTheMomentumOfATouch) {
  // dropped behind the exact steps, it would be 7 % of the way
  at_every_level([] {
    for (const std::int64_t gap : {40, 100, 300})
      for (const float g : {3e-4f, -3e-4f}) {
        const double exact = way(MissedSteps::kExact, g, gap);
        EXPECT_NEAR(way(MissedSteps::kStrided, g, gap), exact, 0.01 * std::abs(exact)) << gap << ", " << g;
      }
  });
}

TEST(TableRowKernels, AWeightThatAStrideTakesAcrossZeroStaysThere) {
  at_every_level([] {
    const Rule rule(10, 1e-3, 0.05, MissedSteps::kStrided);
    Rows rows(1, rule.format);
    std::fill_n(rows.at(0), 33, 0.0f);
    std::fill_n(rows.at(0), 11, 1.0f);
    auto* place = rows.at(0);
    table_row_kernels().advance(&place, 1, 2000, rule);
    for (int k = 0; k < 22; ++k) EXPECT_EQ(rows.at(0)[k], 0) << k;
  });
}

at::Tensor some_ids() {
  return at::tensor({3, 0, 1, 0, 3, 1, 0, 0, 3, 1}, at::kLong).view({5, 2});
}

TEST(DistinctIds, AreSortedWithTheirOccurrencesInOrder) {
  const auto where = distinct_ids(some_ids(), {4, 2});
  EXPECT_EQ(where->first, (std::vector<std::int64_t>{0, 3, 5}));
  EXPECT_EQ(where->ids, (std::vector<std::int64_t>{0, 1, 3, 0, 1}));
  EXPECT_EQ(where->start, (std::vector<std::int64_t>{0, 1, 2, 5, 8, 10}));
  EXPECT_EQ(where->occurrences, (std::vector<std::int32_t>{6, 2, 0, 4, 8, 1, 3, 7, 5, 9}));
  EXPECT_EQ(where->place, (std::vector<std::int32_t>{2, 3, 1, 3, 2, 4, 0, 3, 2, 4}));
}

TEST(DistinctIds, OfLargeBatchesAreThoseOfAPlainSort) {
  at::manual_seed(5);
  const std::int64_t size = 5'000'000;
  const auto ids = at::randint(size, {3000, 1}, at::kLong);
  const auto where = distinct_ids(ids, {size});
  const auto [unique, inverse, counts] = at::_unique2(ids, true, true, true);
  EXPECT_TRUE(at::equal(at::tensor(where->ids, at::kLong), unique));
  EXPECT_TRUE(at::equal(at::tensor(where->place, at::kInt).to(at::kLong), inverse.flatten()));
}

TEST(DistinctIds, OfInt32AreTheSame) {
  const auto wide = distinct_ids(some_ids(), {4, 2}), narrow = distinct_ids(some_ids().to(at::kInt), {4, 2});
  EXPECT_EQ(wide->occurrences, narrow->occurrences);
}

TEST(DistinctIds, OutOfRangeAreNamed) {
  const auto message = test::thrown<DataError>([] { check_ids(some_ids(), {3, 2}); });
  STOA_EXPECT_CONTAINS(message, "field 0, row 0 of the batch: id 3");
  STOA_EXPECT_CONTAINS(test::thrown<DataError>([] { check_ids(some_ids().neg(), {4, 2}); }), "id -3");
  STOA_EXPECT_CONTAINS(test::thrown<ShapeError>([] { check_ids(some_ids(), {4, 2, 1}); }), "[*, 3]");
  STOA_EXPECT_CONTAINS(test::thrown<ShapeError>([] {
                         check_ids(some_ids().to(at::kFloat), {4, 2});
                       }),
                       "int64");
}

TEST(SpreadRows, IsThatOfThePlainForm) {
  at::manual_seed(2);
  const auto where = distinct_ids(some_ids(), {4, 2});
  const auto rows = at::randn({5, 11}), more = at::randn({5, 2, 10}), linear_more = at::randn({5, 2});
  const auto run = [&](const auto& spread) {
    const auto leaf = rows.clone().requires_grad_();
    const auto [embeddings, linear] = spread(leaf, where);
    ((embeddings * more).sum() + (linear * linear_more).sum()).backward();
    return std::vector<at::Tensor>{embeddings.detach(), linear.detach(), leaf.grad()};
  };
  const auto ours = run(spread_rows), plain = run(spread_rows_reference);
  EXPECT_TRUE(at::equal(ours[0], plain[0]));
  EXPECT_TRUE(at::equal(ours[1], plain[1]));
  EXPECT_TRUE(at::allclose(ours[2], plain[2], 1e-6, 1e-7));
}

TEST(SpreadRows, AnUnusedOutputHasNoGradient) {
  const auto where = distinct_ids(some_ids(), {4, 2});
  const auto leaf = at::ones({5, 4}).requires_grad_();
  spread_rows(leaf, where).second.sum().backward();
  EXPECT_TRUE(at::equal(leaf.grad().select(1, 3), at::tensor({1.0f, 1.0f, 3.0f, 3.0f, 2.0f})));
  EXPECT_EQ(leaf.grad().narrow(1, 0, 3).abs().sum().item<float>(), 0);
}

TEST(SpreadRows, GradientsAreTheSameForAnyNumberOfThreads) {
  at::manual_seed(2);
  const auto ids = at::randint(40, {6000, 3}, at::kLong);
  const auto more = at::randn({6000, 3, 10});
  std::vector<at::Tensor> gradients;
  for (const int threads : {1, 2, 5}) {
    at::set_num_threads(threads);
    const auto where = distinct_ids(ids, {40, 40, 40});
    const auto leaf = at::zeros({where->distinct(), 11}).requires_grad_();
    (spread_rows(leaf, where).first * more).sum().backward();
    gradients.push_back(leaf.grad());
  }
  EXPECT_TRUE(at::equal(gradients[0], gradients[1]));
  EXPECT_TRUE(at::equal(gradients[0], gradients[2]));
}

}  // namespace
}  // namespace stoa::ops
