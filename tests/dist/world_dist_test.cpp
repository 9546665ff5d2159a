#include "stoa/dist/world.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdlib>
#include <map>
#include <string>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/dist/errors.h"
#include "stoa/dist/free_port.h"
#include "stoa/dist/last_words.h"
#include "stoa/dist/mesh.h"
#include "support/processes.h"
#include "support/thrown.h"

namespace stoa::dist {
namespace {

using test::run_processes;

/// For bodies in which not all come in time: waits until every process runs.
ProcessPlace place_after_meeting() {
  test::meet();
  return read_place();
}

template <class Work>
void print_failure(const Work& work) {
  std::cout << test::thrown<DistributedError>(work) << std::endl;
}

STOA_PROCESS_TEST(World, JoinsAnyNumberOfProcessesThatAgree, 1, 2, 3, 4, 5) {
  EXPECT_FALSE(has_met_others());
  const auto world = World::join(read_place());
  EXPECT_EQ(has_met_others(), world->size() > 1);
  EXPECT_EQ(world->size(), std::atoi(std::getenv("WORLD_SIZE")));
  EXPECT_EQ(world->rank(), std::atoi(std::getenv("RANK")));
  auto t = at::full({1}, world->rank());
  world->all().all_reduce(t);
  EXPECT_EQ(t.item<int>(), world->size() * (world->size() - 1) / 2);
  world->agree("recipe", 17);
  world->agree("data", ~std::uint64_t{0});
}

TEST(World, ACleanEndPrintsNothing) {
  for (const auto& [code, timed_out, seconds, output] :
       run_processes("World_JoinsAnyNumberOfProcessesThatAgree", 3)) {
    EXPECT_EQ(code, 0);
    for (const char* noise : {"[W", "[E", "arning", "rror"})
      EXPECT_EQ(output.find(noise), std::string::npos) << output;
  }
}

STOA_PROCESS_TEST(World, MakesTheGroupsOfAMesh, 4) {
  const auto world = World::join(read_place());
  const Mesh mesh(*world, {.data = 2, .sequence = 2});
  EXPECT_EQ(mesh.coordinates(), coordinates_of(mesh.shape(), world->rank()));
  auto data = at::full({1}, world->rank()), sequence = data.clone(), both = data.clone();
  mesh.data().all_reduce(data);
  mesh.sequence().all_reduce(sequence);
  mesh.data_sequence().all_reduce(both);
  EXPECT_EQ(data.item<int>(), 2 + 2 * (world->rank() % 2));  // {0, 2}, {1, 3}
  EXPECT_EQ(sequence.item<int>(), world->rank() < 2 ? 1 : 5);
  EXPECT_EQ(both.item<int>(), 6);
  EXPECT_EQ(mesh.tensor().size(), 1);
  EXPECT_EQ(mesh.sequence().name(), "sequence");
}

/// Puts the variables of another launcher in the place of torchrun's.
void become_started_by(const std::map<std::string, std::string>& variables) {
  for (const char* name : {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR"})
    ::unsetenv(name);
  for (const auto& [name, value] : variables) ::setenv(name.c_str(), value.c_str(), 1);
}

STOA_PROCESS_TEST(World, JoinsWhatSlurmOrMpiStarted, 3) {
  const std::string rank = std::getenv("RANK");
  // of jobs on this machine alone, so that the address is not looked up
  const std::map<std::string, std::string> slurm = {{"SLURM_PROCID", rank},
                                                    {"SLURM_NTASKS", "3"},
                                                    {"SLURM_LOCALID", rank},
                                                    {"SLURM_NODEID", "0"},
                                                    {"SLURM_TASKS_PER_NODE", "3"},
                                                    {"SLURM_JOB_ID", "17"},
                                                    {"SLURM_JOB_NODELIST", "localhost"}};
  const std::map<std::string, std::string> open_mpi = {{"OMPI_COMM_WORLD_RANK", rank},
                                                       {"OMPI_COMM_WORLD_SIZE", "3"},
                                                       {"OMPI_COMM_WORLD_LOCAL_RANK", rank},
                                                       {"OMPI_COMM_WORLD_LOCAL_SIZE", "3"}};
  become_started_by(slurm);
  for (const std::string launcher : {"Slurm", "Open MPI"}) {
    if (launcher == "Open MPI") become_started_by(open_mpi);
    const auto place = read_place();
    EXPECT_EQ(place.launcher, launcher);
    const auto world = World::join(place);
    EXPECT_EQ(world->rank(), std::stoi(rank));
    auto t = at::full({1}, world->rank());
    world->all().all_reduce(t);
    EXPECT_EQ(t.item<int>(), 3);
  }
}

STOA_PROCESS_BODY(one_rank_disagrees) {
  const auto world = World::join(read_place());
  world->agree("data", 3);
  print_failure([&] { world->agree("recipe", world->rank() == 2 ? 0xbad : 0xfee1); });
}

TEST(World, EveryRankNamesTheOneThatDisagrees) {
  const auto ranks = run_processes("one_rank_disagrees", 4);
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    EXPECT_EQ(ranks[rank].code, 0) << ranks[rank].output;
    STOA_EXPECT_CONTAINS(
        ranks[rank].output,
        format("\nrank {}: agreeing on `recipe` in group `world` failed: rank 2 with `recipe "
               "0000000000000bad`, others with `recipe 000000000000fee1`;",
               rank));
  }
}

STOA_PROCESS_BODY(one_rank_says_all_in_the_name) {
  const auto world = World::join(read_place());
  print_failure([&] { world->agree(world->rank() == 1 ? "fp32" : "bf16", 0); });
}

TEST(World, ANameThatSaysAllStandsAlone) {
  for (const auto& [code, timed_out, seconds, output] : run_processes("one_rank_says_all_in_the_name", 3))
    STOA_EXPECT_CONTAINS(output, "failed: rank 1 with `fp32`, others with `bf16`;");
}

STOA_PROCESS_BODY(one_rank_never_asks) {
  const auto world = World::join(read_place(), {.timeout_s = 1, .join_timeout_s = 60});
  if (world->rank() == 1) {
    for (const int rank : {0, 2}) test::wait_until_told(format("failed {}", rank));
    test::exit_silently(0);
  }
  print_failure([&] { world->agree("recipe", 5); });
  test::tell(format("failed {}", world->rank()));
}

TEST(World, TheRankThatNeverAsksIsNamed) {
  const auto ranks = run_processes("one_rank_never_asks", 3);
  for (const std::size_t rank : {0, 2})
    STOA_EXPECT_CONTAINS(
        ranks[rank].output,
        format("\nrank {}: agreeing on `recipe` in group `world` failed: rank 1 did not come within 1 s;",
               rank));
}

STOA_PROCESS_BODY(one_rank_never_joins) {
  const auto place = place_after_meeting();
  if (place.rank == 1) return;
  print_failure([&] { World::join(place, {.timeout_s = 1}); });
}

TEST(World, TheRankThatNeverJoinsIsNamedWithoutAStackTraceOfLibTorch) {
  const auto ranks = run_processes("one_rank_never_joins", 3);
  for (const std::size_t rank : {0, 2}) {
    const auto& output = ranks[rank].output;
    STOA_EXPECT_CONTAINS(output, "failed: rank 1 did not come within 1 s;");
    for (const char* noise : {"[W", "[E", "frame #"})
      EXPECT_EQ(output.find(noise), std::string::npos) << output;
  }
}

STOA_PROCESS_BODY(one_rank_of_another_world) {
  auto place = place_after_meeting();
  if (place.rank == 2) place.world = 2 + 2;
  print_failure([&] { World::join(place, {.timeout_s = 1}); });
}

TEST(World, TheRankStartedWithAnotherNumberIsNamed) {
  const auto ranks = run_processes("one_rank_of_another_world", 3);
  for (const std::size_t rank : {0, 1})
    STOA_EXPECT_CONTAINS(ranks[rank].output, "failed: rank 2 was started as one of 4;");
}

STOA_PROCESS_BODY(two_of_one_rank) {
  auto place = place_after_meeting();
  place.world = 2;
  if (place.rank == 2) place.rank = 1;
  const auto world = [&]() -> std::shared_ptr<World> {
    try {
      return World::join(place);
    } catch (const DistributedError& error) {
      std::cout << error.what() << std::endl;
      return nullptr;
    }
  }();
  test::meet("end");  // before rank 0 closes the store
}

TEST(World, ASecondProcessOfOneRankIsRefused) {
  const auto ranks = run_processes("two_of_one_rank", 3);
  const auto refused = [&](std::size_t rank) {
    return ranks[rank].output.find("another process came as rank 1;") != std::string::npos;
  };
  EXPECT_NE(refused(1), refused(2)) << ranks[1].output << ranks[2].output;
}

TEST(World, SaysThatThePortIsInUse) {
  const int socket = ::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in6 address{};
  address.sin6_family = AF_INET6;
  address.sin6_addr = in6addr_any;
  socklen_t length = sizeof address;
  auto* const at = reinterpret_cast<sockaddr*>(&address);
  if (socket < 0 || ::bind(socket, at, length) != 0 || ::listen(socket, 1) != 0)
    GTEST_SKIP() << "no IPv6 here";
  ASSERT_EQ(::getsockname(socket, at, &length), 0);
  ProcessPlace place{.world = 2, .local_world = 2, .port = ntohs(address.sin6_port)};
  const auto message = test::thrown<DistributedError>([&] { World::join(place, {.timeout_s = 2}); });
  EXPECT_EQ(message,
            format("rank 0: joining 2 processes at 127.0.0.1:{} failed: the port is in use; end the run that "
                   "holds it or set MASTER_PORT to a free one",
                   place.port));
  ::close(socket);
}

TEST(World, SaysThatNobodyAnswers) {
  const ProcessPlace place{.rank = 1, .world = 2, .local_rank = 1, .local_world = 2, .port = free_port()};
  const auto message = test::thrown<DistributedError>([&] { World::join(place, {.timeout_s = 0.2}); });
  STOA_EXPECT_CONTAINS(message, "rank 1: joining 2 processes");
  STOA_EXPECT_CONTAINS(message,
                       "nothing answered within 0.2 s; start rank 0, and check MASTER_ADDR and MASTER_PORT");
}

TEST(World, RefusesAnInterfaceThatIsNotThere) {
  for (const auto& [code, timed_out, seconds, output] :
       run_processes("World_JoinsAnyNumberOfProcessesThatAgree", 2,
                     {.environment = {{"GLOO_SOCKET_IFNAME", "no-such0"}}})) {
    EXPECT_NE(code, 0);
    STOA_EXPECT_CONTAINS(output, "opening the network interface");
  }
}

TEST(World, RefusesGroupsOfUnfitRanks) {
  const auto world = World::join({});
  STOA_EXPECT_CONTAINS(test::thrown<ConfigError>([&] {
                         world->make_group("x", {0, 0});
                       }),
                       "group `x` cannot have rank 0");
  STOA_EXPECT_CONTAINS(test::thrown<ConfigError>([&] { world->make_group("x", {1}); }), "below 1");
  STOA_EXPECT_CONTAINS(test::thrown<ConfigError>([&] { world->make_group("x", {}); }), "has no ranks");
}

// --- the support for tests itself
// ----------------------------------------------------------------------------

STOA_PROCESS_BODY(fails_in_rank_1) {
  EXPECT_NE(std::getenv("RANK"), std::string("1")) << "told";
}

TEST(Processes, AFailedExpectationIsACodeAndShown) {
  const auto ranks = run_processes("fails_in_rank_1", 2);
  EXPECT_EQ(ranks[0].code, 0);
  EXPECT_EQ(ranks[1].code, 1);
  STOA_EXPECT_CONTAINS(ranks[1].output, "told");
}

STOA_PROCESS_BODY(never_ends) {
  if (::fork() == 0) ::pause();
  std::cout << "has begun" << std::endl;
  test::meet();
  ::pause();
}

TEST(Processes, WhatNeverEndsIsKilled) {
  for (const auto& [code, timed_out, seconds, output] : run_processes("never_ends", 2, {.timeout_s = 1})) {
    EXPECT_EQ(code, -SIGKILL);
    EXPECT_TRUE(timed_out);
  }
}

TEST(Processes, ABodyThatIsNotThereIsAnError) {
  STOA_EXPECT_CONTAINS(test::thrown<std::runtime_error>([] { run_processes("no_such_body", 1); }),
                       "no STOA_PROCESS_BODY(no_such_body)");
}

}  // namespace
}  // namespace stoa::dist
