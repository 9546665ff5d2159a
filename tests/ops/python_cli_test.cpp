// The operators from Python, where they are torch.ops.stoa.*.
#include <gtest/gtest.h>

#include <cstdlib>

#include "support/program.h"

namespace stoa::test {
namespace {

TEST(Python, HasTheOperatorsWithTheirGradients) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "a library built with the address sanitizer does not load into Python";
#endif
  const std::filesystem::path library =
      std::filesystem::path(STOA_PROGRAM).parent_path() / "src/stoa/libstoa.so";
  const char* const inherited = std::getenv("PYTHONPATH");
  std::string variable = "PYTHONPATH=" STOA_SOURCE_DIR "/.deps/python:";
  if (inherited != nullptr) variable += inherited;
  const std::vector<std::string> path = {variable};
  const auto folder = std::filesystem::temp_directory_path();
  if (RunningProgram({"python3", "-c", "import torch"}, folder, path).wait().exit_code != 0)
    GTEST_SKIP() << "python3 cannot import torch";
  const auto ended =
      RunningProgram({"python3", STOA_SOURCE_DIR "/tests/ops/operators.py", library.string()}, folder, path)
          .wait();
  EXPECT_EQ(ended.exit_code, 0) << ended.errors;
  EXPECT_EQ(ended.output, "alike\n") << ended.errors;
}

}  // namespace
}  // namespace stoa::test
