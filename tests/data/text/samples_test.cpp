#include "stoa/data/text/samples.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <map>

#include "stoa/base/progress.h"
#include "stoa/data/text/masking.h"
#include "stoa/nn/packed_tokens.h"
#include "support/test_data.h"
#include "support/thrown.h"
#include "support/word_tokenizer.h"

namespace stoa::test {
namespace {

class Samples : public ::testing::Test {
 protected:
  Samples() {
    set_verbosity(Verbosity::kQuiet);
    write_text(folder_ / "a.txt", made_text(300));
    write_text(folder_ / "b.txt", made_text(40));
    options_.train = {(folder_ / "a.txt").string()};
    options_.eval = {(folder_ / "b.txt").string()};
    options_.length = 48;
    dataset_ = open_text_dataset(options_, std::make_shared<const WordTokenizer>());
  }
  /// The tokens of each row without its padding.
  static std::vector<std::vector<std::int64_t>> rows(const at::Tensor& values, const at::Tensor& lengths) {
    std::vector<std::vector<std::int64_t>> rows;
    for (std::int64_t i = 0; i < values.size(0); ++i) {
      const auto* row = values.const_data_ptr<std::int64_t>() + i * values.size(1);
      rows.emplace_back(row, row + lengths[i].item<std::int64_t>());
    }
    return rows;
  }
  std::vector<Batch> all(BatchSource& source) const {
    std::vector<Batch> batches;
    for (Batch batch = source.next(); batch.samples > 0; batch = source.next()) batches.push_back(batch);
    return batches;
  }
  static void expect_equal(const Batch& a, const Batch& b) {
    ASSERT_EQ(a.tensors.size(), b.tensors.size());
    for (const auto& [name, tensor] : a.tensors) EXPECT_TRUE(at::equal(tensor, b[name])) << name;
  }

