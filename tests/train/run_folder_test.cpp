#include "stoa/train/run_folder.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "support/temp_dir.h"
#include "support/thrown.h"
#include "support/toy_task.h"

namespace stoa {
namespace {

namespace fs = std::filesystem;
using test::thrown;

Recipe recipe(const std::vector<std::string>& set = {}) {
  return read_recipe(test::toy_config(set), test::toy_catalog());
}

/// A process that starts a run and holds it until it is killed.
class OtherProcess {
 public:
  explicit OtherProcess(const fs::path& run) {
    int ready[2];
    if (::pipe(ready) != 0) throw std::runtime_error("no pipe");
    pid_ = ::fork();
    if (pid_ == 0) {
      Recipe own = recipe();
      const RunFolder folder = RunFolder::create(run, own);
      if (::write(ready[1], "x", 1) != 1) ::_exit(1);
      while (true) ::pause();
    }
    char byte = 0;
    if (::read(ready[0], &byte, 1) != 1) throw std::runtime_error("the other process failed");
    ::close(ready[0]);
    ::close(ready[1]);
  }
  ~OtherProcess() { end(); }
  OtherProcess(const OtherProcess&) = delete;
  OtherProcess& operator=(const OtherProcess&) = delete;

  void end() {
    if (pid_ == 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = 0;
};

TEST(RunFolder, HoldsTheResolvedRecipe) {
  const test::TempDir dir;
  Recipe own = recipe({"train.steps=3"});
  const RunFolder folder = RunFolder::create(dir / "a/run", own);
  Recipe read = read_recipe(RunFolder::open(dir / "a/run").recipe(), test::toy_catalog());
  EXPECT_EQ(read.resolved(), own.resolved());
}

TEST(RunFolder, ASecondRunOfTheRecipeIsRefusedWithTheWayToGoOn) {
  const test::TempDir dir;
  Recipe own = recipe();
  RunFolder::create(dir / "run", own);
  const auto message = thrown<ConfigError>([&] { RunFolder::create(dir / "run", own); });
  STOA_EXPECT_CONTAINS(message, "holds a run of this recipe already");
  STOA_EXPECT_CONTAINS(message, "--resume " + (dir / "run").string());
}

TEST(RunFolder, ARunOfAnotherRecipeIsRefusedWithWhatDiffers) {
  const test::TempDir dir;
  Recipe first = recipe(), second = recipe({"model.hidden=6"});
  RunFolder::create(dir / "run", first);
  STOA_EXPECT_CONTAINS(thrown<ConfigError>([&] { RunFolder::create(dir / "run", second); }),
                       "another recipe: `model.hidden` is 5 in the run, 6 in the recipe");
}

TEST(RunFolder, IsNotWrittenByTwoProcesses) {
  const test::TempDir dir;
  const OtherProcess other(dir / "run");
  Recipe own = recipe();
  const std::string expected = format("is in use by process {}", other.pid());
  STOA_EXPECT_CONTAINS(thrown<ConfigError>([&] { RunFolder::create(dir / "run", own); }), expected);
  STOA_EXPECT_CONTAINS(thrown<ConfigError>([&] { RunFolder::resume(dir / "run", &own); }), expected);
}

TEST(RunFolder, IsFreeAgainWhenItsProcessWasKilled) {
  const test::TempDir dir;
  OtherProcess other(dir / "run");
  other.end();
  EXPECT_NO_THROW(RunFolder::resume(dir / "run", nullptr));
}

TEST(RunFolder, CanBeReadWhileItIsWritten) {
  const test::TempDir dir;
  const OtherProcess other(dir / "run");
  EXPECT_NO_THROW(RunFolder::open(dir / "run"));
}

TEST(RunFolder, IsResumedWithItsOwnRecipeOnly) {
  const test::TempDir dir;
  Recipe first = recipe(), second = recipe({"train.steps=13", "optimizer.name=sgd"});
  RunFolder::create(dir / "run", first);
  EXPECT_NO_THROW(RunFolder::resume(dir / "run", &first));
  STOA_EXPECT_CONTAINS(
      thrown<ConfigError>([&] { RunFolder::resume(dir / "run", &second); }),
      "is a run of another recipe: `optimizer.name` is \"adamw\" in the run, \"sgd\" in the recipe");
}

TEST(RunFolder, AnOrdinaryFolderIsNoRun) {
  const test::TempDir dir;
  STOA_EXPECT_CONTAINS(thrown<ConfigError>([&] { RunFolder::open(dir.path()); }), "it has no recipe.toml");
  STOA_EXPECT_CONTAINS(thrown<ConfigError>([&] { RunFolder::resume(dir / "none", nullptr); }),
                       "it does not exist");
}

TEST(RunFolder, AFolderThatCannotBeMadeIsNamed) {
  const test::TempDir dir;
  write_file_atomically(dir / "file", "x");
  Recipe own = recipe();
  STOA_EXPECT_CONTAINS(thrown<IoError>([&] { RunFolder::create(dir / "file/run", own); }),
                       (dir / "file/run").string());
}

TEST(RunFolder, AbandonedItIsFree) {
  const test::TempDir dir;
  Recipe own = recipe();
  RunFolder folder = RunFolder::create(dir / "run", own);
  folder.abandon();
  EXPECT_FALSE(fs::exists(dir / "run"));
}

TEST(RunFolder, AbandonedItKeepsFilesOfOthers) {
  const test::TempDir dir;
  fs::create_directories(dir / "run");
  write_file_atomically(dir / "run/notes.txt", "mine");
  Recipe own = recipe();
  RunFolder folder = RunFolder::create(dir / "run", own);
  folder.abandon();
  EXPECT_EQ(read_file(dir / "run/notes.txt"), "mine");
  EXPECT_THROW(RunFolder::open(dir / "run"), ConfigError);
}

TEST(RunFolder, InfoIsEmptyUntilItIsWritten) {
  const test::TempDir dir;
  Recipe own = recipe();
  const RunFolder folder = RunFolder::create(dir / "run", own);
  EXPECT_EQ(folder.info(), Json::object());
  folder.write_info({{"metadata", {{"classes", {"a", "b"}}}}});
  EXPECT_EQ(RunFolder::open(dir / "run").info()["metadata"]["classes"][1], "b");
}

}  // namespace
}  // namespace stoa
