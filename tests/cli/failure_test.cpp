#include <ATen/ATen.h>
#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <new>

#include "stoa/base/errors.h"
#include "stoa/cli/program.h"
#include "support/thrown.h"

namespace stoa::cli {
namespace {

template <class Work>
Failure failure_of(const Work& work) {
  try {
    work();
  } catch (...) {
    return current_failure();
  }
  return {};
}

TEST(Failure, ErrorsKeepTheirMessageAndTheirExitCode) {
  const Failure failure = failure_of([] { throw DataError("images.gz: truncated"); });
  EXPECT_EQ(failure.line, "images.gz: truncated");
  EXPECT_EQ(failure.exit_code, 3);
}

TEST(Failure, IsOneLine) {
  EXPECT_EQ(failure_of([] { throw ConfigError("a\nb"); }).line, "a b");
  EXPECT_EQ(failure_of([] { throw std::runtime_error("first\nsecond"); }).line, "first");
}

TEST(Failure, NoMemoryIsExitCodeFour) {
  const Failure failure = failure_of([] { throw std::bad_alloc(); });
  EXPECT_EQ(failure.exit_code, 4);
  STOA_EXPECT_CONTAINS(failure.line, "train.micro_batch_size");
}

TEST(Failure, ATensorThatDoesNotFitIsExitCodeFourAndNamesItsSize) {
  const Failure failure = failure_of([] { at::empty({std::int64_t{1} << 48}, at::kByte); });
  EXPECT_EQ(failure.exit_code, 4);
  STOA_EXPECT_CONTAINS(failure.line, "256.0 TiB");
}

TEST(Failure, AGpuWithoutMemoryIsExitCodeFour) {
  const Failure failure = failure_of([] { TORCH_CHECK_WITH(OutOfMemoryError, false, "no memory left"); });
  EXPECT_EQ(failure.exit_code, 4);
}

TEST(Failure, LibTorchErrorsShowNoStackTrace) {
  const Failure failure = failure_of([] { at::ones({2, 3}).mm(at::ones({2, 3})); });
  EXPECT_EQ(failure.exit_code, 1);
  EXPECT_EQ(failure.line, "LibTorch: mat1 and mat2 shapes cannot be multiplied (2x3 and 2x3)");
}

}  // namespace
}  // namespace stoa::cli
