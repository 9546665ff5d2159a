#include "stoa/data/loader.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <set>

#include "stoa/base/errors.h"
#include "support/thrown.h"

namespace stoa {
namespace {

/// A batch that tells what it was made from.
Batch echo(const std::vector<SampleKey>& keys) {
  std::vector<std::int64_t> rows;
  for (const auto& key : keys)
    rows.insert(rows.end(), {key.index, key.epoch, static_cast<std::int64_t>(key.seed >> 1)});
  const auto samples = static_cast<std::int64_t>(keys.size());
  return {{{"rows", at::tensor(rows, at::kLong).reshape({samples, 3})}}, samples};
}

std::vector<at::Tensor> take(BatchSource& source, int count) {
  std::vector<at::Tensor> taken;
  for (int i = 0; i < count; ++i) taken.push_back(source.next()["rows"]);
  return taken;
}

std::vector<at::Tensor> shuffled(const BatchPlan& plan, int count, std::int64_t size = 10) {
  return take(*shuffled_batches(size, plan, echo), count);
}

bool equal(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const auto& x, const auto& y) { return at::equal(x, y); });
}

TEST(SamplesOfStep, PassEverySampleOnceAnEpoch) {
  std::vector<std::multiset<std::int64_t>> epochs(3);
  for (std::int64_t step = 0; step < 10; ++step)  // 30 samples: epochs end within batches
    for (const auto& key : samples_of_step(step, 3, 10, 7)) epochs.at(key.epoch).insert(key.index);
  for (const auto& epoch : epochs)
    EXPECT_EQ(epoch, (std::multiset<std::int64_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
}

TEST(SamplesOfStep, PassEverySampleOnceWhenABatchIsLargerThanTheSet) {
  std::multiset<std::int64_t> seen;
  for (const auto& key : samples_of_step(0, 12, 3, 7)) seen.insert(key.index);
  EXPECT_EQ(seen, (std::multiset<std::int64_t>{0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2}));
}

TEST(SamplesOfStep, OrdersEpochsDifferently) {
  const auto first = samples_of_step(0, 50, 50, 1), second = samples_of_step(1, 50, 50, 1);
  EXPECT_FALSE(std::equal(first.begin(), first.end(), second.begin(),
                          [](auto& a, auto& b) { return a.index == b.index; }));
}

TEST(SamplesOfStep, GiveEachSampleOfEachEpochASeedOfItsOwn) {
  std::set<std::uint64_t> seeds;
  for (std::int64_t step = 0; step < 4; ++step)
    for (const auto& key : samples_of_step(step, 25, 50, 1)) seeds.insert(key.seed);
  EXPECT_EQ(seeds.size(), 100u);
}

TEST(SamplesOfStep, GiveASampleTheSameSeedWhateverTheBatchSize) {
  EXPECT_EQ(samples_of_step(1, 4, 50, 1)[2].seed, samples_of_step(0, 10, 50, 1)[6].seed);
}

TEST(ShuffledBatches, AreTheSamplesOfTheirSteps) {
  const auto batches = shuffled({.batch_size = 3, .seed = 5}, 6);
  for (int step = 0; step < 6; ++step) {
    const auto keys = samples_of_step(step, 3, 10, 5);
    for (int i = 0; i < 3; ++i) EXPECT_EQ(batches[step][i][0].item<std::int64_t>(), keys[i].index);
  }
}

TEST(ShuffledBatches, AreTheSameForAnyNumberOfWorkers) {
  const auto alone = shuffled({.batch_size = 3, .seed = 5}, 40);
  for (int workers : {1, 3})
    EXPECT_TRUE(equal(alone, shuffled({.batch_size = 3, .seed = 5, .workers = workers}, 40)));
}

TEST(ShuffledBatches, DependOnTheSeed) {
  EXPECT_FALSE(equal(shuffled({.batch_size = 3, .seed = 5}, 4), shuffled({.batch_size = 3, .seed = 6}, 4)));
}

TEST(ShuffledBatches, ResumeExactlyAtAnyStep) {
  const auto whole = shuffled({.batch_size = 3, .seed = 5}, 20);
  for (std::int64_t first = 0; first < 20; ++first)
    for (int workers : {0, 2}) {
      const auto rest = shuffled({.batch_size = 3, .seed = 5, .first_step = first, .workers = workers},
                                 20 - static_cast<int>(first));
      EXPECT_TRUE(equal(rest, {whole.begin() + first, whole.end()})) << "from step " << first;
    }
}

TEST(ShuffledBatches, ComeInOrderThoughALaterOneIsReadyFirst) {
  std::mutex mutex;
  std::condition_variable changed;
  bool later_is_made = false;
  const auto keys = samples_of_step(0, 3, 10, 5);
  const auto source = shuffled_batches(10, {.batch_size = 3, .seed = 5, .workers = 2}, [&](const auto& k) {
    std::unique_lock lock(mutex);
    if (k[0].seed == keys[0].seed)  // the first batch waits for another one
      changed.wait(lock, [&] { return later_is_made; });
    later_is_made = true;
    changed.notify_all();
    return echo(k);
  });
  EXPECT_EQ(source->next()["rows"][0][0].item<std::int64_t>(), keys[0].index);
}

TEST(ShuffledBatches, AreCutIntoSharesThatMakeTheWholeAgain) {
  const auto whole = shuffled({.batch_size = 7, .seed = 5}, 5);
  std::vector<std::vector<at::Tensor>> parts;
  for (std::int64_t part = 0; part < 3; ++part)
    parts.push_back(shuffled({.batch_size = 7, .seed = 5, .part = part, .parts = 3}, 5));
  for (std::size_t step = 0; step < 5; ++step)
    EXPECT_TRUE(at::equal(whole[step], at::cat({parts[0][step], parts[1][step], parts[2][step]})));
}

TEST(SteppedBatches, AreCutIntoSharesThatMakeTheWholeAgain) {
  const auto make = [](std::int64_t step) { return Batch{{{"rows", at::arange(7) + step}}, 7}; };
  const auto second = stepped_batches({.batch_size = 7, .part = 1, .parts = 3}, make);
  EXPECT_TRUE(at::equal(second->next()["rows"], at::tensor({2, 3}, at::kLong)));
  EXPECT_TRUE(at::equal(second->next()["rows"], at::tensor({3, 4}, at::kLong)));
}

TEST(ShuffledBatches, ThrowAnErrorWhereItsBatchWouldCome) {
  for (int workers : {0, 1, 3}) {
    const std::uint64_t bad = samples_of_step(3, 2, 100, 5)[0].seed;
    const auto source =
        shuffled_batches(100, {.batch_size = 2, .seed = 5, .workers = workers}, [&](const auto& k) {
          if (k[0].seed == bad) throw DataError("image 17 is damaged");
          return echo(k);
        });
    take(*source, 3);
    EXPECT_EQ(test::thrown<DataError>([&] { source->next(); }), "image 17 is damaged");
    EXPECT_EQ(source->next()["rows"][0][0].item<std::int64_t>(), samples_of_step(4, 2, 100, 5)[0].index);
  }
}

TEST(ShuffledBatches, BuildOnlyAFewAhead) {
  std::atomic<int> made{0};
  {
    const auto source = shuffled_batches(100, {.batch_size = 1, .workers = 3}, [&](const auto& k) {
      ++made;
      return echo(k);
    });
    take(*source, 5);
  }
  EXPECT_GE(made, 5);
  EXPECT_LE(made, 5 + 2 * 3);
}

TEST(ShuffledBatches, EndCleanlyWhenNothingWasTaken) {
  for (int i = 0; i < 20; ++i) shuffled_batches(10, {.batch_size = 2, .workers = 3}, echo);
}

TEST(ShuffledBatches, BuildWithOneOpenMpThreadAWorker) {
  const auto source = shuffled_batches(10, {.workers = 2}, [](const auto&) {
    return Batch{{{"rows", at::full({1}, omp_get_max_threads(), at::kLong)}}, 1};
  });
  for (int i = 0; i < 4; ++i) EXPECT_EQ(source->next()["rows"].item<std::int64_t>(), 1);
}

TEST(OrderedBatches, PassEverySampleOnceThenEnd) {
  for (int workers : {0, 1, 3}) {
    const auto source = ordered_batches(7, {.batch_size = 3, .workers = workers}, echo);
    std::vector<std::int64_t> sizes, order;
    for (Batch batch = source->next(); batch.samples > 0; batch = source->next()) {
      sizes.push_back(batch.samples);
      for (int i = 0; i < batch.samples; ++i) order.push_back(batch["rows"][i][0].item<std::int64_t>());
    }
    EXPECT_EQ(sizes, (std::vector<std::int64_t>{3, 3, 1}));
    EXPECT_EQ(order, (std::vector<std::int64_t>{0, 1, 2, 3, 4, 5, 6}));
    EXPECT_EQ(source->next().samples, 0);
  }
}

TEST(OrderedBatches, AreDealtWholeAndEquallyMany) {
  const auto first_rows = [](std::int64_t part, std::int64_t parts) {
    const auto source =
        ordered_batches(11, {.batch_size = 3, .workers = 2, .part = part, .parts = parts}, echo);
    std::vector<std::int64_t> rows, sizes;
    for (Batch batch = source->next(); batch.samples > 0; batch = source->next()) {
      rows.push_back(batch["rows"][0][0].item<std::int64_t>());
      sizes.push_back(batch.samples);
    }
    EXPECT_EQ(sizes.back(), rows.back() == 9 ? 2 : 3);
    return rows;
  };
  using Rows = std::vector<std::int64_t>;
  EXPECT_EQ(first_rows(0, 3), (Rows{0, 9}));
  EXPECT_EQ(first_rows(1, 3), (Rows{3, 9}));  // the last one again
  EXPECT_EQ(first_rows(2, 3), (Rows{6, 9}));
  EXPECT_EQ(first_rows(4, 5), (Rows{9}));
}

TEST(Loader, RefusesWhatCannotBe) {
  STOA_EXPECT_CONTAINS(test::thrown<DataError>([] { shuffled_batches(0, {}, echo); }), "no samples");
  STOA_EXPECT_CONTAINS(test::thrown<ConfigError>([] { shuffled_batches(1, {.batch_size = 0}, echo); }),
                       "batch size 0");
  STOA_EXPECT_CONTAINS(test::thrown<ConfigError>([] { ordered_batches(1, {.workers = -1}, echo); }),
                       "-1 loader workers");
}

}  // namespace
}  // namespace stoa
