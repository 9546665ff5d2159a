#include "stoa/data/text/text_dataset.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <set>

#include "stoa/base/progress.h"
#include "stoa/data/text/prepare_text.h"
#include "support/thrown.h"
#include "support/word_tokenizer.h"

namespace stoa::test {
namespace {

namespace fs = std::filesystem;

class TextDatasets : public ::testing::Test {
 protected:
  TextDatasets() {
    set_verbosity(Verbosity::kQuiet);
    write_text(folder_ / "a.txt", made_text(200));
    write_text(folder_ / "b.txt", made_text(30, 900));
    options_.train = {(folder_ / "a.txt").string()};
  }
  std::shared_ptr<const TextDataset> open() const { return open_text_dataset(options_, tokenizer_); }
  std::shared_ptr<const TextDataset> open(const std::string& train, const std::string& eval) const {
    TextDataOptions options = options_;
    options.train = {train};
    options.eval = {eval};
    return open_text_dataset(options, tokenizer_);
  }
  PreparedText prepare(const std::string& input, const std::string& out) const {
    PrepareTextOptions options;
    options.inputs = {folder_ / input};
    options.out = folder_ / out;
    options.tokenizer = tokenizer_;
    return prepare_text(options);
  }

  TempDir folder_;
  std::shared_ptr<const Tokenizer> tokenizer_ = std::make_shared<const WordTokenizer>();
  TextDataOptions options_;
};

/// All tokens with the bounds of sentences and documents.
std::vector<std::int64_t> content(const TextDocuments& documents) {
  std::vector<std::int64_t> all;
  for (const SentenceRange& range : documents.documents) {
    all.push_back(-1);
    for (std::int64_t s = range.begin; s < range.end; ++s) {
      const std::int64_t begin = documents.file->index().sentence_begin(s);
      std::vector<std::int32_t> ids(documents.file->index().sentence_begin(s + 1) - begin);
      documents.file->read(begin, std::ssize(ids), ids.data());
      all.push_back(-2);
      all.insert(all.end(), ids.begin(), ids.end());
    }
  }
  return all;
}

TEST_F(TextDatasets, OfTextOfAPreparedFolderAndOfAMegatronPairAreEqual) {
  prepare("a.txt", "a");
  prepare("b.txt", "b");
  const auto text = open((folder_ / "a.txt").string(), (folder_ / "b.txt").string());
  EXPECT_EQ(text->train.documents.size(), 200u);
  EXPECT_EQ(text->eval.documents.size(), 30u);
  const auto folders = open((folder_ / "a").string(), (folder_ / "b").string());
  EXPECT_EQ(content(folders->train), content(text->train));
  EXPECT_EQ(content(folders->eval), content(text->eval));
  const auto pairs = open((folder_ / "a/tokens").string(), (folder_ / "b/tokens.idx").string());
  EXPECT_EQ(content(pairs->train), content(text->train));
  EXPECT_EQ(content(pairs->eval), content(text->eval));
}

TEST_F(TextDatasets, AreLookedForBelowTheDataFolder) {
  prepare("a.txt", "a");
  ::setenv("STOA_DATA", folder_.path().c_str(), 1);
  EXPECT_EQ(open("a.txt", "b.txt")->train.documents.size(), 200u);
  EXPECT_EQ(open("a", "b.txt")->train.documents.size(), 200u);
  EXPECT_EQ(open("a/tokens", "b.txt")->train.documents.size(), 200u);
  ::unsetenv("STOA_DATA");
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { open("b.txt", "b.txt"); }), "correct `data.train`");
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { open((folder_ / "a.txt").string(), "absent"); }),
                       "correct `data.eval`");
}

TEST_F(TextDatasets, HoldOutAShareOfTheDocuments) {
  options_.eval_share = 0.2;
  const auto dataset = open();
  EXPECT_EQ(dataset->train.documents.size() + dataset->eval.documents.size(), 200u);
  EXPECT_NEAR(static_cast<double>(dataset->eval.documents.size()), 40, 5 * 5.7);
  std::set<std::int64_t> train;
  for (const SentenceRange& range : dataset->train.documents) train.insert(range.begin);
  for (const SentenceRange& range : dataset->eval.documents) EXPECT_EQ(train.count(range.begin), 0u);
  EXPECT_EQ(content(open()->eval), content(dataset->eval));
}

TEST_F(TextDatasets, HoldOutAtLeastOneDocumentAndKeepOne) {
  write_text(folder_ / "a.txt", "w11\n\nw12\n");
  for (const double share : {0.001, 0.999}) {
    options_.eval_share = share;
    const auto dataset = open();
    EXPECT_EQ(dataset->train.documents.size(), 1u);
    EXPECT_EQ(dataset->eval.documents.size(), 1u);
  }
}

