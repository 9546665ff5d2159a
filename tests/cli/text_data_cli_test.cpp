// `stoa data` with text, as a user runs it.
#include <gtest/gtest.h>

#include <chrono>
#include <random>
#include <thread>

#include "stoa/base/files.h"
#include "stoa/base/random.h"
#include "support/click_files.h"
#include "support/html_check.h"
#include "support/program.h"
#include "support/test_data.h"
#include "support/thrown.h"

namespace stoa::test {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> prepare(const std::string& input, const std::string& out,
                                 const std::vector<std::string>& more = {}) {
  std::vector<std::string> command = {"data", "prepare", "text", input, "--out", out, "--tokenizer", "bytes"};
  command.insert(command.end(), more.begin(), more.end());
  return command;
}

/// About `bytes` bytes of words in sentences, paragraphs and documents.
std::string prose(std::size_t bytes) {
  RandomStream random(1);
  std::string text;
  while (text.size() < bytes) {
    for (std::int64_t words = random.integer(3, 20); words > 0; --words) {
      for (std::int64_t letters = random.integer(1, 9); letters > 0; --letters)
        text += static_cast<char>('a' + random.integer(0, 26));
      text += words > 1 ? " " : ".\n";
    }
    if (random.uniform() < 0.05) text += "\n";
  }
  return text;
}

TEST(TextData, PreparesAndDescribes) {
  const TempDir folder;
  write_text(folder / "in/a.txt", "Hello you.\nAgain.\n\nBye.\n");
  write_text(folder / "in/b.jsonl", "{\"body\": \"One. Two.\"}\n");
  const Ended made =
      run_stoa(prepare("in", "out", {"--json", "--key", "body", "--threads", "2"}), folder.path());
  ASSERT_EQ(made.exit_code, 0) << made.errors;
  const Json json = json_of(made);
  EXPECT_EQ(json.at("documents").at("count"), 3);
  EXPECT_EQ(json.at("sentences").at("count"), 4);
  EXPECT_EQ(json.at("tokens"), 10 + 6 + 4 + 9);
  STOA_EXPECT_CONTAINS(made.errors, "MB/s, 100 % of the input");
  const Ended told = run_stoa({"data", "describe", "out", "--out", "page.html"}, folder.path());
  ASSERT_EQ(told.exit_code, 0) << told.errors;
  STOA_EXPECT_CONTAINS(told.output, "29 tokens of a bytes vocabulary of 263");
  STOA_EXPECT_CONTAINS(told.output, "median");
  STOA_EXPECT_CONTAINS(told.output, "most frequent");
  const std::string page = read_file(folder / "page.html");
  EXPECT_EQ(markup_fault(page), "");
  STOA_EXPECT_CONTAINS(page, "<svg");
}

TEST(TextData, SplitsParagraphs) {
  const TempDir folder;
  write_text(folder / "a.txt", "Hello you. Again.\n\nBye.\n");
  const Ended made = run_stoa(prepare("a.txt", "out", {"--json", "--sentences", "split"}), folder.path());
  EXPECT_EQ(json_of(made).at("sentences").at("count"), 3);
}

TEST(TextData, KeepsTheTokenizerOfItsFolder) {
  STOA_NEEDS_TEST_DATA("bert/vocab.txt");
  const TempDir folder;
  write_text(folder / "a.txt", "Unaffable people.\n");
  const std::vector<std::string> command = {"data",  "prepare",     "text",
                                            "a.txt", "--tokenizer", test_data("bert/vocab.txt").string(),
                                            "--out", "out",         "--json"};
  const Ended made = run_stoa(command, folder.path());
  ASSERT_EQ(made.exit_code, 0) << made.errors;
  const Ended told = run_stoa({"data", "describe", "out", "--json"}, folder.path());
  ASSERT_EQ(told.exit_code, 0) << told.errors;
  EXPECT_EQ(json_of(told).at("tokenizer"), json_of(made).at("tokenizer"));
  EXPECT_EQ(json_of(told).at("tokenizer").at("size"), 30522);
}

TEST(TextData, RefusesWhatDoesNotFitInOneLine) {
  const TempDir folder;
  write_text(folder / "a.txt", "Hello.\nfine \xff broken\n");
  write_text(folder / "empty.txt", "\n\n");
  write_text(folder / "a.jsonl", "{\"text\": \"x\"}\n{\"body\": \"x\"}\n");
  const auto refused = [&](const std::vector<std::string>& command, int code) {
    const Ended ended = run_stoa(command, folder.path());
    EXPECT_EQ(ended.exit_code, code) << ended.errors;
    EXPECT_EQ(line_count(ended.errors), 1) << ended.errors;
    return ended.errors;
  };
  STOA_EXPECT_CONTAINS(refused(prepare("a.txt", "o", {"--broken-utf8", "refuse"}), 3), "a.txt:2: ");
  STOA_EXPECT_CONTAINS(refused(prepare("empty.txt", "o2"), 3), "empty.txt: there is no text in it");
  STOA_EXPECT_CONTAINS(refused(prepare("a.jsonl", "o3"), 3), "a.jsonl:2: the object has no `text`");
  STOA_EXPECT_CONTAINS(refused(prepare("absent.txt", "o4"), 1), "absent.txt");
  STOA_EXPECT_CONTAINS(refused({"data", "prepare", "text", "a.txt", "--out", "o5"}, 2), "--tokenizer");
  STOA_EXPECT_CONTAINS(refused(prepare("a.txt", "o6", {"--buckets", "9"}), 2), "--buckets is not for text");
  STOA_EXPECT_CONTAINS(refused({"data", "prepare", "criteo", "a.txt", "--out", "o7", "--threads", "2"}, 2),
                       "--threads is not for criteo");
  STOA_EXPECT_CONTAINS(refused(prepare("a.txt", "a.txt"), 2), "--out a.txt: it is a file");
  STOA_EXPECT_CONTAINS(refused({"data", "describe", "o3"}, 3), "did not come to its end");
}

TEST(TextData, AnAlteredFolderIsNotDescribed) {
  const TempDir folder;
  write_text(folder / "a.txt", "Hello.\n");
  ASSERT_EQ(run_stoa(prepare("a.txt", "out"), folder.path()).exit_code, 0);
  write_text(folder / "out/tokens.bin", "x");
  const Ended ended = run_stoa({"data", "describe", "out"}, folder.path());
  EXPECT_EQ(ended.exit_code, 3);
  STOA_EXPECT_CONTAINS(ended.errors, "out/tokens.bin: it has 1 bytes, 12 were written");
}

TEST(TextData, AFullDiskEndsInOneLineAndLeavesNothingHalfWritten) {
  const TempDir folder;
  write_text(folder / "a.txt", prose(1 << 20));
  // a limit on the size of files stands for the disk: what is written beyond it fails in the same place
  const Ended ended =
      RunningProgram({"bash", "-c",
                      "trap '' XFSZ; ulimit -f 300; exec \"$0\" data prepare -q text a.txt --out "
                      "out --tokenizer bytes",
                      STOA_PROGRAM},
                     folder.path())
          .wait();
  EXPECT_EQ(ended.exit_code, 1) << ended.errors;
  EXPECT_EQ(line_count(ended.errors), 1) << ended.errors;
  STOA_EXPECT_CONTAINS(ended.errors, "cannot write");
  for (const auto& [name, content] : folder_contents(folder / "out"))
    EXPECT_EQ(name.find(".tmp"), std::string::npos) << name;
  EXPECT_FALSE(fs::exists(folder / "out/text.json"));
  EXPECT_EQ(run_stoa(prepare("a.txt", "out"), folder.path()).exit_code, 0);
}

TEST(TextData, PreparationKilledAtRandomMomentsEndsAsAnUninterruptedOne) {
  const TempDir folder;
  write_gzip(folder / "a.txt.gz", prose(24 << 20));  // six parts
  const auto began = std::chrono::steady_clock::now();
  ASSERT_EQ(run_stoa(prepare("a.txt.gz", "whole"), folder.path()).exit_code, 0);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  RandomStream random(std::random_device{}());
  for (int attempt = 0; attempt < 12; ++attempt) {
    RunningProgram program(stoa(prepare("a.txt.gz", "killed")), folder.path());
    std::this_thread::sleep_for(std::chrono::duration<double>(random.uniform(0.05, 1.1) * seconds));
    const Ended ended = program.wait_after(attempt % 2 == 0 ? SIGKILL : SIGINT);
    if (ended.exit_code == 0) break;
  }
  ASSERT_EQ(run_stoa(prepare("a.txt.gz", "killed"), folder.path()).exit_code, 0);
  EXPECT_TRUE(folder_contents(folder / "killed") == folder_contents(folder / "whole"));
}

TEST(TextData, APartThatWasFinishedBeforeAKillIsKept) {
  const TempDir folder;
  write_text(folder / "a.txt", prose(24 << 20));
  RunningProgram program(stoa(prepare("a.txt", "out", {"--threads", "1"})), folder.path());
  const fs::path part = folder / "out/.prepare/part-000000.bin";
  ASSERT_TRUE(program.wait_until([&] { return fs::exists(part); }));
  ASSERT_EQ(program.wait_after(SIGKILL).exit_code, 128 + SIGKILL);
  const auto written = fs::last_write_time(part);
  RunningProgram again(stoa(prepare("a.txt", "out", {"--threads", "1"})), folder.path());
  ASSERT_TRUE(again.wait_until([&] { return fs::exists(folder / "out/.prepare/part-000003.bin"); }));
  ASSERT_TRUE(fs::exists(part));
  EXPECT_EQ(fs::last_write_time(part), written);
  EXPECT_EQ(again.wait().exit_code, 0);
}

TEST(TextData, TwoProcessesDoNotPrepareOneFolder) {
  const TempDir folder;
  write_text(folder / "a.txt", "Hello.\n");
  fs::create_directory(folder / "out");
  const FileLock lock(folder / "out/.lock");
  const Ended ended = run_stoa(prepare("a.txt", "out"), folder.path());
  EXPECT_EQ(ended.exit_code, 2);
  STOA_EXPECT_CONTAINS(ended.errors, "is in use by process");
}

}  // namespace
}  // namespace stoa::test
