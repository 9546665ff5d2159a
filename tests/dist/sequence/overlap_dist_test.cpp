#include <algorithm>
#include <string>
#include <vector>

#include "dist/sequence/sequence_cases.h"
#include "stoa/dist/sequence/ring.h"
#include "support/processes.h"

// Messages travel while blocks are computed (the published ring waits for each first): told from the order of
// a rank's steps, and from ranks that do not go on with a block until its message has arrived at the next
// rank.
namespace stoa::test {
namespace {

using Steps = std::vector<SequenceStep>;

const char* text_of(SequenceStep step) {
  switch (step) {
    case SequenceStep::kSend:
      return "send";
    case SequenceStep::kSum:
      return "sum";
    case SequenceStep::kAttend:
      return "block";
    case SequenceStep::kWait:
      return "wait";
    default:
      return "wait-for-sum";
  }
}

std::string text_of(const Steps& steps) {
  std::string text;
  for (const auto step : steps) text += (text.empty() ? "" : " ") + std::string(text_of(step));
  return text;
}

/// A call for chunks of 8 tokens, and its passes by a method's own functions.
struct Passes {
  Passes(Group& group, const SequenceAttentionOptions& options)
      : whole(1, 8, 2, 2, 4), call(c10::make_intrusive<SequenceCall>(group, options)) {
    call->chunk = 8;
    call->heads = call->kv_heads = 2;
  }

  void forward() {
    const auto attend = call->options.method == SequenceMethod::kRsa        ? attend_by_rsa
                        : call->options.method == SequenceMethod::kGatherKv ? attend_by_gather
                        : call->options.method == SequenceMethod::kHybrid   ? attend_by_heads
                                                                            : attend_by_ring;
    kept = attend(*call, whole.q, whole.k, whole.v).kept;
  }
  void backward() const {
    const auto gradients = call->options.method == SequenceMethod::kRsa        ? rsa_gradients
                           : call->options.method == SequenceMethod::kGatherKv ? gather_gradients
                           : call->options.method == SequenceMethod::kHybrid   ? head_gradients
                                                                               : ring_gradients;
    gradients(*call, kept, whole.grad);
  }
  /// The steps of both passes.
  std::pair<Steps, Steps> steps() {
    Steps forward_steps, backward_steps;
    call->watch = [&](SequenceStep step) { forward_steps.push_back(step); };
    forward();
    call->watch = [&](SequenceStep step) { backward_steps.push_back(step); };
    backward();
    call->watch = nullptr;
    return {forward_steps, backward_steps};
  }