  TempDir folder_;
  TextDataOptions options_;
  std::shared_ptr<const TextDataset> dataset_;
};

TEST_F(Samples, HaveTheFormThatModelsRead) {
  options_.pairs = PairTask::kSentenceOrder;
  const Batch batch = train_text_batches(dataset_, options_, {.batch_size = 64, .seed = 1})->next();
  EXPECT_EQ(batch.samples, 64);
  for (const char* name : {"ids", "segments", "targets"}) {
    EXPECT_EQ(batch[name].sizes(), (std::vector<std::int64_t>{64, 48})) << name;
    EXPECT_EQ(batch[name].scalar_type(), at::kLong);
  }
  EXPECT_EQ(batch["pair"].sizes(), std::vector<std::int64_t>{64});
  const auto ids = rows(batch["ids"], batch["lengths"]), segments = rows(batch["segments"], batch["lengths"]);
  for (std::size_t i = 0; i < 64; ++i) {
    EXPECT_EQ(ids[i].front(), WordTokenizer::kCls);
    EXPECT_EQ(ids[i].back(), WordTokenizer::kSep);
    EXPECT_EQ(segments[i].back(), 1);
    const auto second = std::find(segments[i].begin(), segments[i].end(), 1) - segments[i].begin();
    EXPECT_EQ(ids[i][static_cast<std::size_t>(second) - 1], WordTokenizer::kSep);
    EXPECT_TRUE(std::is_sorted(segments[i].begin(), segments[i].end()));
  }
  const nn::PackedTokens packed = nn::pack_tokens(batch["ids"], batch["lengths"], batch["segments"]);
  EXPECT_EQ(packed.tokens(), batch["lengths"].sum().item<std::int64_t>());
}

TEST_F(Samples, PaddingIsPadTokensWithoutTargets) {
  const Batch batch = train_text_batches(dataset_, options_, {.batch_size = 200, .seed = 1})->next();
  const at::Tensor padding = at::arange(48).unsqueeze(0) >= batch["lengths"].unsqueeze(1);
  EXPECT_GT(padding.sum().item<std::int64_t>(), 0);
  EXPECT_TRUE((batch["ids"].masked_select(padding) == WordTokenizer::kPad).all().item<bool>());
  EXPECT_TRUE((batch["targets"].masked_select(padding) == kNoTarget).all().item<bool>());
  EXPECT_FALSE(batch.has("pair"));
}

TEST_F(Samples, HaveTheTargetsThatTheirLengthsAskFor) {
  const Batch batch = train_text_batches(dataset_, options_, {.batch_size = 200, .seed = 1})->next();
  const at::Tensor counts = (batch["targets"] != kNoTarget).sum(1);
  for (std::int64_t i = 0; i < 200; ++i)
    EXPECT_EQ(counts[i].item<std::int64_t>(), masked_count(batch["lengths"][i].item<std::int64_t>(), {}));
}

TEST_F(Samples, AreTheSameForAnyNumberOfWorkersAndFromAnyStep) {
  for (const PairTask pairs : {PairTask::kNone, PairTask::kNextSentence, PairTask::kSentenceOrder}) {
    options_.pairs = pairs;
    options_.masking.rule = MaskingRule::kNGram;
    BatchPlan plan{.batch_size = 50, .seed = 3};
    const auto alone = train_text_batches(dataset_, options_, plan);
    plan.workers = 3;
    const auto workers = train_text_batches(dataset_, options_, plan);
    plan.first_step = 7;
    const auto resumed = train_text_batches(dataset_, options_, plan);
    for (int step = 0; step < 12; ++step) {
      const Batch expected = alone->next();
      expect_equal(workers->next(), expected);
      if (step >= 7) expect_equal(resumed->next(), expected);
    }
  }
}

TEST_F(Samples, ChangeFromEpochToEpochAndWithTheSeed) {
  const auto samples = std::make_shared<const TextSamples>(dataset_, options_, true);
  const auto first = [&](std::uint64_t seed, std::int64_t epochs) {
    const std::int64_t size = samples->size();
    return train_text_batches(samples, {.batch_size = size, .seed = seed, .first_step = epochs})->next();
  };
  EXPECT_FALSE(at::equal(first(1, 0)["ids"], first(2, 0)["ids"]));
  EXPECT_FALSE(at::equal(first(1, 0)["ids"], first(1, 1)["ids"]));
}

TEST_F(Samples, OfAnEvaluationCoverEveryTokenOnceInOrder) {
  const auto batches = all(*eval_text_batches(dataset_, options_, {.batch_size = 16}));
  std::vector<std::int64_t> read;
  for (const Batch& batch : batches) {
    const at::Tensor before = at::where(batch["targets"] == kNoTarget, batch["ids"], batch["targets"]);
    for (const auto& row : rows(before, batch["lengths"]))
      read.insert(read.end(), row.begin() + 1, row.end() - 1);
  }
  std::vector<std::int32_t> expected(static_cast<std::size_t>(dataset_->eval.tokens()));
  dataset_->eval.file->read(0, std::ssize(expected), expected.data());
  EXPECT_EQ(read, std::vector<std::int64_t>(expected.begin(), expected.end()));
}

TEST_F(Samples, OfAnEvaluationAreAlwaysTheSame) {
  for (const TextObjective objective : {TextObjective::kMasked, TextObjective::kCausal}) {
    options_.objective = objective;
    const auto first = all(*eval_text_batches(dataset_, options_, {.batch_size = 16, .seed = 1}));
    const auto again = all(
        *eval_text_batches(dataset_, options_, {.batch_size = 16, .seed = 2, .first_step = 9, .workers = 2}));
    ASSERT_EQ(first.size(), again.size());
    for (std::size_t i = 0; i < first.size(); ++i) expect_equal(first[i], again[i]);
  }
}

TEST_F(Samples, CausalTargetsAreTheTokensBehind) {
  options_.objective = TextObjective::kCausal;
  const Batch batch = train_text_batches(dataset_, options_, {.batch_size = 20, .seed = 1})->next();
  EXPECT_TRUE((batch["lengths"] == 48).all().item<bool>());
  EXPECT_TRUE(at::equal(batch["ids"].slice(1, 1), batch["targets"].slice(1, 0, 47)));
}

TEST_F(Samples, CausalWindowsCoverEachTokenOnceAnEpoch) {
  options_.objective = TextObjective::kCausal;
  const TextSamples samples(dataset_, options_, true);
  const std::int64_t stream = dataset_->train.tokens() + std::ssize(dataset_->train.documents);
  EXPECT_EQ(samples.size(), stream / 48);
  std::vector<std::int64_t> counts(1000), expected(1000);
  for (std::int64_t epoch = 0; epoch < 2; ++epoch) {
    const auto source = train_text_batches(dataset_, options_,
                                           {.batch_size = samples.size(), .seed = 5, .first_step = epoch});
    const Batch batch = source->next();
    const at::Tensor found = at::bincount(batch["ids"].flatten(), {}, 1000);
    for (std::int64_t id = 0; id < 1000; ++id)
      counts[static_cast<std::size_t>(id)] = found[id].item<std::int64_t>();
    expected = dataset_->train.file->counts();
    expected[WordTokenizer::kEnd] = std::ssize(dataset_->train.documents);
    std::int64_t left_out = 0;
    for (std::size_t id = 0; id < 1000; ++id) {
      EXPECT_LE(counts[id], expected[id]) << id;
      left_out += expected[id] - counts[id];
    }
    EXPECT_EQ(left_out, stream % 48);
  }
}

TEST_F(Samples, OfAnEvaluationOfWindowsEndWithAShorterOne) {
  options_.objective = TextObjective::kCausal;
  const auto batches = all(*eval_text_batches(dataset_, options_, {.batch_size = 8}));
  const std::int64_t stream = dataset_->eval.tokens() + std::ssize(dataset_->eval.documents);
  std::int64_t asked = 0;
  for (const Batch& batch : batches) asked += (batch["targets"] != kNoTarget).sum().item<std::int64_t>();
  EXPECT_EQ(asked, stream - 1);
  const std::int64_t rest = (stream - 1) % 48;
  const at::Tensor& lengths = batches.back()["lengths"];
  EXPECT_EQ(lengths[-1].item<std::int64_t>(), rest == 0 ? 48 : rest);
}

TEST_F(Samples, LabelsOfSentenceOrderAreBalanced) {
  options_.pairs = PairTask::kSentenceOrder;
  const TextSamples samples(dataset_, options_, true);
  double swapped = 0, all_of = 0;
  const auto source = train_text_batches(dataset_, options_, {.batch_size = samples.size(), .seed = 1});
  for (int epoch = 0; epoch < 5; ++epoch) {
    const Batch batch = source->next();
    swapped += batch["pair"].sum().item<double>();
    all_of += static_cast<double>(batch.samples);
  }
  EXPECT_NEAR(swapped, all_of / 2, 5 * std::sqrt(all_of / 4));
}

TEST_F(Samples, NeedTheTokensOfTheirObjective) {
  class Bare final : public WordTokenizer {
   public:
    const SpecialTokens& special() const override { return none_; }

   private:
    SpecialTokens none_;
  };
  const auto bare = std::make_shared<TextDataset>(*dataset_);
  bare->tokenizer = std::make_shared<const Bare>();
  STOA_EXPECT_CONTAINS(thrown<ConfigError>([&] { TextSamples(bare, options_, true); }), "has no pad token");
  options_.objective = TextObjective::kCausal;
  const Batch batch = eval_text_batches(bare, options_, {.batch_size = 1000})->next();
  EXPECT_EQ(batch["ids"][-1][47].item<std::int64_t>(), 0);
}

TEST_F(Samples, OfRealTextHideWholeWordsOfWordPiece) {
  STOA_NEEDS_TEST_DATA("text/wikitext2-valid.txt.gz");
  STOA_NEEDS_TEST_DATA("bert/vocab.txt");
  options_.train = {test_data("text/wikitext2-valid.txt.gz").string()};
  options_.eval = {};
  options_.tokenizer = test_data("bert/vocab.txt").string();
  options_.rules.sentences = SentenceRule::kSplit;
  options_.length = 128;
  options_.pairs = PairTask::kNextSentence;
  options_.masking.rule = MaskingRule::kWholeWord;
  const auto wiki = open_text_dataset(options_);
  EXPECT_GT(wiki->train.tokens(), 200000);
  const Tokenizer& tokenizer = *wiki->tokenizer;
  const Batch batch = train_text_batches(wiki, options_, {.batch_size = 256, .seed = 1})->next();
  const auto targets = rows(batch["targets"], batch["lengths"]), ids = rows(batch["ids"], batch["lengths"]);
  std::int64_t pieces = 0, asked = 0;
  for (std::size_t i = 0; i < targets.size(); ++i)
    for (std::size_t t = 1; t < targets[i].size(); ++t) {
      asked += targets[i][t] != kNoTarget;
      // a piece that is asked for goes on with a word that is, unless the word's front was cut away
      if (targets[i][t] == kNoTarget || !tokenizer.continues_word(static_cast<std::int32_t>(targets[i][t])))
        continue;
      ++pieces;
      const std::int64_t before = ids[i][t - 1];
      EXPECT_TRUE(targets[i][t - 1] != kNoTarget || before == tokenizer.special().cls ||
                  before == tokenizer.special().sep)
          << i << " " << t;
    }
  EXPECT_GT(pieces, 100);
  EXPECT_NEAR(static_cast<double>(asked) / batch["lengths"].sum().item<double>(), 0.15, 0.01);
}

}  // namespace
}  // namespace stoa::test
