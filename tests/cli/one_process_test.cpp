#include "stoa/cli/one_process.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <string>

#include "stoa/base/errors.h"
#include "support/thrown.h"

namespace stoa::cli {
namespace {

/// Variables of a launcher, as long as this lives.
class Variables {
 public:
  explicit Variables(std::map<std::string, std::string> values) : values_(std::move(values)) {
    for (const auto& [name, value] : values_) ::setenv(name.c_str(), value.c_str(), 1);
  }
  ~Variables() {
    for (const auto& [name, value] : values_) ::unsetenv(name.c_str());
  }
  Variables(const Variables&) = delete;
  Variables& operator=(const Variables&) = delete;

 private:
  std::map<std::string, std::string> values_;
};

std::map<std::string, std::string> torchrun(const std::string& rank) {
  return {{"RANK", rank}, {"WORLD_SIZE", "4"}, {"LOCAL_RANK", rank}, {"LOCAL_WORLD_SIZE", "4"}};
}
std::map<std::string, std::string> slurm(const std::string& task) {
  return {{"SLURM_PROCID", task}, {"SLURM_LOCALID", task},       {"SLURM_NTASKS", "4"},
          {"SLURM_NODEID", "0"},  {"SLURM_TASKS_PER_NODE", "4"}, {"SLURM_JOB_NODELIST", "localhost"},
          {"SLURM_JOB_ID", "17"}};
}

TEST(OneProcess, IsNoneOfSeveral) {
  require_one_process("eval");
  for (const char* rank : {"0", "3"}) {
    const Variables variables(torchrun(rank));
    EXPECT_EQ(test::thrown<ConfigError>([] { require_one_process("eval"); }),
              "eval is the work of one process, and 4 were started, each of which would do all of it; run "
              "`stoa eval` itself, without a launcher");
  }
}

TEST(OneProcess, IsABatchScriptOfSlurm) {
  {
    const Variables script(slurm("0"));
    require_one_process("eval");
  }
  const Variables task(slurm("1"));
  STOA_EXPECT_CONTAINS(test::thrown<ConfigError>([] { require_one_process("eval"); }), "4 were started");
}

TEST(AnotherSaysIt, WhereOneOfThisMachineWasStartedBefore) {
  EXPECT_FALSE(another_says_it());
  for (const auto& [rank, expected] : {std::pair("0", false), {"1", true}, {"3", true}}) {
    const Variables variables(torchrun(rank));
    EXPECT_EQ(another_says_it(), expected) << rank;
  }
  auto first_of_second_machine = torchrun("2");
  first_of_second_machine["LOCAL_RANK"] = "0";
  first_of_second_machine["LOCAL_WORLD_SIZE"] = "2";
  first_of_second_machine["MASTER_ADDR"] = "host0";
  const Variables variables(first_of_second_machine);
  EXPECT_FALSE(another_says_it());
}

TEST(AnotherSaysIt, NotWhatIsWrongWithVariablesOfALauncher) {
  auto variables = torchrun("1");
  variables["LOCAL_RANK"] = "17";
  const Variables wrong(variables);
  EXPECT_FALSE(another_says_it());
}

}  // namespace
}  // namespace stoa::cli
