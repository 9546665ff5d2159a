// Runs one test file. Says so when every test of it was skipped, so that ctest can report the file as
// skipped.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>

int main(int argc, char** argv) {
  // a process of support/processes.h knows what to run; the command line is that of its test program
  if (std::getenv("STOA_TEST_BODY") != nullptr) argc = 1;
  ::testing::InitGoogleTest(&argc, argv);
  const int result = RUN_ALL_TESTS();
  const auto& unit = *::testing::UnitTest::GetInstance();
  if (unit.test_to_run_count() > 0 && unit.skipped_test_count() == unit.test_to_run_count())
    std::puts("every test of this file was skipped");
  return result;
}
