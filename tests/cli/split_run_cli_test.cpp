// What several processes trained is evaluated and asked by one, as what one process trained is.
#include <gtest/gtest.h>

#include <cmath>

#include "stoa/base/files.h"
#include "support/program.h"
#include "support/temp_dir.h"
#include "support/text_runs.h"

namespace stoa::test {
namespace {

/// Equal names, texts and numbers, those but for rounding in fp32.
void expect_alike(const Json& found, const Json& wanted, const std::string& where) {
  if (wanted.is_number()) {
    ASSERT_TRUE(found.is_number()) << where;
    const auto number = wanted.get<double>();
    EXPECT_NEAR(found.get<double>(), number, 1e-5 * (1 + std::abs(number))) << where;
    return;
  }
  ASSERT_EQ(found.type(), wanted.type()) << where;
  ASSERT_EQ(found.size(), wanted.size()) << where;
  if (wanted.is_object()) {
    for (const auto& [key, value] : wanted.items()) {
      ASSERT_TRUE(found.contains(key)) << where << "." << key;
      expect_alike(found[key], value, where + "." + key);
    }
  } else if (wanted.is_array()) {
    for (std::size_t i = 0; i < wanted.size(); ++i)
      expect_alike(found[i], wanted[i], where + "[" + std::to_string(i) + "]");
  } else {
    EXPECT_EQ(found, wanted) << where;
  }
}

/// Parts of sequences, and of the weights themselves (ZeRO 3), are those of one model again.
TEST(SplitRun, IsEvaluatedAndAskedAsThatOfOneProcess) {
  const TempDir folder;
  write_text(folder.path());
  const auto run = [&](std::vector<std::string> arguments) {
    const Ended ended = run_stoa(arguments, folder.path());
    EXPECT_EQ(ended.exit_code, 0) << ended.errors;
    return ended;
  };
  run({"train", "masked_text.toml", "--out", "one", "-q"});
  run({"launch", "-n", "2", "--", "train", "masked_text.toml", "--out", "many", "-q", "--set",
       "parallel.sequence=2", "--set", "parallel.zero=3"});
  if (HasFailure()) return;
  const auto answers = [&](const std::string& of) {
    return json_of(run({"predict", of, "w1 w2 [MASK] w4 .", "w7 [MASK] w9 w10 w11 .", "--json", "-q"}))
        .at("predictions");
  };
  const Json wanted = Json::parse(read_file(folder / "one/evaluation.json")).at("metrics");
  const Json told = answers("one");
  EXPECT_GT(wanted.size(), 2u);
  EXPECT_EQ(told.size(), 2u);
  expect_alike(json_of(run({"eval", "many", "--json", "-q"})).at("metrics"), wanted, "metrics");
  expect_alike(answers("many"), told, "predictions");
}

}  // namespace
}  // namespace stoa::test
