// What a preparation that was killed leaves, and how the next one goes on.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "stoa/base/errors.h"
#include "stoa/base/progress.h"
#include "stoa/data/tabular/dataset.h"
#include "support/click_files.h"
#include "support/thrown.h"

namespace stoa::test {
namespace {

namespace fs = std::filesystem;

class Resume : public ::testing::Test {
 protected:
  Resume() {
    set_verbosity(Verbosity::kQuiet);
    write_text(folder_ / "train.txt", criteo_text(1000));
    options_ = prepare_options("criteo", {folder_ / "train.txt"}, out());
  }
  fs::path out() const { return folder_ / "out"; }
  /// What an undisturbed preparation makes.
  std::map<std::string, std::string> whole() const {
    PrepareOptions options = options_;
    options.out = folder_ / "whole";
    prepare_tabular(options);
    return folder_contents(options.out);
  }
  /// As a kill in the second pass leaves it.
  void leave_half() const {
    prepare_tabular(options_);
    const Json schema = Json::parse(read_file(out() / "schema.json"));
    write_text(out() / ".prepare/command.json", schema.at("command").dump());
    write_text(out() / ".prepare/first-pass.json", first_pass(schema));
    fs::remove(out() / "schema.json");
    fs::remove(out() / "counts.bin");
    fs::remove(out() / "data/train-000002.bin");
    write_text(out() / "data/test-000001.bin", "STOAROW1 but no more");
    write_text(out() / "data/.train-000002.bin.77-0.tmp", "half");
  }
  /// As an error in the second pass leaves it: chunk 1 is there as a draft alone.
  void leave_draft() const {
    prepare_tabular(options_);
    const Json schema = Json::parse(read_file(out() / "schema.json"));
    fs::remove_all(out());
    write_text(out() / ".prepare/command.json", schema.at("command").dump());
    const fs::path in_the_way = out() / "data/train-000001.bin/in the way";
    fs::create_directories(in_the_way);
    thrown<IoError>([&] { prepare_tabular(options_); });
    fs::remove_all(in_the_way.parent_path());
    ASSERT_TRUE(fs::exists(draft()));
  }
  fs::path draft() const { return out() / ".prepare/draft-000001.bin"; }
  static std::string first_pass(const Json& schema) {
    std::int64_t rows = 0;
    for (const Json& split : schema.at("splits")) rows += split.at("rows").get<std::int64_t>();
    Json ranges = Json::array();
    for (const Json& numeric : schema.at("vocabulary").at("numerics"))
      ranges.push_back({numeric.at("low"), numeric.at("high")});
    return Json{{"rows", rows}, {"ranges", ranges}}.dump();
  }

  TempDir folder_;
  PrepareOptions options_;
};

TEST_F(Resume, EveryPartThatIsThereIsUsedAgain) {
  leave_half();
  const auto kept = fs::last_write_time(out() / "data/train-000000.bin");
  prepare_tabular(options_);
  EXPECT_TRUE(folder_contents(out()) == whole());
  EXPECT_EQ(fs::last_write_time(out() / "data/train-000000.bin"), kept);
}

TEST_F(Resume, AFirstPassThatFailedGoesOnWithTheDraftsThatAreWhole) {
  std::string text = criteo_text(1000);
  const auto last = text.rfind('\n', text.size() - 2) + 1;
  const char label = std::exchange(text[last], 'x');
  const fs::path input = folder_ / "train.txt";
  write_text(input, text);
  const auto changed = fs::last_write_time(input);
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { prepare_tabular(options_); }), "train.txt:1000, column 1");
  ASSERT_TRUE(fs::exists(out() / ".prepare/draft-000001.bin"));
  fs::resize_file(out() / ".prepare/draft-000001.bin", 1000);
  text[last] = label;  // as if nothing had been changed
  write_text(input, text);
  fs::last_write_time(input, changed);
  prepare_tabular(options_);
  EXPECT_TRUE(folder_contents(out()) == whole());
}

TEST_F(Resume, ADraftIsUsedInPlaceOfItsText) {
  const auto made = whole();
  leave_draft();
  std::string text = criteo_text(1000);
  const auto second_chunk = text.find('\n', static_cast<std::size_t>(options_.chunk_bytes)) + 1;
  text[second_chunk] = 'x';  // no label
  const auto changed = fs::last_write_time(folder_ / "train.txt");
  write_text(folder_ / "train.txt", text);
  fs::last_write_time(folder_ / "train.txt", changed);
  prepare_tabular(options_);
  EXPECT_TRUE(folder_contents(out()) == made);
}

