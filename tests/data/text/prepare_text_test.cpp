#include "stoa/data/text/prepare_text.h"

#include <gtest/gtest.h>

#include "stoa/base/errors.h"
#include "stoa/base/progress.h"
#include "stoa/data/text/text_dataset.h"
#include "stoa/data/text/text_statistics.h"
#include "support/thrown.h"
#include "support/word_tokenizer.h"

namespace stoa::test {
namespace {

namespace fs = std::filesystem;

class PrepareText : public ::testing::Test {
 protected:
  PrepareText() {
    set_verbosity(Verbosity::kQuiet);
    write_text(input(), made_text(100));
    options_.inputs = {input()};
    options_.out = out();
    options_.tokenizer = std::make_shared<const WordTokenizer>();
    options_.chunk_bytes = 3000;  // a dozen parts
  }
  fs::path input() const { return folder_ / "in.txt"; }
  fs::path out() const { return folder_ / "out"; }
  fs::path part(int number) const { return out() / format(".prepare/part-{:06}.bin", number); }
  /// What an undisturbed preparation makes.
  std::map<std::string, std::string> whole() const {
    PrepareTextOptions options = options_;
    options.out = folder_ / "whole";
    prepare_text(options);
    return folder_contents(options.out);
  }
  /// A preparation that failed in the last line of the text, which is put right again.
  void leave_half() const {
    const std::string text = read_file(input());
    const auto changed = fs::last_write_time(input());
    const auto place = text.rfind('w');
    std::string broken = text;
    broken[place] = '\xff';
    write_text(input(), broken);
    fs::last_write_time(input(), changed);
    STOA_EXPECT_CONTAINS(thrown<DataError>([&] { prepare_text(options_); }), "is not UTF-8");
    write_text(input(), text);
    fs::last_write_time(input(), changed);
  }
  std::string refused() const {
    return thrown<DataError>([&] { PreparedText::open(out()).token_file(); });
  }

  TempDir folder_;
  PrepareTextOptions options_;
};

TEST_F(PrepareText, WritesTokensAndWhatBelongsToThem) {
  const PreparedText made = prepare_text(options_);
  EXPECT_EQ(made.documents, 100);
  EXPECT_EQ(made.kind, "words");
  EXPECT_EQ(made.fingerprint, options_.tokenizer->fingerprint());
  const auto files = folder_contents(out());
  std::vector<std::string> names;
  for (const auto& [name, content] : files) names.push_back(name);
  EXPECT_EQ(names, (std::vector<std::string>{"text.json", "tokens.bin", "tokens.idx", "words.json"}));
  const auto memory = tokenize_in_memory({input()}, {}, *options_.tokenizer);
  EXPECT_EQ(made.token_file()->index().tokens(), memory->index().tokens());
  EXPECT_EQ(made.token_file()->counts(), memory->counts());
  EXPECT_EQ(made.token_file()->index().type(), TokenType::kU16);
}

TEST_F(PrepareText, DoesNotDependOnThreads) {
  const auto expected = whole();
  for (const int threads : {1, 2, 5}) {
    options_.threads = threads;
    options_.overwrite = true;
    prepare_text(options_);
    EXPECT_TRUE(folder_contents(out()) == expected) << threads;
  }
}

TEST_F(PrepareText, LargeVocabulariesTakeFourBytes) {
  options_.tokenizer = std::make_shared<const WordTokenizer>(70000);
  EXPECT_EQ(prepare_text(options_).token_file()->index().type(), TokenType::kI32);
}

TEST_F(PrepareText, JoinsFilesAndKeepsTheirDocumentsApart) {
  write_text(folder_ / "b.jsonl", "{\"text\": \"w11 w12\"}\n{\"text\": \"w13\"}\n");
  options_.inputs = {folder_ / "b.jsonl", input(), folder_ / "b.jsonl"};
  EXPECT_EQ(prepare_text(options_).documents, 104);
}

TEST_F(PrepareText, GoesOnWithThePartsThatAreWhole) {
  leave_half();
  ASSERT_TRUE(fs::exists(part(2)));
  const auto kept = fs::last_write_time(part(0));
  write_text(part(1), "STOATPT1 but no more");
  fs::resize_file(part(2), fs::file_size(part(2)) - 1);
  write_text(out() / ".prepare/.part-000009.bin.77-0.tmp", "half");
  // the finished parts are looked at before the last line fails again
  std::string text = read_file(input());
  leave_half();
  EXPECT_EQ(fs::last_write_time(part(0)), kept);
  prepare_text(options_);
  EXPECT_TRUE(folder_contents(out()) == whole());
}

TEST_F(PrepareText, DoesNothingWhereAllIsDone) {
  prepare_text(options_);
  const auto written = fs::last_write_time(out() / "tokens.bin");
  prepare_text(options_);
  EXPECT_EQ(fs::last_write_time(out() / "tokens.bin"), written);
}

TEST_F(PrepareText, LeavesOtherTextAlone) {
  prepare_text(options_);
  PrepareTextOptions other = options_;
  other.rules.sentences = SentenceRule::kSplit;
  STOA_EXPECT_CONTAINS(thrown<ConfigError>([&] { prepare_text(other); }), "holds other prepared text");
  other = options_;
  other.tokenizer = std::make_shared<const WordTokenizer>(2000);
  STOA_EXPECT_CONTAINS(thrown<ConfigError>([&] { prepare_text(other); }), "holds other prepared text");
  other.overwrite = true;
  EXPECT_EQ(prepare_text(other).vocabulary, 2000);
}

TEST_F(PrepareText, LeavesAnUnfinishedPreparationOfOtherOptionsAlone) {
  leave_half();
  options_.rules.key = "body";
  STOA_EXPECT_CONTAINS(thrown<ConfigError>([&] { prepare_text(options_); }), "unfinished preparation");
  options_.overwrite = true;
  prepare_text(options_);
  EXPECT_TRUE(folder_contents(out()) == whole());
}

TEST_F(PrepareText, LeavesAFolderWithOtherFilesAlone) {
  write_text(out() / "thesis.txt", "x");
  options_.overwrite = true;
  STOA_EXPECT_CONTAINS(thrown<ConfigError>([&] { prepare_text(options_); }), "is not empty (thesis.txt)");
  EXPECT_TRUE(fs::exists(out() / "thesis.txt"));
}

TEST_F(PrepareText, OverwriteMakesDamagedTextAnew) {
  const auto expected = whole();
  prepare_text(options_);
  fs::resize_file(out() / "tokens.bin", 100);
  options_.overwrite = true;
  prepare_text(options_);
  EXPECT_TRUE(folder_contents(out()) == expected);
}

TEST_F(PrepareText, ARemovalThatWasKilledNeedsOverwriteToGoOn) {
  prepare_text(options_);
  write_text(out() / ".prepare/tokenizer-files.json", "[\"words.json\"]");
  fs::remove(out() / "text.json");
  STOA_EXPECT_CONTAINS(thrown<ConfigError>([&] { prepare_text(options_); }), "with --overwrite");
  options_.overwrite = true;
  prepare_text(options_);
  EXPECT_TRUE(folder_contents(out()) == whole());
}

TEST_F(PrepareText, RefusesTextWithoutASentence) {
  write_text(folder_ / "b.jsonl", "{\"text\": \" \"}\n{\"text\": \"\"}\n");
  options_.inputs = {input(), folder_ / "b.jsonl"};
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { prepare_text(options_); }), "b.jsonl: there is no text in it");
  EXPECT_FALSE(fs::exists(out() / "tokens.bin"));
}

