#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "support/program.h"

namespace stoa::test {

/// The environment in which torchrun is found: LibTorch's own Python package, and where bench/run.sh keeps
/// the packages that this needs.
inline std::vector<std::string> torchrun_environment() {
  std::string path = "PYTHONPATH=" STOA_SOURCE_DIR "/.deps/python:" STOA_SOURCE_DIR "/.deps/bench";
  if (const char* const inherited = std::getenv("PYTHONPATH")) path += std::string(":") + inherited;
  return {path};
}

/// `torchrun` that starts `command` as so many ranks of this machine.
inline std::vector<std::string> torchrun(int ranks, int restarts, const std::vector<std::string>& command) {
  std::vector<std::string> words = {"env", "python3", "-m", "torch.distributed.run", "--standalone"};
  words.push_back("--nproc-per-node=" + std::to_string(ranks));
  words.push_back("--max-restarts=" + std::to_string(restarts));
  words.emplace_back("--no-python");
  words.insert(words.end(), command.begin(), command.end());
  return words;
}

/// What Python or torchrun lacked; empty where it lacked nothing. Told from its end and not tried before,
/// since the start alone takes two seconds.
inline std::string missing_module(const Ended& torchrun) {
  std::istringstream lines(torchrun.errors);
  for (std::string line; std::getline(lines, line);)
    for (const char* sign : {"No module named ", "ImportError: ", "OSError: ", "env: "})
      if (torchrun.exit_code != 0 && line.find(sign) != std::string::npos) return line;
  return "";
}

}  // namespace stoa::test

/// Skips the test, with the reason, where torchrun ended because it does not run here.
#define STOA_SKIP_WITHOUT_TORCHRUN(ended)                                     \
  if (const auto lacks = ::stoa::test::missing_module(ended); !lacks.empty()) \
  GTEST_SKIP() << "torchrun does not run here: " << lacks
