// `parallel.uneven`: lengths that the parts of a sequence cannot share equally are padded, or refused with
// the numbers.
#include <gtest/gtest.h>

#include <set>

#include "stoa/base/errors.h"
#include "stoa/systems/catalog.h"
#include "stoa/train/plan.h"
#include "support/temp_dir.h"
#include "support/text_runs.h"
#include "support/thrown.h"

namespace stoa {
namespace {

/// The recipe of sequences of 30 tokens, changed.
Recipe recipe_with(const std::vector<std::string>& set) {
  const test::TempDir folder;
  test::write_text(folder.path());
  Config config = Config::from_file(folder / "causal_text.toml");
  for (const auto& assignment : set) config.set(assignment);
  return read_recipe(config, catalog());
}

std::string refusal(std::vector<std::string> set) {
  set.emplace_back("parallel.uneven=refuse");
  return test::thrown<ConfigError>([&] { recipe_with(set); });
}

TEST(UnevenLength, IsPaddedWhereNothingIsSaid) {
  EXPECT_EQ(recipe_with({"parallel.sequence=4"}).parallel.uneven, dist::UnevenLength::kPad);
}

TEST(UnevenLength, IsRefusedWithTheNumbersAndTheLineOfTheLength) {
  const auto text = refusal({"parallel.sequence=4"});
  STOA_EXPECT_CONTAINS(text, "causal_text.toml:8: ");
  STOA_EXPECT_CONTAINS(text,
                       "`data.length` is 30, which `parallel.sequence` = 4 parts in contiguous order cannot "
                       "share equally: a multiple of 4 is needed, such as 28 or 32; or let `parallel.uneven` "
                       "be \"pad\"");
  STOA_EXPECT_CONTAINS(
      refusal({"parallel.sequence=4", "parallel.order=zigzag"}),
      "parts in zigzag order cannot share equally: a multiple of 8 is needed, such as 24 or 32");
  STOA_EXPECT_CONTAINS(refusal({"parallel.sequence=32"}), "a multiple of 32 is needed, such as 32;");
}

TEST(UnevenLength, LetsLengthsPassThatCanBeShared) {
  for (const auto& set : std::vector<std::vector<std::string>>{
           {"parallel.sequence=3", "parallel.order=zigzag"},
           {"parallel.sequence=2", "parallel.order=striped"},
           {"parallel.sequence=4", "data.length=32", "model.positions=32", "parallel.order=zigzag"},
           {}}) {  // whole sequences
    auto refusing = set;
    refusing.emplace_back("parallel.uneven=refuse");
    EXPECT_EQ(recipe_with(refusing).parallel.uneven, dist::UnevenLength::kRefuse);
  }
}

/// Parts of a sequence in the plan for six devices.
std::set<std::int64_t> planned_parts(const std::vector<std::string>& set) {
  const test::TempDir folder;
  test::write_text(folder.path());
  Config config = Config::from_file(folder / "causal_text.toml");
  for (const auto& assignment : set) config.set(assignment);
  Recipe recipe = read_recipe(config, catalog());
  const auto task = recipe.task->build({false, nullptr, {}});
  PlanMachine machine;
  machine.memory = 1e12;
  std::set<std::int64_t> parts;
  for (const auto& planned : plan(plan_model(recipe, *task), 6, machine))
    parts.insert(planned.split.sequence);
  return parts;
}

TEST(UnevenLength, ThatIsRefusedIsNotPlanned) {
  const std::set<std::int64_t> all = {1, 2, 3, 6}, odd = {1, 3};
  EXPECT_EQ(planned_parts({"parallel.order=zigzag"}), all);
  EXPECT_EQ(planned_parts({"parallel.uneven=refuse"}), all);
  EXPECT_EQ(planned_parts({"parallel.order=zigzag", "parallel.uneven=refuse"}), odd);  // 30 tokens
}

}  // namespace
}  // namespace stoa
