// `stoa data` as a user runs it.
#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <random>
#include <thread>

#include "stoa/base/files.h"
#include "stoa/base/random.h"
#include "support/click_files.h"
#include "support/html_check.h"
#include "support/program.h"
#include "support/thrown.h"

namespace stoa::test {
namespace {

namespace fs = std::filesystem;

std::map<std::string, std::string> contents(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file() && entry.path().filename() != ".lock")
      files[fs::relative(entry.path(), folder).string()] = read_file(entry.path());
  return files;
}

const std::vector<std::string> kPrepare = {"data", "prepare", "criteo", "train.txt", "--out"};

std::vector<std::string> prepare(const std::string& out, const std::vector<std::string>& more = {}) {
  auto command = kPrepare;
  command.push_back(out);
  command.insert(command.end(), more.begin(), more.end());
  return command;
}

TEST(Data, PreparesAndDescribes) {
  const TempDir folder;
  write_text(folder / "train.txt", criteo_text(500));
  const Ended made = run_stoa(prepare("out", {"--json"}), folder.path());
  ASSERT_EQ(made.exit_code, 0) << made.errors;
  EXPECT_EQ(json_of(made).at("fields").size(), 26u);
  const Ended told = run_stoa({"data", "describe", "out", "--out", "page.html"}, folder.path());
  ASSERT_EQ(told.exit_code, 0) << told.errors;
  STOA_EXPECT_CONTAINS(told.output, "click rate");
  STOA_EXPECT_CONTAINS(told.output, "C26");
  EXPECT_EQ(markup_fault(read_file(folder / "page.html")), "");
}

TEST(Data, RefusesWhatDoesNotFitInOneLine) {
  const TempDir folder;
  write_text(folder / "train.txt", criteo_text(20) + "1\t2\n");
  const auto refused = [&](const std::vector<std::string>& command, int code) {
    const Ended ended = run_stoa(command, folder.path());
    EXPECT_EQ(ended.exit_code, code) << ended.errors;
    EXPECT_EQ(line_count(ended.errors), 1) << ended.errors;
    return ended.errors;
  };
  STOA_EXPECT_CONTAINS(refused(prepare("out"), 3),
                       "train.txt:21, column 2: the line ends after 2 columns, 40 are needed");
  STOA_EXPECT_CONTAINS(refused({"data", "describe", "out"}, 3), "did not come to its end");
  STOA_EXPECT_CONTAINS(refused({"data", "describe", "out", "--out", "x.gif"}, 2), "ends in .html");
  STOA_EXPECT_CONTAINS(refused(prepare("o", {"--split", "1:2"}), 2), "--split 1:2");
  STOA_EXPECT_CONTAINS(refused({"data", "prepare", "csv", "train.txt", "--out", "o"}, 2), "--schema");
  STOA_EXPECT_CONTAINS(refused({"data", "prepear"}, 2), "did you mean `prepare`?");
  STOA_EXPECT_CONTAINS(refused({"data", "describe", "out", "--uot=x"}, 2),
                       "unknown flag `--uot` of `stoa data describe`; did you mean `--out`?");
}

TEST(Data, AFullDiskEndsInOneLineAndLeavesNothingHalfWritten) {
  const TempDir folder;
  write_text(folder / "train.txt", criteo_text(30000));
  // a limit on the size of files stands for the disk: what is written beyond it fails in the same place
  const Ended ended =
      RunningProgram({"bash", "-c",
                      "trap '' XFSZ; ulimit -f 300; exec \"$0\" data prepare -q criteo train.txt --out out",
                      STOA_PROGRAM},
                     folder.path())
          .wait();
  EXPECT_EQ(ended.exit_code, 1) << ended.errors;
  EXPECT_EQ(line_count(ended.errors), 1) << ended.errors;
  STOA_EXPECT_CONTAINS(ended.errors, "cannot write");
  for (const auto& [name, content] : contents(folder / "out"))
    EXPECT_EQ(name.find(".tmp"), std::string::npos) << name;
  EXPECT_FALSE(fs::exists(folder / "out/schema.json"));
  EXPECT_EQ(run_stoa(prepare("out"), folder.path()).exit_code, 0);
}

TEST(Data, PreparationKilledAtRandomMomentsEndsAsAnUninterruptedOne) {
  const TempDir folder;
  const std::string text = criteo_text(60000);
  write_gzip(folder / "train.txt", text);
  const auto began = std::chrono::steady_clock::now();
  ASSERT_EQ(run_stoa(prepare("whole"), folder.path()).exit_code, 0);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  RandomStream random(std::random_device{}());
  int kills = 0;
  Ended ended;
  for (int attempt = 0; attempt < 12; ++attempt) {
    RunningProgram program(stoa(prepare("killed")), folder.path());
    std::this_thread::sleep_for(std::chrono::duration<double>(random.uniform(0.05, 1.1) * seconds));
    ended = program.wait_after(attempt % 2 == 0 ? SIGKILL : SIGINT);
    if (ended.exit_code == 0) break;
    ++kills;
    EXPECT_FALSE(fs::exists(folder / "killed/schema.json") && ended.exit_code == 130);
  }
  ASSERT_EQ(run_stoa(prepare("killed"), folder.path()).exit_code, 0);
  EXPECT_TRUE(contents(folder / "killed") == contents(folder / "whole"));
}

TEST(Data, TwoProcessesDoNotPrepareOneFolder) {
  const TempDir folder;
  write_text(folder / "train.txt", criteo_text(100));
  fs::create_directory(folder / "out");
  const FileLock lock(folder / "out/.lock");
  const Ended ended = run_stoa(prepare("out"), folder.path());
  EXPECT_EQ(ended.exit_code, 2);
  STOA_EXPECT_CONTAINS(ended.errors, "is in use by process");
}

}  // namespace
}  // namespace stoa::test
