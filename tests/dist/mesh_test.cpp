#include "stoa/dist/mesh.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "stoa/base/errors.h"
#include "support/thrown.h"

namespace stoa::dist {
namespace {

using Ranks = std::vector<int>;

Ranks group_with(const MeshShape& shape, GroupKind kind, int rank) {
  for (const auto& group : groups_of(shape, kind))
    if (std::ranges::find(group, rank) != group.end()) return group;
  return {};
}

/// Every (pipeline, data, sequence, tensor, expert) with `ranks` ranks.
std::vector<MeshShape> factorisations(std::int64_t ranks) {
  std::vector<MeshShape> shapes;
  for (std::int64_t p = 1; p <= ranks; ++p)
    for (std::int64_t d = 1; p * d <= ranks; ++d)
      for (std::int64_t s = 1; p * d * s <= ranks; ++s)
        for (std::int64_t e = 1; e <= d; ++e)
          if (ranks % (p * d * s) == 0 && d % e == 0) shapes.push_back({p, d, s, ranks / (p * d * s), e});
  return shapes;
}

std::string text_of(const MeshShape& shape) {
  return testing::PrintToString(
      std::vector{shape.pipeline, shape.data, shape.sequence, shape.tensor, shape.expert});
}

// the table of the specification, section 7
TEST(Mesh, Rank11OfTwoByTwoByTwoByTwo) {
  const MeshShape shape{2, 2, 2, 2};
  EXPECT_EQ(coordinates_of(shape, 11), (Coordinates{.pipeline = 1, .data = 0, .sequence = 1, .tensor = 1}));
  EXPECT_EQ(group_with(shape, GroupKind::kSequence, 11), (Ranks{9, 11}));
  EXPECT_EQ(group_with(shape, GroupKind::kTensor, 11), (Ranks{10, 11}));
  EXPECT_EQ(group_with(shape, GroupKind::kData, 11), (Ranks{11, 15}));
  EXPECT_EQ(group_with(shape, GroupKind::kPipeline, 11), (Ranks{3, 11}));
  EXPECT_EQ(group_with(shape, GroupKind::kDataSequence, 11), (Ranks{9, 11, 13, 15}));
  EXPECT_EQ(group_with(shape, GroupKind::kStage, 11), (Ranks{8, 9, 10, 11, 12, 13, 14, 15}));
}

// blocks of W / P consecutive ranks would join ranks of two stages where the stages are not outermost
TEST(Mesh, GradientsAreSummedWithinAStage) {
  const MeshShape shape{.pipeline = 2, .data = 2, .sequence = 2, .tensor = 1};
  EXPECT_EQ(groups_of(shape, GroupKind::kDataSequence), (std::vector<Ranks>{{0, 1, 2, 3}, {4, 5, 6, 7}}));
  for (const auto& shape : factorisations(8))
    for (const auto& group : groups_of(shape, GroupKind::kDataSequence))
      for (const int rank : group) {
        EXPECT_EQ(coordinates_of(shape, rank).pipeline, coordinates_of(shape, group[0]).pipeline);
        EXPECT_EQ(coordinates_of(shape, rank).tensor, coordinates_of(shape, group[0]).tensor);
      }
}

TEST(Mesh, RankAndCoordinatesAreInverse) {
  for (const auto& shape : factorisations(12))
    for (std::int64_t rank = 0; rank < shape.size(); ++rank)
      EXPECT_EQ(rank_of(shape, coordinates_of(shape, rank)), rank) << text_of(shape);
}

TEST(Mesh, EveryRankIsInExactlyOneGroupOfEachKind) {
  for (const std::int64_t ranks : {8, 12})
    for (const auto& shape : factorisations(ranks))
      for (const GroupKind kind : kGroupKinds) {
        std::map<int, int> seen;
        for (const auto& group : groups_of(shape, kind))
          for (const int rank : group) ++seen[rank];
        ASSERT_EQ(static_cast<std::int64_t>(seen.size()), ranks) << text_of(shape) << name_of(kind);
        for (const auto& [rank, times] : seen) EXPECT_EQ(times, 1) << text_of(shape) << name_of(kind) << rank;
      }
}

TEST(Mesh, GroupsHaveTheSizeOfTheirDegrees) {
  for (const auto& shape : factorisations(12)) {
    const std::map<GroupKind, std::int64_t> sizes{{GroupKind::kPipeline, shape.pipeline},
                                                  {GroupKind::kData, shape.data},
                                                  {GroupKind::kSequence, shape.sequence},
                                                  {GroupKind::kTensor, shape.tensor},
                                                  {GroupKind::kDataSequence, shape.data * shape.sequence},
                                                  {GroupKind::kStage, shape.size() / shape.pipeline},
                                                  {GroupKind::kExpert, shape.expert},
                                                  {GroupKind::kExpertData, shape.data / shape.expert}};
    for (const auto& [kind, size] : sizes)
      for (const auto& group : groups_of(shape, kind)) {
        EXPECT_EQ(static_cast<std::int64_t>(group.size()), size) << text_of(shape) << name_of(kind);
        EXPECT_TRUE(std::ranges::is_sorted(group));
      }
  }
}

TEST(Mesh, ExpertBlocksAreConsecutiveReplicas) {
  const MeshShape shape{.data = 4, .sequence = 2, .expert = 2};
  EXPECT_EQ(groups_of(shape, GroupKind::kExpert), (std::vector<Ranks>{{0, 2}, {1, 3}, {4, 6}, {5, 7}}));
  EXPECT_EQ(groups_of(shape, GroupKind::kExpertData), (std::vector<Ranks>{{0, 4}, {1, 5}, {2, 6}, {3, 7}}));
}

TEST(Mesh, OneProcessIsInEightGroupsOfOne) {
  const auto world = World::join({});
  const Mesh mesh(*world, {});
  for (const GroupKind kind : kGroupKinds) EXPECT_EQ(mesh.group(kind).size(), 1) << name_of(kind);
  EXPECT_EQ(mesh.world().size(), 1);
}

TEST(Mesh, NamesAllFiveNumbersWhereTheyDoNotFit) {
  const auto world = World::join({});
  const auto message = test::thrown<ConfigError>(
      [&] { Mesh(*world, {.data = 2, .sequence = 3, .tensor = 5, .pipeline = 7}); });
  STOA_EXPECT_CONTAINS(message,
                       "1 processes run, but [parallel] asks for pipeline 7 x data 2 x sequence 3 x "
                       "tensor 5 = 210");
}

TEST(Mesh, RefusesDegreesThatMakeNoSense) {
  const auto refused = [](const ParallelOptions& options) {
    return test::thrown<ConfigError>([&] { options.validate(); });
  };
  STOA_EXPECT_CONTAINS(refused({.data = -1}), "`parallel.data` is -1");
  STOA_EXPECT_CONTAINS(refused({.sequence = 0}), "`parallel.sequence` is 0");
  STOA_EXPECT_CONTAINS(refused({.tensor = -2}), "`parallel.tensor` is -2");
  STOA_EXPECT_CONTAINS(refused({.data = 6, .expert = 4}),
                       "`parallel.expert` is 4; it must divide `parallel.data`, which is 6");
  STOA_EXPECT_CONTAINS(refused({.zero = 4}), "`parallel.zero` is 4");
  STOA_EXPECT_CONTAINS(refused({.timeout = 0}), "`parallel.timeout` is 0");
  STOA_EXPECT_CONTAINS(refused({.data = 1 << 20, .sequence = 1 << 20}), "1048576 are the most");
}

TEST(ParallelOptions, GiveReplicasWhatTheOthersLeave) {
  EXPECT_EQ(ParallelOptions{}.for_processes(6).data, 6);
  EXPECT_EQ((ParallelOptions{.sequence = 2, .tensor = 3}).for_processes(12).data, 2);
  EXPECT_EQ((ParallelOptions{.data = 3}).for_processes(12).data, 3);
  EXPECT_EQ((ParallelOptions{.sequence = 4}).for_processes(1).data, 1);
  STOA_EXPECT_CONTAINS(test::thrown<ConfigError>([] { ParallelOptions{.expert = 4}.for_processes(6); }),
                       "`parallel.expert` is 4; it must divide `parallel.data`, which is 6");
}

TEST(ParallelOptions, AreRefittedToTheProcessesThatGoOn) {
  const ParallelOptions before{.data = 2, .sequence = 4, .expert = 2, .ulysses = 2};
  EXPECT_EQ(before.refitted(8).sequence, 4);
  EXPECT_EQ(before.refitted(8).data, 0);
  EXPECT_EQ(before.refitted(4).expert, 1);
  EXPECT_EQ(before.refitted(6).sequence, 1);
  EXPECT_EQ(before.refitted(6).ulysses, 1);
  EXPECT_EQ(before.refitted(1).for_processes(1).size(), 1);
}

TEST(Mesh, TheTableShowsRanksAndGroups) {
  const auto table = mesh_table({2, 2, 2, 2});
  STOA_EXPECT_CONTAINS(table, "\n  11         1     0         1       1\n");
  STOA_EXPECT_CONTAINS(table, "\nsequence      {0 2} {1 3} {4 6} {5 7} {8 10} {9 11} {12 14} {13 15}\n");
}

}  // namespace
}  // namespace stoa::dist