  Sequences whole;
  c10::intrusive_ptr<SequenceCall> call;
  std::vector<at::Tensor> kept;
};

/// For each message, started by `start` and waited for by `wait`: the blocks computed between the two.
std::vector<int> blocks_meanwhile(const Steps& steps, SequenceStep start, SequenceStep wait) {
  std::vector<int> blocks;
  bool under_way = false;
  for (const auto step : steps) {
    if (step == start) {
      EXPECT_FALSE(under_way) << text_of(steps);
      under_way = true;
      blocks.push_back(0);
    } else if (step == SequenceStep::kAttend && under_way) {
      ++blocks.back();
    } else if (step == wait) {
      EXPECT_TRUE(under_way) << text_of(steps);
      under_way = false;
    }
  }
  EXPECT_FALSE(under_way) << text_of(steps);
  return blocks;
}

STOA_PROCESS_TEST(SequenceOverlap, EachMessageIsStartedBeforeABlockIsComputedAndWaitedForAfter, 2, 3) {
  const auto joined = World::join(read_place());
  Group& group = joined->all();
  const bool two = group.size() == 2;
  const auto [forward, backward] = Passes(group, {}).steps();
  EXPECT_EQ(text_of(forward), two ? "send block wait block" : "send block wait send block wait block");
  EXPECT_EQ(text_of(backward), two ? "send block wait block sum block wait-for-sum"
                                   : "send block sum wait send block wait-for-sum sum wait "
                                     "block wait-for-sum sum block wait-for-sum");

  std::vector<SequenceAttentionOptions> all(4);
  all[1].method = SequenceMethod::kRsa;
  all[2].method = SequenceMethod::kGatherKv;
  all[3].method = SequenceMethod::kHybrid;
  for (auto options : all)
    for (const bool overlap : {true, false}) {
      options.overlap = overlap;
      const auto [ahead, back] = Passes(group, options).steps();
      for (const auto& steps : {ahead, back}) {
        const auto meanwhile = blocks_meanwhile(steps, SequenceStep::kSend, SequenceStep::kWait);
        EXPECT_FALSE(meanwhile.empty()) << test::text_of(options);
        for (const int blocks : meanwhile)
          EXPECT_EQ(blocks, overlap ? 1 : 0) << test::text_of(options) << ": " << text_of(steps);
        for (const int blocks : blocks_meanwhile(steps, SequenceStep::kSum, SequenceStep::kWaitForSum))
          EXPECT_EQ(blocks, overlap ? 1 : 0) << test::text_of(options) << ": " << text_of(steps);
      }
    }
}

/// Where two ranks stop in a pass until the other has come somewhere. Blocks count from 1.
struct Stops {
  int slow;  ///< the rank that stops before its block `at` until the other has come to its block `reached`,
  int at;    ///< so that what it has sent before must arrive,
  int reached;  ///< 0: to the end of the pass
  int held;     ///< the other stops before this block until `slow` has come to `at`, which therefore must not
                ///< wait for what is sent behind it. 0: before the pass
};

template <class Pass>
void expect_arrival(const std::string& name, const Passes& passes, const Stops& stops, const Pass& pass) {
  const bool slow = passes.call->group.rank() == stops.slow;
  const std::string come = name + "-come" + std::to_string(stops.slow),
                    arrived = name + "-arrived" + std::to_string(stops.slow);
  int blocks = 0;
  passes.call->watch = [&](SequenceStep step) {
    if (step != SequenceStep::kAttend) return;
    ++blocks;
    if (slow && blocks == stops.at) {
      tell(come);
      wait_until_told(arrived);
    }
    if (!slow && blocks == stops.held) wait_until_told(come);
    if (!slow && blocks == stops.reached) tell(arrived);
  };
  if (!slow && stops.held == 0) wait_until_told(come);
  pass();
  if (!slow && stops.reached == 0) tell(arrived);
  EXPECT_GE(blocks, stops.at) << name;
  passes.call->watch = nullptr;
}

STOA_PROCESS_TEST(SequenceOverlap, ABlockArrivesWhileItsOwnerStillComputesOnIt, 2) {
  WorldOptions patience;
  patience.timeout_s = 10;  // for messages that do not come where this fails
  const auto joined = World::join(read_place(), patience);
  for (const auto method : {SequenceMethod::kRing, SequenceMethod::kRsa}) {
    SequenceAttentionOptions options;
    options.method = method;
    Passes passes(joined->all(), options);
    const std::string name = name_of(method);
    for (const int slow : {0, 1}) {
      expect_arrival(name + "-forward", passes, {slow, 1, 2, 0}, [&] { passes.forward(); });
      expect_arrival(name + "-backward", passes, {slow, 1, 2, 0}, [&] { passes.backward(); });
    }
  }
}

STOA_PROCESS_TEST(SequenceOverlap, GradientsComeHomeWhileTheirSenderComputesItsLastBlock, 2) {
  WorldOptions patience;
  patience.timeout_s = 10;
  const auto joined = World::join(read_place(), patience);
  Passes passes(joined->all(), {});
  passes.forward();
  for (const int slow : {0, 1}) expect_arrival("home", passes, {slow, 3, 0, 2}, [&] { passes.backward(); });
}

}  // namespace
}  // namespace stoa::test
