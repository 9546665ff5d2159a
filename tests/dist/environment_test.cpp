#include "stoa/dist/environment.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "stoa/base/errors.h"
#include "support/thrown.h"

namespace stoa::dist {
namespace {

using Variables = std::map<std::string, std::string>;

ProcessPlace place_of(const Variables& variables) {
  return read_place([&](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

std::string refused(const Variables& variables) {
  return test::thrown<ConfigError>([&] { place_of(variables); });
}

Variables torchrun() {
  return {{"RANK", "5"},
          {"WORLD_SIZE", "8"},
          {"LOCAL_RANK", "1"},
          {"LOCAL_WORLD_SIZE", "4"},
          {"MASTER_ADDR", "node7"},
          {"MASTER_PORT", "1234"},
          {"TORCHELASTIC_USE_AGENT_STORE", "True"},
          {"TORCHELASTIC_RUN_ID", "none"},
          {"TORCHELASTIC_RESTART_COUNT", "2"}};
}

Variables slurm() {
  return {{"SLURM_PROCID", "5"},      {"SLURM_NTASKS", "7"},           {"SLURM_LOCALID", "1"},
          {"SLURM_NODEID", "1"},      {"SLURM_TASKS_PER_NODE", "4,3"}, {"SLURM_JOB_NODELIST", "gpu[07-08]"},
          {"SLURM_JOB_ID", "1234567"}};
}

TEST(Environment, WithoutALauncherThereIsOneProcess) {
  const auto place = place_of({});
  EXPECT_EQ(place.rank, 0);
  EXPECT_EQ(place.world, 1);
  EXPECT_EQ(place.launcher, "");
}

TEST(Environment, ReadsTorchrun) {
  const auto place = place_of(torchrun());
  EXPECT_EQ(place.rank, 5);
  EXPECT_EQ(place.world, 8);
  EXPECT_EQ(place.local_rank, 1);
  EXPECT_EQ(place.local_world, 4);
  EXPECT_EQ(place.address, "node7");
  EXPECT_EQ(place.port, 1234);
  EXPECT_TRUE(place.store_is_served);
  EXPECT_EQ(place.attempt, 2);
  EXPECT_EQ(place.launcher, "torchrun");
}

TEST(Environment, RankAndWorldSizeAloneMeanOneMachine) {
  const auto place = place_of({{"RANK", "1"}, {"WORLD_SIZE", "3"}});
  EXPECT_EQ(place.local_rank, 1);
  EXPECT_EQ(place.local_world, 3);
  EXPECT_EQ(place.address, "127.0.0.1");
  EXPECT_EQ(place.port, 29500);
  EXPECT_FALSE(place.store_is_served);
}

TEST(Environment, TheAgentServesTheStoreOnlyWhereItSaysTrue) {
  auto variables = torchrun();
  variables["TORCHELASTIC_USE_AGENT_STORE"] = "False";
  EXPECT_FALSE(place_of(variables).store_is_served);
}

TEST(Environment, ReadsOpenMpi) {
  const auto place = place_of({{"OMPI_COMM_WORLD_RANK", "3"},
                               {"OMPI_COMM_WORLD_SIZE", "4"},
                               {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                               {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"},
                               {"MASTER_ADDR", "10.0.0.1"},
                               {"MASTER_PORT", "4000"}});
  EXPECT_EQ(place.rank, 3);
  EXPECT_EQ(place.world, 4);
  EXPECT_EQ(place.local_rank, 1);
  EXPECT_EQ(place.local_world, 2);
  EXPECT_EQ(place.address, "10.0.0.1");
  EXPECT_EQ(place.port, 4000);
  EXPECT_EQ(place.launcher, "Open MPI");
}

TEST(Environment, ReadsMpichOnOneMachine) {
  const auto place =
      place_of({{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}, {"MPI_LOCALRANKID", "1"}, {"MPI_LOCALNRANKS", "2"}});
  EXPECT_EQ(place.rank, 1);
  EXPECT_EQ(place.local_rank, 1);
  EXPECT_EQ(place.local_world, 2);
  EXPECT_EQ(place.address, "127.0.0.1");
}

TEST(Environment, ReadsSlurm) {
  const auto place = place_of(slurm());
  EXPECT_EQ(place.rank, 5);
  EXPECT_EQ(place.world, 7);
  EXPECT_EQ(place.local_rank, 1);
  EXPECT_EQ(place.local_world, 3);
  EXPECT_EQ(place.address, "gpu07");
  EXPECT_EQ(place.port, 24567);
  EXPECT_EQ(place.launcher, "Slurm");
}

TEST(Environment, TheFirstHostOfEveryFormOfSlurmsList) {
  const std::pair<const char*, const char*> lists[] = {{"login", "login"},
                                                       {"a,b,c", "a"},
                                                       {"n[3,5-9],x", "n3"},
                                                       {"rack[1-2]node[04-08]-ib", "rack1node04-ib"}};
  for (const auto& [list, host] : lists) {
    auto variables = slurm();
    variables["SLURM_STEP_NODELIST"] = list;
    EXPECT_EQ(place_of(variables).address, host) << list;
  }
}

TEST(Environment, TasksOfANodeInSlurmsRepeatedForm) {
  auto variables = slurm();
  variables["SLURM_NTASKS"] = "11";
  variables["SLURM_STEP_TASKS_PER_NODE"] = "2(x3),5";
  for (const auto& [node, tasks] : {std::pair("0", 2), std::pair("2", 2), std::pair("3", 5)}) {
    variables["SLURM_NODEID"] = node;
    EXPECT_EQ(place_of(variables).local_world, tasks) << node;
  }
}

TEST(Environment, MasterVariablesGoBeforeSlurmsOwn) {
  auto variables = slurm();
  variables["MASTER_ADDR"] = "head";
  variables["MASTER_PORT"] = "77";
  EXPECT_EQ(place_of(variables).address, "head");
  EXPECT_EQ(place_of(variables).port, 77);
}

TEST(Environment, AShellInASlurmAllocationIsOneProcess) {
  auto variables = slurm();
  variables.erase("SLURM_PROCID");
  EXPECT_EQ(place_of(variables).world, 1);
  EXPECT_EQ(place_of({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "1"}}).world, 1);
}

TEST(Environment, TheVariablesOfTorchrunGoFirst) {
  auto variables = slurm();
  variables.merge(torchrun());
  EXPECT_EQ(place_of(variables).world, 8);
}

TEST(Environment, HalfAPairIsRefusedByName) {
  EXPECT_EQ(refused({{"RANK", "3"}}), "RANK is set to `3` but WORLD_SIZE is not set; a launcher sets both");
  EXPECT_EQ(refused({{"WORLD_SIZE", "3"}}),
            "WORLD_SIZE is set to `3` but RANK is not set; a launcher sets both");
  STOA_EXPECT_CONTAINS(refused({{"PMI_SIZE", "3"}}), "PMI_RANK is not set");
  STOA_EXPECT_CONTAINS(refused({{"OMPI_COMM_WORLD_RANK", "0"}}), "OMPI_COMM_WORLD_SIZE is not set");
  STOA_EXPECT_CONTAINS(refused({{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"LOCAL_WORLD_SIZE", "2"}}),
                       "LOCAL_RANK is not set");
}

TEST(Environment, ValuesOutOfRangeAreRefusedWithTheRange) {
  const auto with = [](const char* name, const char* value) {
    auto variables = torchrun();
    variables[name] = value;
    return refused(variables);
  };
  EXPECT_EQ(with("RANK", "8"), "RANK is `8`; a whole number from 0 to 7 is needed");
  EXPECT_EQ(with("WORLD_SIZE", "0"), "WORLD_SIZE is `0`; a whole number of at least 1 is needed");
  EXPECT_EQ(with("RANK", "-1"), "RANK is `-1`; a whole number from 0 to 7 is needed");
  EXPECT_EQ(with("LOCAL_RANK", "4"), "LOCAL_RANK is `4`; a whole number from 0 to 3 is needed");
  EXPECT_EQ(with("LOCAL_WORLD_SIZE", "9"), "LOCAL_WORLD_SIZE is `9`; a whole number from 1 to 8 is needed");
  for (const char* port : {"0", "65536", "80x", "99999999999999999999", " 80"})
    STOA_EXPECT_CONTAINS(with("MASTER_PORT", port), "a whole number from 1 to 65535 is needed");
}

TEST(Environment, SeveralMachinesNeedAnAddress) {
  auto variables = torchrun();
  variables.erase("MASTER_ADDR");
  STOA_EXPECT_CONTAINS(refused(variables),
                       "MASTER_ADDR is not set, and 4 of 8 processes run on this machine");
}

TEST(Environment, BrokenSlurmListsAreRefused) {
  for (const char* list : {"gpu[07-08", "gpu[]", ",a", "[-3]"}) {
    auto variables = slurm();
    variables["SLURM_JOB_NODELIST"] = list;
    STOA_EXPECT_CONTAINS(refused(variables), "SLURM_JOB_NODELIST is `" + std::string(list) + "`");
  }
  for (const char* counts : {"x", "4(", "4(x", "0", "4(x2", "3;4"}) {
    auto variables = slurm();
    variables["SLURM_TASKS_PER_NODE"] = counts;
    STOA_EXPECT_CONTAINS(refused(variables), "counts such as `4(x2),3` are needed");
  }
}

}  // namespace
}  // namespace stoa::dist
