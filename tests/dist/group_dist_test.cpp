#include "stoa/dist/group.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <vector>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/dist/errors.h"
#include "stoa/dist/world.h"
#include "support/processes.h"
#include "support/thrown.h"

namespace stoa::dist {
namespace {

using test::run_processes;

std::shared_ptr<World> join(double timeout_s = 60) {
  return World::join(read_place(), {.timeout_s = timeout_s, .join_timeout_s = 60});
}

std::vector<int> first_ranks(int count) {
  std::vector<int> ranks(static_cast<std::size_t>(count));
  std::iota(ranks.begin(), ranks.end(), 0);
  return ranks;
}

/// Calls f with the group of the first 1, 2, ... processes, in those that belong to it.
template <class F>
void for_each_size(World& world, const F& f) {
  for (int size = 1; size <= world.size(); ++size)
    if (const auto group = world.make_group(format("first {}", size), first_ranks(size))) f(*group);
}

/// Small whole numbers, which every type holds, and so do their sums: element i of a rank is i % 5 + rank.
at::Tensor numbers(at::IntArrayRef shape, int rank, at::ScalarType type = at::kFloat) {
  return (at::arange(c10::multiply_integers(shape)).remainder(5) + rank).view(shape).to(type);
}

const std::vector<std::vector<std::int64_t>> kShapes{{1}, {7}, {3, 5}, {2, 0}, {1001}, {}};
const std::vector<at::ScalarType> kSummed{at::kFloat, at::kDouble, at::kBFloat16, at::kHalf,
                                          at::kLong,  at::kInt,    at::kChar,     at::kByte};

#define EXPECT_EQUAL(found, expected) \
  EXPECT_TRUE(at::equal(found, expected)) << "found " << (found) << "\nexpected " << (expected)

STOA_PROCESS_TEST(Group, AllReduceSumsEveryType, 5) {
  const auto world = join();
  for_each_size(*world, [](Group& group) {
    const int n = group.size();
    for (const auto type : kSummed)
      for (const auto& shape : kShapes) {
        auto t = numbers(shape, group.rank(), type);
        group.all_reduce(t);
        EXPECT_EQUAL(t, (numbers(shape, 0, at::kLong) * n + n * (n - 1) / 2).to(type));
      }
  });
}

STOA_PROCESS_TEST(Group, AllReduceTakesMaximumAndMinimum, 5) {
  const auto world = join();
  for_each_size(*world, [](Group& group) {
    for (const auto type : kSummed) {
      auto most = numbers({7}, group.rank(), type), least = most.clone();
      group.all_reduce(most, Reduce::kMax);
      group.all_reduce(least, Reduce::kMin);
      EXPECT_EQUAL(most, numbers({7}, group.size() - 1, type));
      EXPECT_EQUAL(least, numbers({7}, 0, type));
    }
  });
}

// 256 + 1 is 256 in bf16: added one by one in bf16 the ones are lost
STOA_PROCESS_TEST(Group, Bf16IsSummedInFp32AndRoundedOnce, 5) {
  const auto world = join();
  Group& all = world->all();
  auto t = at::full({3}, all.rank() == 0 ? 256 : 1, at::kBFloat16);
  const auto parts = t.expand({5, 3}).contiguous();
  all.all_reduce(t);
  EXPECT_EQUAL(t, at::full({3}, 260, at::kBFloat16));
  EXPECT_EQUAL(all.reduce_scatter(parts), at::full({3}, 260, at::kBFloat16));
}

STOA_PROCESS_TEST(Group, AllReduceIsEqualToTheBitOnAllRanks, 5) {
  const auto world = join();
  at::manual_seed(static_cast<std::uint64_t>(world->rank()));
  auto t = at::randn({1003}) * 1e3;
  world->all().all_reduce(t);
  const auto everyones = world->all().all_gather(t);
  for (int rank = 0; rank < world->size(); ++rank) EXPECT_EQUAL(everyones[rank], t);
}

STOA_PROCESS_TEST(Group, AllGatherKeepsEveryTypeAndShape, 5) {
  const auto world = join();
  for_each_size(*world, [](Group& group) {
    for (const auto type : {at::kFloat, at::kDouble, at::kBFloat16, at::kBool, at::kByte, at::kShort,
                            at::kLong, at::kComplexDouble})
      for (const auto& shape : kShapes) {
        const auto gathered = group.all_gather(numbers(shape, group.rank(), type));
        std::vector<at::Tensor> expected;
        for (int rank = 0; rank < group.size(); ++rank) expected.push_back(numbers(shape, rank, type));
        EXPECT_EQUAL(gathered, at::stack(expected));
      }
  });
}

STOA_PROCESS_TEST(Group, ReduceScatterGivesEachRankItsSum, 5) {
  const auto world = join();
  for_each_size(*world, [](Group& group) {
    const int n = group.size();
    for (const auto type : kSummed)
      for (auto shape : kShapes) {
        shape.insert(shape.begin(), n);
        const auto part = group.reduce_scatter(numbers(shape, group.rank(), type));
        EXPECT_EQUAL(part, (numbers(shape, 0, at::kLong)[group.rank()] * n + n * (n - 1) / 2).to(type));
      }
  });
}

STOA_PROCESS_TEST(Group, AllToAllExchangesEqualParts, 5) {
  const auto world = join();
  for_each_size(*world, [](Group& group) {
    const int n = group.size();
    for (const auto type : {at::kFloat, at::kBFloat16, at::kBool, at::kLong}) {
      const auto received = group.all_to_all(numbers({3 * n, 7}, group.rank(), type));
      for (int from = 0; from < n; ++from)
        EXPECT_EQUAL(received.narrow(0, 3 * from, 3),
                     numbers({3 * n, 7}, from, type).narrow(0, 3 * group.rank(), 3));
    }
  });
}

/// Rows 100 from + to, as many as `counts` says for each receiver.
at::Tensor rows_of(int from, const Group::Counts& counts) {
  std::vector<at::Tensor> rows{at::empty({0, 3})};
  for (std::size_t to = 0; to < counts.size(); ++to)
    rows.push_back(at::full({counts[to], 3}, 100 * from + static_cast<int>(to), at::kFloat));
  return at::cat(rows);
}

void check_uneven(Group& group, const std::function<std::int64_t(int, int)>& rows_from_to) {
  Group::Counts send, receive;
  std::vector<at::Tensor> expected{at::empty({0, 3})};
  for (int other = 0; other < group.size(); ++other) {
    send.push_back(rows_from_to(group.rank(), other));
    receive.push_back(rows_from_to(other, group.rank()));
    expected.push_back(at::full({receive.back(), 3}, 100 * other + group.rank(), at::kFloat));
  }
  EXPECT_EQUAL(group.all_to_all(rows_of(group.rank(), send), send, receive), at::cat(expected));
}

STOA_PROCESS_TEST(Group, AllToAllExchangesUnevenRows, 5) {
  const auto world = join();
  for_each_size(*world, [](Group& group) {
    check_uneven(group, [](int from, int to) { return (2 * from + to) % 3; });
  });
}

STOA_PROCESS_TEST(Group, AllToAllTakesRanksThatSendOrReceiveNothing, 5) {
  const auto world = join();
  for_each_size(*world, [](Group& group) {
    check_uneven(group, [](int from, int) { return from == 0 ? 0 : 4; });
    check_uneven(group, [](int, int to) { return to == 0 ? 0 : 4; });
    check_uneven(group, [](int, int) { return 0; });
  });
}

STOA_PROCESS_TEST(Group, BroadcastsFromEveryRoot, 5) {
  const auto world = join();
  for_each_size(*world, [](Group& group) {
    for (int root = 0; root < group.size(); ++root)
      for (const auto type : {at::kDouble, at::kBFloat16, at::kBool}) {
        auto t = numbers({7}, group.rank(), type);
        group.broadcast(t, root);
        EXPECT_EQUAL(t, numbers({7}, root, type));
      }
  });
}

STOA_PROCESS_TEST(Group, NobodyPassesTheBarrierBeforeAllHaveCome, 4) {
  const auto world = join();
  if (world->rank() == 2) std::this_thread::sleep_for(std::chrono::milliseconds(100));
  test::tell(format("came {}", world->rank()));
  world->all().barrier();
  for (int rank = 0; rank < world->size(); ++rank) EXPECT_TRUE(test::was_told(format("came {}", rank)));
}

// after s exchanges rank n holds what rank n - s began with; with 2 both neighbours are one, with 1 it is
// itself
STOA_PROCESS_TEST(Group, ARingPassesChunksOn, 5) {
  const auto world = join();
  for_each_size(*world, [](Group& group) {
    const int n = group.size(), next = (group.rank() + 1) % n, before = (group.rank() + n - 1) % n;
    auto chunk = numbers({1001}, group.rank()), other = chunk.clone();
    auto spare = at::empty_like(chunk), other_spare = at::empty_like(chunk);
    for (int step = 1; step <= n; ++step) {
      auto received = group.start_receive(spare, before, 3);
      auto sent = group.start_send(chunk, next, 3);
      auto exchanged = group.start_exchange(other, next, other_spare, before, 4);
      EXPECT_EQUAL(received.wait(), numbers({1001}, (group.rank() + n * n - step) % n));
      sent.wait();
      EXPECT_EQUAL(exchanged.wait(), spare);
      std::swap(chunk, spare);
      std::swap(other, other_spare);
    }
    EXPECT_EQUAL(chunk, numbers({1001}, group.rank()));
  });
}

STOA_PROCESS_TEST(Group, TagsKeepMessagesApart, 2) {
  const auto world = join();
  Group& all = world->all();
  if (all.rank() == 0) {
    auto a = all.start_send(at::full({2}, 1), 1, 1), b = all.start_send(at::full({2}, 2), 1, 2);
    a.wait();
    b.wait();
  } else {
    EXPECT_EQUAL(all.start_receive(at::empty({2}, at::kLong), 0, 2).wait(), at::full({2}, 2));
    EXPECT_EQUAL(all.start_receive(at::empty({2}, at::kLong), 0, 1).wait(), at::full({2}, 1));
  }
}

STOA_PROCESS_TEST(Group, SeveralOperationsAreUnderWayAtOnce, 3) {
  const auto world = join();
  Group& all = world->all();
  const auto sum = at::ones({5}), part = at::ones({3, 2});
  const auto wide = at::full({5}, 1, at::kBFloat16);
  auto a = all.start_all_reduce(sum), b = all.start_all_reduce(wide), c = all.start_reduce_scatter(part),
       d = all.start_all_gather(at::full({1}, all.rank())),
       e = all.start_broadcast(at::full({1}, all.rank()), 2);
  EXPECT_EQUAL(e.wait(), at::full({1}, 2));
  EXPECT_EQUAL(d.wait(), at::arange(3).view({3, 1}));
  EXPECT_EQUAL(c.wait(), at::full({2}, 3.0F));
  EXPECT_EQUAL(b.wait(), at::full({5}, 3, at::kBFloat16));
  EXPECT_EQUAL(a.wait(), at::full({5}, 3.0F));
  EXPECT_FALSE(a.wait().defined());
}

STOA_PROCESS_TEST(Group, TwoDisjointGroupsWorkAtOnce, 5) {
  const auto world = join();
  const auto left = world->make_group("left", {0, 1}), right = world->make_group("right", {4, 2, 3});
  ASSERT_EQ(left != nullptr, world->rank() < 2);
  ASSERT_EQ(right != nullptr, world->rank() >= 2);
  Group& group = left ? *left : *right;
  const std::vector<int> places{0, 1, 1, 2, 0};
  EXPECT_EQ(group.rank(), places[static_cast<std::size_t>(world->rank())]);
  for (int i = 0; i < 20; ++i) {
    auto t = at::full({9}, world->rank());
    group.all_reduce(t);
    EXPECT_EQUAL(t, at::full({9}, left ? 1 : 9));
  }
  EXPECT_EQUAL(group.all_gather(at::full({}, world->rank())),
               left ? at::arange(2) : at::tensor({4, 2, 3}, at::kLong));
}

STOA_PROCESS_TEST(Group, CountsWhatTextbooksCount, 5) {
  const auto world = join();
  for_each_size(*world, [](Group& group) {
    const std::int64_t n = group.size(), bytes = 4 * 60 * n;
    const auto sent = [&](const auto& work) {
      const auto before = group.traffic();
      work();
      return std::pair(group.traffic().messages - before.messages, group.traffic().bytes - before.bytes);
    };
    const auto t = at::zeros({n, 60});
    EXPECT_EQ(sent([&] { group.all_reduce(t); }), std::pair(2 * (n - 1), 2 * (n - 1) * bytes / n));
    EXPECT_EQ(sent([&] { group.all_reduce(t.to(at::kBFloat16)); }),
              std::pair(2 * (n - 1), 2 * (n - 1) * bytes / n));
    EXPECT_EQ(sent([&] { group.all_gather(t[0]); }), std::pair(n - 1, (n - 1) * bytes / n));
    EXPECT_EQ(sent([&] { group.reduce_scatter(t); }), std::pair(n - 1, (n - 1) * bytes / n));
    EXPECT_EQ(sent([&] { group.reduce_scatter(t.to(at::kBFloat16)); }),
              std::pair(n - 1, (n - 1) * bytes / n / 2));
    EXPECT_EQ(sent([&] { group.all_to_all(t); }), std::pair(n - 1, (n - 1) * bytes / n));
    EXPECT_EQ(sent([&] { group.barrier(); }).second, 0);
    const auto broadcast = at::tensor({sent([&] { group.broadcast(t, n - 1); }).second});
    group.all_reduce(broadcast);
    EXPECT_EQ(broadcast.item<std::int64_t>(), (n - 1) * bytes);
    const Group::Counts counts(static_cast<std::size_t>(n), 1);
    EXPECT_EQ(sent([&] { group.all_to_all(t, counts, counts); }), std::pair(n - 1, (n - 1) * bytes / n));
  });
}

// the specification's example: B=1, Z=12, A=64, L=512, N=4, in elements for each rank and layer
STOA_PROCESS_TEST(Group, CountsTheTrafficOfRingSelfAttention, 4) {
  const auto world = join();
  Group& ring = world->all();
  const auto chunk = at::zeros({12, 128, 64}), spare = at::empty_like(chunk),
             whole = at::zeros({4, 12, 128, 64});
  const auto circulate = [&] {
    for (int step = 1; step < 4; ++step)
      ring.start_exchange(chunk, (ring.rank() + 1) % 4, spare, (ring.rank() + 3) % 4).wait();
  };
  for (int i = 0; i < 4; ++i) circulate();  // K and V, forwards and backwards
  const auto rings = ring.traffic().bytes;
  for (int i = 0; i < 2; ++i) ring.all_reduce(whole);
  const auto reduced = ring.traffic().bytes - rings;
  for (int i = 0; i < 2; ++i) ring.reduce_scatter(whole);
  const auto scattered = ring.traffic().bytes - rings - reduced;
  EXPECT_EQ((rings + reduced) / 4, 2359296);
  EXPECT_EQ((rings + scattered) / 4, 1769472);
}

// --- failures
// -----------------------------------------------------------------------------------------------

/// Prints the line of the DistributedError that `work` throws, in a process.
template <class Work>
void print_failure(const Work& work) {
  std::cout << test::thrown<DistributedError>(work) << std::endl;
}

STOA_PROCESS_BODY(one_rank_exits) {
  const auto world = join();
  world->all().all_reduce(at::ones({4}));
  if (world->rank() == 1) test::exit_silently(7);
  print_failure([&] {
    for (;;) world->all().all_reduce(at::ones({4}));
  });
  if (world->rank() == 0) print_failure([&] { world->all().start_receive(at::ones({4}), 1).wait(); });
}

TEST(GroupFailures, TheOthersSayThatARankExited) {
  const auto ranks = run_processes("one_rank_exits", 3);
  EXPECT_EQ(ranks[1].code, 7) << ranks[1].output;
  for (const int rank : {0, 2}) {
    const auto& result = ranks[static_cast<std::size_t>(rank)];
    EXPECT_EQ(result.code, 0) << result.output;
    STOA_EXPECT_CONTAINS(
        result.output,
        format("\nrank {}: all-reduce in group `world` failed: connection closed by peer;", rank));
  }
  STOA_EXPECT_CONTAINS(ranks[0].output,
                       "\nrank 0: receiving from rank 1 in group `world` failed: connection closed by peer;");
}

STOA_PROCESS_BODY(one_rank_hangs) {
  const auto world = join(2);
  if (world->rank() == 1) {
    for (const int rank : {0, 2}) test::wait_until_told(format("failed {}", rank));
    test::exit_silently(0);
  }
  if (world->rank() == 0)
    print_failure([&] { world->all().start_receive(at::ones({4}), 1).wait(); });
  else
    print_failure([&] { world->all().all_reduce(at::ones({4})); });
  test::tell(format("failed {}", world->rank()));
}

TEST(GroupFailures, TheOthersSayThatARankHangs) {
  const auto ranks = run_processes("one_rank_hangs", 3);
  for (const auto& [code, timed_out, seconds, output] : ranks) EXPECT_EQ(code, 0) << output;
  const std::string receiving = "\nrank 0: receiving from rank 1 in group `world` failed: ",
                    summing = "\nrank 2: all-reduce in group `world` failed: ",
                    late = "no answer within 2 s;";
  STOA_EXPECT_CONTAINS(ranks[0].output, receiving);
  STOA_EXPECT_CONTAINS(ranks[2].output, summing);
  // who gives up first closes its connections, which the other may notice before its own time is over
  EXPECT_TRUE(ranks[0].output.find(receiving + late) != std::string::npos ||
              ranks[2].output.find(summing + late) != std::string::npos)
      << ranks[0].output << ranks[2].output;
}

STOA_PROCESS_BODY(sizes_that_differ) {
  const auto world = join(10);  // Gloo does not always notice that a rank ended
  const bool large = world->rank() == 1;
  const std::string operation = std::getenv("STOA_TEST_OPERATION");
  if (operation == "all-reduce")
    world->all().all_reduce(at::ones({large ? 5 : 3}));
  else if (operation == "all-gather")
    world->all().all_gather(at::ones({large ? 5 : 3}));
  else if (large)
    world->all().start_send(at::ones({5}), 0).wait();
  else
    world->all().start_receive(at::ones({3}), 1).wait();
  world->all().barrier();  // the rank that sent too much hears of it here
}

// Gloo throws where a message comes that is too long, in a thread of its own
TEST(GroupFailures, SizesThatDifferEndARankWithOneLineThatNamesTheOperation) {
  for (const std::string operation : {"all-reduce", "all-gather", "receiving from rank 1"}) {
    const auto ranks =
        run_processes("sizes_that_differ", 2, {.environment = {{"STOA_TEST_OPERATION", operation}}});
    const auto said = format(
        "stoa: rank 0: {} in group `world` failed: another rank sent a tensor of another size;", operation);
    STOA_EXPECT_CONTAINS(ranks[0].output, said);
    for (const auto& [code, timed_out, seconds, output] : ranks) {
      EXPECT_EQ(code, 1) << output;
      EXPECT_EQ(output.find("terminate called"), std::string::npos) << output;
    }
  }
}

STOA_PROCESS_BODY(another_uncaught_error) {
  const auto world = join();
  std::thread([] { throw std::runtime_error("of another library"); }).join();
}

TEST(GroupFailures, UncaughtErrorsOfOthersStillAbort) {
  for (const auto& [code, timed_out, seconds, output] : run_processes("another_uncaught_error", 2)) {
    EXPECT_EQ(code, -SIGABRT);
    STOA_EXPECT_CONTAINS(output, "of another library");
  }
}

std::shared_ptr<World> alone() {
  return World::join({});
}

TEST(GroupFailures, StridedTensorsAreRefused) {
  const auto message = test::thrown<ShapeError>([&] { alone()->all().all_reduce(at::ones({2, 3}).t()); });
  EXPECT_EQ(message,
            "rank 0: all-reduce in group `world` needs a contiguous tensor; found shape [3, 2] with strides "
            "[1, 3]");
}

TEST(GroupFailures, TensorsOfAnotherDeviceAreRefused) {
  const auto t = at::empty({2}, at::device(at::kMeta));
  STOA_EXPECT_CONTAINS(test::thrown<ShapeError>([&] { alone()->all().all_gather(t); }),
                       "cannot send a tensor of device meta; move it to the CPU");
}

TEST(GroupFailures, TruthValuesAreNotSummed) {
  STOA_EXPECT_CONTAINS(test::thrown<ShapeError>([&] { alone()->all().all_reduce(at::ones({2}, at::kBool)); }),
                       "found Bool");
}

TEST(GroupFailures, PartsThatDoNotFitAreRefused) {
  const auto world = alone();
  Group& all = world->all();
  STOA_EXPECT_CONTAINS(test::thrown<ShapeError>([&] {
                         all.reduce_scatter(at::ones({2, 3}));
                       }),
                       "needs a tensor of shape [1, ...]; found [2, 3]");
  for (const auto& [send, receive] :
       {std::pair(Group::Counts{1}, Group::Counts{2}), {{3}, {3}}, {{2, 0}, {2}}, {{2}, {}}})
    STOA_EXPECT_CONTAINS(test::thrown<ShapeError>([&] {
                           all.all_to_all(at::ones({2, 3}), send, receive);
                         }),
                         "all-to-all in group `world` of rows [2, 3] cannot send");
}

TEST(GroupFailures, RanksOutsideTheGroupAreRefused) {
  const auto world = alone();
  Group& all = world->all();
  STOA_EXPECT_CONTAINS(test::thrown<DistributedError>([&] { all.broadcast(at::ones({1}), 1); }),
                       "rank 0: broadcast in group `world` failed: there is no rank 1 among its 1");
  STOA_EXPECT_CONTAINS(test::thrown<DistributedError>([&] { all.start_send(at::ones({1}), -1); }),
                       "no rank -1");
}

STOA_PROCESS_BODY(left_world) {
  auto world = join();
  const auto group = world->all_shared();
  world.reset();
  print_failure([&] { group->barrier(); });
}

TEST(GroupFailures, AGroupIsOfNoUseWithoutItsWorld) {
  for (const auto& [code, timed_out, seconds, output] : run_processes("left_world", 2)) {
    EXPECT_EQ(code, 0) << output;
    STOA_EXPECT_CONTAINS(output, "barrier in group `world` failed: its world has been left");
  }
}

}  // namespace
}  // namespace stoa::dist
