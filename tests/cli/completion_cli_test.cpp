#include <gtest/gtest.h>

#include "support/program.h"
#include "support/thrown.h"

namespace stoa::test {
namespace {

TEST(Completion, TheScriptOfBashParses) {
  const TempDir folder;
  std::ofstream(folder / "stoa.bash") << run_stoa({"completion", "bash"}).output;
  const Ended ended = RunningProgram({"bash", "-n", "stoa.bash"}, folder.path()).wait();
  EXPECT_EQ(ended.exit_code, 0) << ended.errors;
}

// What bash offers at the end of a command line.
std::vector<std::string> offered(const TempDir& folder, const std::vector<std::string>& words) {
  std::string line;
  for (const std::string& word : words) line += " '" + word + "'";
  std::ofstream(folder / "ask.bash") << run_stoa({"completion", "bash"}).output
                                     << "compopt() { :; }\nCOMP_WORDS=(" << line
                                     << ")\nCOMP_CWORD=" << words.size() - 1
                                     << "\n_stoa\nprintf '%s\\n' \"${COMPREPLY[@]}\"\n";
  std::istringstream lines(RunningProgram({"bash", "ask.bash"}, folder.path()).wait().output);
  std::vector<std::string> found;
  for (std::string word; std::getline(lines, word);) found.push_back(word);
  return found;
}

TEST(Completion, BashOffersCommandsFlagsAndFiles) {
  const TempDir folder;
  write_tiny_recipe(folder / "tiny.toml");
  std::filesystem::create_directory(folder / "tiny-0");
  using Words = std::vector<std::string>;
  EXPECT_EQ(offered(folder, {"stoa", "tr"}), Words{"train"});
  EXPECT_EQ(offered(folder, {"stoa", "train", "ti"}), (Words{"tiny.toml", "tiny-0"}));
  EXPECT_EQ(offered(folder, {"stoa", "train", "--res"}), Words{"--resume"});
  EXPECT_EQ(offered(folder, {"stoa", "train", "--resume", "ti"}), Words{"tiny-0"});
  EXPECT_EQ(offered(folder, {"stoa", "eval", "--checkpoint", "b"}), Words{"best"});
  EXPECT_EQ(offered(folder, {"stoa", "predict", "ti"}), Words{"tiny-0"});
  EXPECT_EQ(offered(folder, {"stoa", "predict", "--checkpoint", "best", "tiny-0", "tiny.t"}),
            Words{"tiny.toml"});
  EXPECT_EQ(offered(folder, {"stoa", "launch", "-n", "2", "--", "tr"}), Words{"train"});
  EXPECT_EQ(offered(folder, {"stoa", "launch", "-n", "2", "--", "train", "--or"}), Words{"--or-resume"});
}

TEST(Completion, TheScriptsOfZshAndFishParse) {
  const TempDir folder;
  int checked = 0;
  for (const std::string shell : {"zsh", "fish"}) {
    const Ended script = run_stoa({"completion", shell, "--json"});
    std::ofstream(folder / shell) << json_of(script).at("script").get<std::string>();
    if (RunningProgram({"sh", "-c", "command -v " + shell}, folder.path()).wait().exit_code != 0) continue;
    const Ended ended = RunningProgram({shell, "-n", shell}, folder.path()).wait();
    EXPECT_EQ(ended.exit_code, 0) << ended.errors;
    ++checked;
  }
  if (checked == 0) GTEST_SKIP() << "neither zsh nor fish is installed";
}

TEST(Completion, AnUnknownShellIsRefused) {
  const Ended ended = run_stoa({"completion", "bsh"});
  EXPECT_EQ(ended.exit_code, 2);
  STOA_EXPECT_CONTAINS(ended.errors, "did you mean `bash`?");
}

}  // namespace
}  // namespace stoa::test
