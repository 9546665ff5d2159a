#include "stoa/base/progress.h"

#include <gtest/gtest.h>

#include <pty.h>
#include <unistd.h>

#include <algorithm>
#include <string>

#include "support/thrown.h"

namespace stoa {
namespace {

// What `work` prints on standard error, which is a file.
template <class Work>
std::string printed(const Work& work) {
  ::testing::internal::CaptureStderr();
  work();
  return ::testing::internal::GetCapturedStderr();
}

// What `work` prints on standard error, which is a terminal of `columns` columns.
template <class Work>
std::string printed_on_terminal(unsigned short columns, const Work& work) {
  int controller = -1, terminal = -1;
  const winsize size{24, columns, 0, 0};
  if (openpty(&controller, &terminal, nullptr, nullptr, &size) != 0) return "";
  const int before = dup(STDERR_FILENO);
  dup2(terminal, STDERR_FILENO);
  work();
  dup2(before, STDERR_FILENO);
  close(before);
  // what was written comes in pieces; a bell is the last of them
  std::string text;
  char piece[4096];
  ssize_t count = write(terminal, "\a", 1);
  while (count > 0 && !text.ends_with('\a'))
    if ((count = read(controller, piece, sizeof piece)) > 0)
      text.append(piece, static_cast<std::size_t>(count));
  if (text.ends_with('\a')) text.pop_back();
  close(terminal);
  close(controller);
  return text;
}

class ProgressTest : public ::testing::Test {
 protected:
  void TearDown() override { set_verbosity(Verbosity::kNormal); }
};

TEST_F(ProgressTest, PlainLinesShowCountTotalUnitAndDetail) {
  const std::string text = printed([] {
    Progress progress("train", "steps", 10000, 0);
    progress.update(1200, "loss 0.53");
  });
  EXPECT_TRUE(text.starts_with("train: 1,200/10,000 steps, ")) << text;
  EXPECT_TRUE(text.ends_with(" left, loss 0.53\n")) << text;
  STOA_EXPECT_CONTAINS(text, " steps/s, ");
}

TEST_F(ProgressTest, AnUnknownTotalIsLeftOut) {
  const std::string text = printed([] {
    Progress progress("read", "images", 0, 0);
    progress.update(7);
  });
  EXPECT_TRUE(text.starts_with("read: 7 images, ")) << text;
  EXPECT_EQ(text.find("left"), std::string::npos) << text;
}

TEST_F(ProgressTest, PlainLinesWaitForTheirTime) {
  const std::string text = printed([] {
    Progress progress("train", "steps", 10, 1e9);
    for (int i = 1; i <= 10; ++i) progress.update(i);
  });
  EXPECT_EQ(text, "");
}

TEST_F(ProgressTest, FinishDrawsTheLastStateOnce) {
  const std::string text = printed([] {
    Progress progress("train", "steps", 10, 1e9);
    progress.update(10, "loss 0.1");
    progress.finish();
    progress.finish();
  });
  EXPECT_TRUE(text.starts_with("train: 10/10 steps, ")) << text;
  EXPECT_TRUE(text.ends_with(", loss 0.1\n")) << text;
  STOA_EXPECT_CONTAINS(text, ", took ");
  EXPECT_EQ(std::ranges::count(text, '\n'), 1) << text;
}

TEST_F(ProgressTest, AResumedRunCountsItsRateFromWhereItStarted) {
  const std::string text = printed([] {
    Progress progress("train", "steps", 200, 0);
    progress.start_at(100);
    progress.update(100);  // nothing done since: no rate
  });
  EXPECT_EQ(text, "train: 100/200 steps\n");
}

TEST_F(ProgressTest, QuietSilencesProgressAndInformationButNotWarnings) {
  set_verbosity(Verbosity::kQuiet);
  const std::string text = printed([] {
    Progress progress("train", "steps", 10, 0);
    progress.update(1);
    log_info("hello");
    log_warning("careful");
    progress.finish();
  });
  EXPECT_EQ(text, "warning: careful\n");
}

TEST_F(ProgressTest, LogsAreOneLineEach) {
  EXPECT_EQ(printed([] { log_info("hello"); }), "hello\n");
}

TEST_F(ProgressTest, ATerminalShowsOneLineThatIsRedrawn) {
  const std::string text = printed_on_terminal(80, [] {
    Progress progress("train", "steps", 10);
    progress.start_at(10);
    progress.finish();
  });
  EXPECT_TRUE(text.starts_with("\r\033[Ktrain: 0/10 steps\r\033[Ktrain: 10/10 steps, took ")) << text;
  EXPECT_EQ(std::ranges::count(text, '\n'), 1) << text;
}

TEST_F(ProgressTest, ALogOnATerminalMovesTheProgressLineBelowIt) {
  const std::string text = printed_on_terminal(80, [] {
    Progress progress("train", "steps", 10);
    log_info("saved");
  });
  EXPECT_EQ(text, "\r\033[Ktrain: 0/10 steps\r\033[Ksaved\r\ntrain: 0/10 steps\r\n");
}

TEST_F(ProgressTest, ALineIsCutToTheWidthOfTheTerminal) {
  const std::string text = printed_on_terminal(10, [] { Progress progress("täglich", "steps", 10); });
  EXPECT_EQ(text, "\r\033[Ktäglich: \r\n");
}

}  // namespace
}  // namespace stoa