TEST_F(Resume, ADamagedDraftIsMadeAgain) {
  const auto made = whole();
  leave_draft();
  std::string bytes = read_file(draft());
  bytes[bytes.size() / 2] ^= 1;
  write_text(draft(), bytes);
  prepare_tabular(options_);
  EXPECT_TRUE(folder_contents(out()) == made);
}

TEST_F(Resume, DraftsAreRemovedOnceTheirRowsAreWritten) {
  leave_draft();
  prepare_tabular(options_);
  EXPECT_FALSE(fs::exists(out() / ".prepare"));
}

TEST_F(Resume, AKillBeforeTheCommandWasNotedLeavesNothingInTheWay) {
  write_text(out() / ".prepare/.command.json.77-0.tmp", "half");
  prepare_tabular(options_);
  EXPECT_TRUE(folder_contents(out()) == whole());
}

TEST_F(Resume, WhatIsLeftOfARemovedPreparationIsNotUsed) {
  write_text(out() / ".prepare/first-pass.json", R"({"rows": 1, "ranges": []})");
  prepare_tabular(options_);
  EXPECT_TRUE(folder_contents(out()) == whole());
}

TEST_F(Resume, ARemovalThatWasKilledNeedsOverwriteToGoOn) {
  prepare_tabular(options_);
  fs::create_directory(out() / ".prepare");
  fs::remove(out() / "schema.json");
  STOA_EXPECT_CONTAINS(thrown<ConfigError>([&] { prepare_tabular(options_); }), "with --overwrite");
  options_.overwrite = true;
  prepare_tabular(options_);
  EXPECT_TRUE(folder_contents(out()) == whole());
}

TEST_F(Resume, OverwriteGoesOnWhereItWasKilled) {
  leave_half();
  const auto kept = fs::last_write_time(out() / "data/train-000000.bin");
  options_.overwrite = true;
  prepare_tabular(options_);
  EXPECT_EQ(fs::last_write_time(out() / "data/train-000000.bin"), kept);
}

TEST_F(Resume, OverwriteMakesDamagedDataAnew) {
  prepare_tabular(options_);
  fs::resize_file(out() / "data/train-000001.bin", 1000);
  options_.overwrite = true;
  prepare_tabular(options_);
  EXPECT_TRUE(folder_contents(out()) == whole());
}

TEST_F(Resume, AnUnfinishedFolderIsNotOpened) {
  leave_half();
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { open_tabular_dataset(out(), TabularSplit::kTrain); }),
                       "did not come to its end");
}

TEST_F(Resume, AnUnfinishedFolderOfOtherOptionsIsLeftAlone) {
  leave_half();
  options_.seed = 9;
  STOA_EXPECT_CONTAINS(thrown<ConfigError>([&] { prepare_tabular(options_); }),
                       "an unfinished preparation of other options");
}

TEST_F(Resume, DoesNothingWhereAllIsDone) {
  prepare_tabular(options_);
  const auto before = fs::last_write_time(out() / "schema.json");
  prepare_tabular(options_);
  EXPECT_EQ(fs::last_write_time(out() / "schema.json"), before);
}

TEST_F(Resume, KnowsInputsAgainWhoseNamesAreNotUtf8) {
  write_text(folder_ / "caf\xe9.txt", criteo_text(50));
  options_.inputs = {folder_ / "caf\xe9.txt"};
  prepare_tabular(options_);
  const auto before = fs::last_write_time(out() / "schema.json");
  prepare_tabular(options_);
  EXPECT_EQ(fs::last_write_time(out() / "schema.json"), before);
}

TEST_F(Resume, OtherOptionsNeedAnotherFolderOrOverwrite) {
  prepare_tabular(options_);
  options_.seed = 9;
  STOA_EXPECT_CONTAINS(thrown<ConfigError>([&] { prepare_tabular(options_); }), "--overwrite");
  options_.overwrite = true;
  EXPECT_EQ(prepare_tabular(options_).command.at("seed"), 9);
}

TEST_F(Resume, AFolderWithSomethingElseIsLeftAlone) {
  write_text(out() / "thesis.txt", "precious");
  options_.overwrite = true;
  STOA_EXPECT_CONTAINS(thrown<ConfigError>([&] { prepare_tabular(options_); }), "is not empty (thesis.txt)");
  EXPECT_EQ(read_file(out() / "thesis.txt"), "precious");
}

TEST_F(Resume, APipeIsRefusedAsItCannotBeReadAgain) {
  ASSERT_EQ(mkfifo((folder_ / "pipe").c_str(), 0600), 0);
  options_.inputs = {folder_ / "pipe"};
  STOA_EXPECT_CONTAINS(thrown<IoError>([&] { prepare_tabular(options_); }), "pipe: it may be read again");
}

}  // namespace
}  // namespace stoa::test