TEST_F(PrepareText, RefusesWhatIsMissing) {
  const auto refused_with = [&](const std::function<void(PrepareTextOptions&)>& change) {
    PrepareTextOptions options = options_;
    change(options);
    return thrown<ConfigError>([&] { prepare_text(options); });
  };
  using Options = PrepareTextOptions;
  STOA_EXPECT_CONTAINS(refused_with([](Options& o) { o.inputs = {}; }), "name the files");
  STOA_EXPECT_CONTAINS(refused_with([](Options& o) { o.out = ""; }), "--out");
  STOA_EXPECT_CONTAINS(refused_with([](Options& o) { o.tokenizer = nullptr; }), "--tokenizer");
  STOA_EXPECT_CONTAINS(refused_with([](Options& o) { o.threads = -1; }), "--threads -1");
  STOA_EXPECT_CONTAINS(refused_with([&](Options& o) { o.out = input(); }), "it is a file");
}

TEST_F(PrepareText, EveryAlteredFileIsNamed) {
  prepare_text(options_);
  for (const char* name : {"tokens.bin", "tokens.idx", "words.json", "text.json"}) {
    const std::string content = read_file(out() / name);
    std::string altered = content;
    altered[altered.size() / 2] = static_cast<char>(altered[altered.size() / 2] ^ 1);
    write_text(out() / name, altered);
    STOA_EXPECT_CONTAINS(refused(), name);
    write_text(out() / name, content.substr(0, content.size() / 2));
    STOA_EXPECT_CONTAINS(refused(), name);
    fs::remove(out() / name);
    STOA_EXPECT_CONTAINS(refused(), name);
    write_text(out() / name, content);
  }
  EXPECT_NO_THROW(PreparedText::open(out()).token_file());
}

TEST_F(PrepareText, AnUnfinishedFolderIsNotOpened) {
  leave_half();
  STOA_EXPECT_CONTAINS(refused(), "did not come to its end");
  EXPECT_TRUE(is_prepared_text(out()));
  EXPECT_FALSE(is_prepared_text(folder_.path()));
}

TEST_F(PrepareText, IsDescribed) {
  write_text(input(), "w11 w11 w12\nw11\n\nw13 nothing w14 w15\n");
  const TextStatistics found = describe_text(prepare_text(options_), *options_.tokenizer);
  EXPECT_EQ(found.documents.count, 2);
  EXPECT_EQ(found.sentences.count, 3);
  EXPECT_EQ(found.tokens, 8);
  EXPECT_EQ(found.unknown, 1);
  EXPECT_DOUBLE_EQ(found.unknown_share(), 0.125);
  EXPECT_EQ(found.seen, 6);
  EXPECT_EQ(found.sentences.median, 3);
  EXPECT_EQ(found.sentences.most, 4);
  EXPECT_EQ(found.documents.most, 4);
  EXPECT_EQ(found.top.at(0), (std::pair<std::string, std::int64_t>("w11", 3)));
  EXPECT_EQ(found.coverage.front(), (std::pair<std::int64_t, double>(1, 0.375)));
  EXPECT_EQ(found.coverage.back(), (std::pair<std::int64_t, double>(6, 1.0)));
}

TEST(LengthStatistics, AreQuantiles) {
  std::vector<std::int64_t> lengths;
  for (std::int64_t i = 200; i >= 0; --i) lengths.push_back(i);
  const LengthStatistics found = length_statistics(lengths);
  EXPECT_EQ(found.median, 100);
  EXPECT_EQ(found.ninety_nine, 198);
  EXPECT_EQ(found.most, 200);
  EXPECT_DOUBLE_EQ(found.mean, 100);
}

}  // namespace
}  // namespace stoa::test
