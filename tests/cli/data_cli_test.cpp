// `stoa data` as a user runs it.
#include <gtest/gtest.h>

#include <chrono>
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
  STOA_EXPECT_CONTAINS(made.errors, "second pass: 500/500 rows, ");
  STOA_EXPECT_CONTAINS(made.errors, " rows/s");
  const Ended told = run_stoa({"data", "describe", "out", "--out", "page.html"}, folder.path());
  ASSERT_EQ(told.exit_code, 0) << told.errors;
  STOA_EXPECT_CONTAINS(told.output, "click rate");
  STOA_EXPECT_CONTAINS(told.output, "C26");
  const std::string page = read_file(folder / "page.html");
  EXPECT_EQ(markup_fault(page), "");
  STOA_EXPECT_CONTAINS(page, "<svg");
  STOA_EXPECT_CONTAINS(page, "Long tail");
}

TEST(Data, DescribesDataOfOneValue) {
  const TempDir folder;
  write_text(folder / "train.txt", criteo_line("0", {}, {}));
  ASSERT_EQ(run_stoa(prepare("out", {"--split", "1:0:0"}), folder.path()).exit_code, 0);
  const Ended told = run_stoa({"data", "describe", "out", "--out", "page.html"}, folder.path());
  EXPECT_EQ(told.exit_code, 0) << told.errors;
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
  STOA_EXPECT_CONTAINS(refused(prepare("o", {"--vocabulary", "hash", "--buckets", "0"}), 2), "--buckets 0");
  STOA_EXPECT_CONTAINS(refused(prepare("train.txt"), 2), "--out train.txt: it is a file");
  STOA_EXPECT_CONTAINS(refused({"data", "prepare", "csv", "train.txt", "--out", "o"}, 2), "--schema");
  STOA_EXPECT_CONTAINS(refused({"data", "prepear"}, 2), "did you mean `prepare`?");
  STOA_EXPECT_CONTAINS(refused({"data", "describe", "out", "--uot=x"}, 2),
                       "unknown flag `--uot` of `stoa data describe`; did you mean `--out`?");
}

TEST(Data, RowsAreScoredFromStandardInputAndFilesInEveryForm) {
  const TempDir folder;
  write_text(folder / "clicks.toml", "label = \"y\"\ncategorical = [\"site\"]\nnumeric = [\"price\"]\n");
  std::string rows = "site,y,price\n";
  for (int i = 0; i < 400; ++i) rows += format("{},{},{}\n", i % 7, i % 3 == 0 ? 1 : 0, i % 50);
  write_text(folder / "clicks.csv", rows);
  write_text(folder / "small.toml", R"(title = "small"
[task]
name = "click_through"
[data]
path = "clicks"
[model]
name = "cow_clip"
hidden = [4]
[train]
steps = 3
batch_size = 50
[runtime]
threads = 1
device = "cpu"
)");
  const std::vector<std::vector<std::string>> commands = {
      {"data", "prepare", "csv", "clicks.csv", "--schema", "clicks.toml", "--out", "clicks"},
      {"train", "small.toml", "--out", "run"}};
  for (const auto& command : commands) {
    const Ended ended = run_stoa(command, folder.path());
    ASSERT_EQ(ended.exit_code, 0) << ended.errors;
  }
  write_text(folder / "rows.csv", "price,site\n20,3\n");
  write_text(folder / "rows.jsonl", "{\"site\": \"3\", \"price\": 20}\n");
  write_text(folder / "rows.txt", "3,20\n");
  const std::string scored = run_stoa({"predict", "run", "rows.csv"}, folder.path()).output;
  EXPECT_EQ(scored.size(), 9u) << scored;  // 0.123456
  EXPECT_EQ(run_stoa({"predict", "run", "rows.jsonl"}, folder.path()).output, scored);
  const auto piped = [&](const std::string& file) {
    return RunningProgram({"bash", "-c", "exec \"$0\" predict run - < " + file, STOA_PROGRAM}, folder.path())
        .wait();
  };
  EXPECT_EQ(piped("rows.txt").output, scored);
  write_text(folder / "rows.txt", "3,20\n3,x\n");
  const Ended refused = piped("rows.txt");
  EXPECT_EQ(refused.exit_code, 3);
  EXPECT_EQ(line_count(refused.errors), 1) << refused.errors;
  STOA_EXPECT_CONTAINS(refused.errors,
                       "standard input, line 2, column 2 (price): `x` is not a finite number");
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
  for (const auto& [name, content] : folder_contents(folder / "out"))
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
    const bool was_done = fs::exists(folder / "killed/schema.json");  // killed on its way out
    RunningProgram program(stoa(prepare("killed")), folder.path());
    std::this_thread::sleep_for(std::chrono::duration<double>(random.uniform(0.05, 1.1) * seconds));
    ended = program.wait_after(attempt % 2 == 0 ? SIGKILL : SIGINT);
    if (ended.exit_code == 0) break;
    ++kills;
    EXPECT_FALSE(!was_done && fs::exists(folder / "killed/schema.json") && ended.exit_code == 130);
  }
  ASSERT_EQ(run_stoa(prepare("killed"), folder.path()).exit_code, 0);
  EXPECT_TRUE(folder_contents(folder / "killed") == folder_contents(folder / "whole"));
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
