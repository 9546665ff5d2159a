// Runs of two processes, each of which has its own copy of the data.
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "support/program.h"
#include "support/text_runs.h"
#include "support/thrown.h"

namespace stoa::test {
namespace {

namespace fs = std::filesystem;

void replace_all(std::string& text, const std::string& from, const std::string& to) {
  for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
}

/// The recipe text.toml, whose data are in $STOA_DATA/corpus: rank R has data.R/corpus.
class OwnCopies : public testing::Test {
 protected:
  void SetUp() override {
    for (const char* rank : {"0", "1"}) {
      const fs::path corpus = folder / (std::string("data.") + rank) / "corpus";
      fs::create_directories(corpus);
      write_text(corpus);
      std::string recipe = read_file(corpus / "causal_text.toml");
      replace_all(recipe, corpus.string(), "corpus");
      write_file_atomically(folder / "text.toml", recipe);
    }
  }

  /// Changes a file of rank 1.
  void alter(const std::string& file, const std::string& from, const std::string& to) {
    const fs::path place = folder / "data.1" / "corpus" / file;
    std::string text = read_file(place);
    replace_all(text, from, to);
    write_file_atomically(place, text);
  }

  Ended stoa_of_two(const std::string& words) {
    const std::vector<std::string> launch = {
        STOA_PROGRAM, "launch",    "-n",
        "2",          "--program", "sh",
        "--",         "-c",        format("STOA_DATA=$PWD/data.$RANK exec {} {} -q", STOA_PROGRAM, words)};
    return RunningProgram(launch, folder.path()).wait();
  }
  Ended train(const std::string& set) { return stoa_of_two("train text.toml --out run --set " + set); }

  void expect_refused(const Ended& ended, const std::string& about) {
    EXPECT_EQ(ended.exit_code, 1);
    const auto line = format("agreeing on `{}", about);
    STOA_EXPECT_CONTAINS(ended.errors, "stoa: rank 0: " + line);
    STOA_EXPECT_CONTAINS(ended.errors, "[rank 1] stoa: rank 1: " + line);
    STOA_EXPECT_CONTAINS(ended.errors, "failed: rank 1 with `");
    EXPECT_FALSE(fs::exists(folder / "run")) << "nothing was trained, so the folder is free for the next try";
  }

  const TempDir folder;
};

TEST_F(OwnCopies, OfTheSameFilesTrainAndGoOnWhereverTheyLie) {
  const auto ended = train("train.steps=4 --set checkpoint.every=2");
  ASSERT_EQ(ended.exit_code, 0) << ended.errors;
  const auto whole = read_file(folder / "run/checkpoints/step-4/model.safetensors");
  for (const auto& [before, after] :
       {std::pair("data.0", "elsewhere"), {"data.1", "data.0"}, {"elsewhere", "data.1"}})
    fs::rename(folder / before, folder / after);
  fs::remove_all(folder / "run/checkpoints/step-4");
  const auto resumed = stoa_of_two("train --resume run");
  ASSERT_EQ(resumed.exit_code, 0) << resumed.errors;
  EXPECT_EQ(read_file(folder / "run/checkpoints/step-4/model.safetensors"), whole);
}

TEST_F(OwnCopies, WithOtherLettersAreRefused) {
  alter("text.txt", "w13 ", "w31 ");
  expect_refused(train("train.steps=4"), "the first training samples");
}

// whose tensors differ in size: what is sent would not be what is awaited
TEST_F(OwnCopies, WithSentencesOfOtherLengthsAreRefusedHoweverTheWorkIsShared) {
  alter("text.txt", "w13 ", "");
  for (const char* share :
       {"parallel.data=2", "parallel.sequence=2", "parallel.tensor=2", "parallel.pipeline=2"})
    expect_refused(train(share), "the first training samples");
}

TEST_F(OwnCopies, WithAnotherVocabularyAreRefused) {
  alter("vocab.txt", "w39", "v39");  // a word that the text may not have
  expect_refused(train("train.steps=4"), "the data, ");
}

TEST_F(OwnCopies, ThatChangedSinceAreRefusedWhereARunGoesOn) {
  const auto ended = train("train.steps=4 --set checkpoint.every=2");
  ASSERT_EQ(ended.exit_code, 0) << ended.errors;
  fs::remove_all(folder / "run/checkpoints/step-4");
  alter("text.txt", "w13 ", "w31 ");
  const auto resumed = stoa_of_two("train --resume run");
  EXPECT_EQ(resumed.exit_code, 1);
  STOA_EXPECT_CONTAINS(resumed.errors,
                       "agreeing on `the first training samples` in group `world` failed: rank 1");
  EXPECT_TRUE(fs::exists(folder / "run/checkpoints/step-2"));
}

}  // namespace
}  // namespace stoa::test