TEST_F(TextDatasets, HoldOutTheEndOfASingleDocument) {
  options_.rules.sentences = SentenceRule::kWhole;
  options_.eval_share = 0.25;
  write_text(folder_ / "a.txt", "w11\nw12\n\nw13");
  const auto dataset = open();
  EXPECT_EQ(content(dataset->train), (std::vector<std::int64_t>{-1, -2, 11, 6, -2, 12, 6, -2, 6}));
  EXPECT_EQ(content(dataset->eval), (std::vector<std::int64_t>{-1, -2, 13}));
  write_text(folder_ / "a.txt", "w11");
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { open(); }), "`data.eval`");
}

TEST_F(TextDatasets, RefuseTokensOfAnotherVocabulary) {
  prepare("a.txt", "a");
  options_.train = {(folder_ / "a").string()};
  tokenizer_ = std::make_shared<const WordTokenizer>(2000);
  const std::string error = thrown<DataError>([&] { open(); });
  STOA_EXPECT_CONTAINS(error,
                       "its tokens are of another vocabulary (words, 1000 tokens, fingerprint "
                       "00000000000003e8) than the tokenizer (words, 2000 tokens, fingerprint "
                       "00000000000007d0)");
}

TEST_F(TextDatasets, RefuseAMegatronPairWithIdsOutsideTheVocabulary) {
  prepare("a.txt", "a");
  options_.train = {(folder_ / "a/tokens").string()};
  tokenizer_ = std::make_shared<const WordTokenizer>(500);
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { open(); }), "ids of the vocabulary are 0 to 499");
}

TEST_F(TextDatasets, RefuseTokensBesideOtherPlaces) {
  prepare("a.txt", "a");
  options_.train = {(folder_ / "a").string(), (folder_ / "b.txt").string()};
  STOA_EXPECT_CONTAINS(thrown<ConfigError>([&] { open(); }), "must stand alone");
}

TEST_F(TextDatasets, RefuseAnUnfinishedFolder) {
  prepare("a.txt", "a");
  fs::create_directories(folder_ / "a/.prepare");
  fs::copy_file(folder_ / "a/text.json", folder_ / "a/.prepare/command.json");  // it names a tokenizer too
  fs::remove(folder_ / "a/text.json");
  options_.train = {(folder_ / "a").string()};
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { open(); }), "did not come to its end");
}

TEST(TextDataOptions, RefuseWhatDoesNotFit) {
  const auto refused = [](const std::function<void(TextDataOptions&)>& change) {
    TextDataOptions options;
    options.train = {"a.txt"};
    change(options);
    return thrown<ConfigError>([&] { options.validate(); });
  };
  using Options = TextDataOptions;
  STOA_EXPECT_CONTAINS(refused([](Options& o) { o.train = {}; }), "`data.train`");
  STOA_EXPECT_CONTAINS(refused([](Options& o) { o.train = {""}; }), "`data.train`");
  STOA_EXPECT_CONTAINS(refused([](Options& o) { o.eval_share = 0; }), "`data.eval_share` is 0");
  STOA_EXPECT_CONTAINS(refused([](Options& o) { o.eval_share = 1; }), "`data.eval_share` is 1");
  STOA_EXPECT_CONTAINS(refused([](Options& o) { o.rules.key = ""; }), "`data.key`");
  STOA_EXPECT_CONTAINS(refused([](Options& o) { o.length = 2; }), "`data.length` is 2");
  STOA_EXPECT_CONTAINS(refused([](Options& o) { o.length = 4, o.pairs = PairTask::kNextSentence; }),
                       "`data.length` is 4");
  STOA_EXPECT_CONTAINS(refused([](Options& o) { o.length = 0, o.objective = TextObjective::kCausal; }),
                       "`data.length` is 0");
  STOA_EXPECT_CONTAINS(refused([](Options& o) { o.short_share = 1.5; }), "`data.short_share` is 1.5");
  STOA_EXPECT_CONTAINS(refused([](Options& o) { o.masking.share = 0; }), "`data.masking.share` is 0");
  STOA_EXPECT_CONTAINS(refused([](Options& o) { o.masking.most = -1; }), "`data.masking.most` is -1");
  STOA_EXPECT_CONTAINS(refused([](Options& o) { o.masking.random = 0.3; }), "`data.masking.random` is 0.3");
  STOA_EXPECT_CONTAINS(refused([](Options& o) { o.masking.longest_gram = 0; }),
                       "`data.masking.longest_gram`");
}

}  // namespace
}  // namespace stoa::test
