#include "stoa/data/tabular/zipf.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <numeric>

#include "stoa/base/errors.h"
#include "support/thrown.h"

namespace stoa::test {
namespace {

ZipfOptions small() {
  ZipfOptions options;
  options.fields = 3;
  options.ids = 50;
  options.train_rows = 20000;
  options.test_rows = 300;
  return options;
}

Batch all(const TabularDataset& data) {
  std::vector<std::int64_t> numbers(data.size());
  std::iota(numbers.begin(), numbers.end(), 0);
  return data.rows(numbers);
}

TEST(Zipf, TheSameOptionsGiveTheSameRows) {
  const Batch a = all(*make_zipf_dataset(small(), TabularSplit::kTrain)),
              b = all(*make_zipf_dataset(small(), TabularSplit::kTrain));
  EXPECT_TRUE(at::equal(a["ids"], b["ids"]));
  EXPECT_TRUE(at::equal(a["labels"], b["labels"]));
  ZipfOptions other = small();
  other.seed = 1;
  EXPECT_FALSE(at::equal(a["ids"], all(*make_zipf_dataset(other, TabularSplit::kTrain))["ids"]));
}

TEST(Zipf, IdsAreDrawnByRank) {
  const auto counts = make_zipf_dataset(small(), TabularSplit::kTrain)->frequencies(1);
  double sum = 0;
  for (int k = 0; k < 50; ++k) sum += std::pow(k + 10, -1.1);
  for (const int k : {0, 1, 10, 49})
    EXPECT_NEAR(static_cast<double>(counts[k]), 20000 * std::pow(k + 10, -1.1) / sum,
                5 * std::sqrt(20000 * 0.04))
        << k;
}

TEST(Zipf, FrequenciesOfTheTestSplitAreThoseOfTraining) {
  EXPECT_EQ(make_zipf_dataset(small(), TabularSplit::kTest)->frequencies(2),
            make_zipf_dataset(small(), TabularSplit::kTrain)->frequencies(2));
}

TEST(Zipf, WithoutEffectsTheClickRateIsThatOfTheIntercept) {
  ZipfOptions options = small();
  options.bias_deviation = options.latent_deviation = 0;
  EXPECT_NEAR(all(*make_zipf_dataset(options, TabularSplit::kTrain))["labels"].mean().item<double>(), 0.1824,
              0.015);
}

TEST(Zipf, SplitsShareTheEncodingButNoRows) {
  ZipfOptions options = small();
  options.test_rows = options.train_rows;
  const auto train = make_zipf_dataset(options, TabularSplit::kTrain),
             test = make_zipf_dataset(options, TabularSplit::kTest);
  EXPECT_EQ(train->schema().vocabulary_hash, test->schema().vocabulary_hash);
  EXPECT_FALSE(at::equal(all(*train)["ids"], all(*test)["ids"]));
}

TEST(Zipf, RefusesASplitWithoutRowsAndSizesThatCannotBe) {
  STOA_EXPECT_CONTAINS(thrown<ConfigError>([] { make_zipf_dataset(small(), TabularSplit::kValidation); }),
                       "no validation rows; set validation_rows");
  ZipfOptions options = small();
  options.ids = 0;
  STOA_EXPECT_CONTAINS(thrown<ConfigError>([&] { options.validate(); }), "ids = 0");
  options = small();
  options.shift = 0;
  STOA_EXPECT_CONTAINS(thrown<ConfigError>([&] { options.validate(); }), "shift above 0");
}

}  // namespace
}  // namespace stoa::test
