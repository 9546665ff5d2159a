#include "stoa/train/profile.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <numeric>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/nn/part_scope.h"
#include "stoa/train/phase_scope.h"
#include "support/temp_dir.h"
#include "support/thrown.h"
#include "support/toy_runs.h"

namespace stoa {
namespace {

namespace fs = std::filesystem;
using test::thrown;
using Kind = RecordedEvent::Kind;

constexpr std::uint64_t kThread = 1;

/// A recording made by hand; times in milliseconds.
struct Made {
  Recording recording;

  int add(Kind kind, const std::string& name, int parent, int start, int end, std::int64_t sequence = -1,
          std::int64_t sequence_end = -1) {
    recording.events.push_back(
        {kind, name, start * 1'000'000L, end * 1'000'000L, parent, kThread, sequence, sequence_end, 0});
    return static_cast<int>(recording.events.size()) - 1;
  }
  int scope(const std::string& name, int parent, int start, int end, std::int64_t first = 0,
            std::int64_t last = 0) {
    return add(Kind::kScope, name, parent, start, end, first, last);
  }
  int node(const std::string& name, int parent, int start, int end, std::int64_t sequence) {
    const int engine = add(Kind::kNode, std::string(kEngineWork) + name, parent, start, end);
    return add(Kind::kNode, name, engine, start, end - 1, sequence);
  }
  void memory(int time, std::uintptr_t address, std::int64_t bytes, int event) {
    recording.memory.push_back({time * 1'000'000L, address, bytes, event});
  }
};

/// A step of 100 ms: 5 of data, 40 forward with attention (15), experts (15) and within them the router (5),
/// 40 backward, 2 clip, 10 optimizer.
struct MadeStep : Made {
  int step, forward, attention, experts, router, backward;
  explicit MadeStep(int at = 0, std::int64_t number = 100) {
    step = scope(kStepName, -1, at, at + 100);
    scope("data", step, at, at + 5);
    forward = scope("forward", step, at + 5, at + 45, number, number + 20);
    attention = scope("attention", forward, at + 10, at + 25, number + 2, number + 6);
    experts = scope("experts", forward, at + 25, at + 40, number + 6, number + 16);
    router = scope("router", experts, at + 30, at + 35, number + 8, number + 12);
    backward = scope("backward", step, at + 45, at + 85, number + 20, number + 20);
    scope("clip", step, at + 85, at + 87);
    scope("optimizer", step, at + 87, at + 97);
  }
};

const PartProfile& part(const Profile& profile, const std::string& name) {
  const auto found = std::ranges::find(profile.parts, name, &PartProfile::name);
  if (found == profile.parts.end()) throw std::runtime_error("no part " + name);
  return *found;
}
OperatorProfile row(const Profile& profile, const std::string& name) {
  const auto found = std::ranges::find(profile.operators, name, &OperatorProfile::name);
  return found == profile.operators.end() ? OperatorProfile{} : *found;
}
double sum_of_parts(const Profile& profile) {
  return std::accumulate(profile.parts.begin(), profile.parts.end(), 0.0,
                         [](double sum, const PartProfile& part) { return sum + part.ms; });
}

TEST(Profile, ForwardTimeIsOfTheInnermostPart) {
  const Profile profile = summarize(MadeStep().recording, {});
  EXPECT_DOUBLE_EQ(part(profile, "attention").forward_ms, 15);
  EXPECT_DOUBLE_EQ(part(profile, "experts").forward_ms, 10);
  EXPECT_DOUBLE_EQ(part(profile, "router").forward_ms, 5);
  EXPECT_DOUBLE_EQ(part(profile, "loss and the rest").forward_ms, 10);
}

TEST(Profile, PhasesOutsideTheModelHaveRowsOfTheirOwn) {
  const Profile profile = summarize(MadeStep().recording, {});
  EXPECT_DOUBLE_EQ(part(profile, "data").ms, 5);
  EXPECT_DOUBLE_EQ(part(profile, "clip").ms, 2);
  EXPECT_DOUBLE_EQ(part(profile, "optimizer").ms, 10);
  EXPECT_DOUBLE_EQ(part(profile, "other").ms, 3);
  EXPECT_FALSE(part(profile, "data").in_model);
}

TEST(Profile, PartsKeepTheOrderInWhichTheyBegin) {
  std::vector<std::string> names;
  for (const auto& part : summarize(MadeStep().recording, {}).parts) names.push_back(part.name);
  EXPECT_EQ(names, (std::vector<std::string>{"attention", "experts", "router", "loss and the rest", "data",
                                             "clip", "optimizer", "other"}));
}

TEST(Profile, ANodeCountsAsThePartInWhoseScopeItWasMade) {
  MadeStep made;
  made.node("A", made.backward, 50, 60, 103);  // attention
  made.node("B", made.backward, 60, 63, 106);  // the first of the experts
  made.node("C", made.backward, 63, 65, 110);  // router
  made.node("D", made.backward, 65, 69, 114);  // experts again, behind the router
  made.node("E", made.backward, 69, 74, 117);  // the loss
  const Profile profile = summarize(made.recording, {});
  EXPECT_DOUBLE_EQ(part(profile, "attention").backward_ms, 10);
  EXPECT_DOUBLE_EQ(part(profile, "experts").backward_ms, 7);
  EXPECT_DOUBLE_EQ(part(profile, "router").backward_ms, 2);
  EXPECT_DOUBLE_EQ(part(profile, "loss and the rest").backward_ms, 40 - 19);
}

TEST(Profile, AGradientIsAccumulatedForThePartBefore) {
  MadeStep made;
  made.node("A", made.backward, 50, 60, 103);
  made.node("torch::autograd::AccumulateGrad", made.backward, 60, 64, -1);
  EXPECT_DOUBLE_EQ(part(summarize(made.recording, {}), "attention").backward_ms, 14);
}

TEST(Profile, ANumberOfAnotherThreadIsNotMistaken) {
  MadeStep made;
  made.recording.events[static_cast<std::size_t>(made.node("A", made.backward, 50, 60, 103))].forward_thread =
      7;
  EXPECT_DOUBLE_EQ(part(summarize(made.recording, {}), "attention").backward_ms, 0);
}

TEST(Profile, APartThatRunsAgainInTheBackwardPassCountsThere) {
  MadeStep made;  // as a checkpointed block does
  const int node = made.node("Recompute", made.backward, 50, 70, 117);
  made.scope("attention", node, 52, 60, 120, 124);
  const Profile profile = summarize(made.recording, {});
  EXPECT_DOUBLE_EQ(part(profile, "attention").backward_ms, 8);
  EXPECT_DOUBLE_EQ(part(profile, "attention").forward_ms, 15);
}

TEST(Profile, BothTablesAddUpToTheStep) {
  MadeStep made;
  const int op = made.add(Kind::kOperator, "aten::linear", made.attention, 11, 20);
  made.add(Kind::kOperator, "aten::addmm", op, 12, 19);
  made.node("A", made.backward, 50, 60, 103);
  const Profile profile = summarize(made.recording, {});
  double operators = 0;
  for (const auto& row : profile.operators) operators += row.ms;
  EXPECT_NEAR(sum_of_parts(profile), 100, 1e-9);
  EXPECT_NEAR(operators, 100, 1e-9);
}

TEST(Profile, AnOperatorsTimeIsWithoutThatOfOthersItCalls) {
  MadeStep made;
  const int op = made.add(Kind::kOperator, "aten::linear", made.attention, 11, 20);
  made.add(Kind::kOperator, "aten::addmm", op, 12, 19);
  const Profile profile = summarize(made.recording, {});
  EXPECT_DOUBLE_EQ(row(profile, "aten::linear").ms, 2);
  EXPECT_DOUBLE_EQ(row(profile, "aten::addmm").ms, 7);
  EXPECT_DOUBLE_EQ(row(profile, "forward, outside operators").ms, 40 - 9);
}

TEST(Profile, ANodesRowHasTheEnginesWorkAndCountsOnce) {
  MadeStep made;
  made.node("torch::autograd::CppNode<stoa::ops::(anonymous namespace)::LinearFunction>", made.backward, 50,
            60, 103);
  const OperatorProfile found = row(summarize(made.recording, {}), "LinearFunction backward");
  EXPECT_DOUBLE_EQ(found.ms, 10);
  EXPECT_DOUBLE_EQ(found.calls, 1);
}

TEST(Profile, StepsAreAveraged) {
  MadeStep made;
  MadeStep second(200, 300);
  const int first = static_cast<int>(made.recording.events.size());
  for (auto& event : second.recording.events) {
    if (event.parent >= 0) event.parent += first;
    if (event.name == "attention") event.end -= 4'000'000;
    made.recording.events.push_back(event);
  }
  const Profile profile = summarize(made.recording, {});
  EXPECT_EQ(profile.steps, 2);
  EXPECT_DOUBLE_EQ(profile.step_ms, 100);
  EXPECT_DOUBLE_EQ(part(profile, "attention").forward_ms, 13);
}

TEST(Profile, KeptIsWhatTheBackwardPassFinds) {
  MadeStep made;
  made.memory(12, 0x10, 1000, made.attention);
  made.memory(13, 0x20, 300, made.attention);
  made.memory(20, 0x20, -300, made.attention);
  made.memory(27, 0x30, 50, made.experts);
  made.memory(60, 0x40, 7000, made.backward);
  const Profile profile = summarize(made.recording, {});
  EXPECT_DOUBLE_EQ(part(profile, "attention").kept, 1000);
  EXPECT_DOUBLE_EQ(part(profile, "attention").allocated, 1300);
  EXPECT_DOUBLE_EQ(part(profile, "experts").kept, 50);
  EXPECT_DOUBLE_EQ(part(profile, "loss and the rest").kept, 0);
  EXPECT_DOUBLE_EQ(profile.tensor_peak, 8050);
}

TEST(Profile, KeptIsTheMeanOverMicroBatches) {
  Made made;
  const int step = made.scope(kStepName, -1, 0, 100);
  for (int i = 0; i < 2; ++i) {
    const int forward = made.scope("forward", step, 10 + 40 * i, 20 + 40 * i, 10 * i, 10 * i + 5);
    made.memory(11 + 40 * i, 0x10, 100 + 200 * i, forward);
    const int backward = made.scope("backward", step, 20 + 40 * i, 45 + 40 * i, 10 * i + 5, 10 * i + 5);
    made.memory(30 + 40 * i, 0x10, -100 - 200 * i, backward);
  }
  EXPECT_DOUBLE_EQ(part(summarize(made.recording, {}), "loss and the rest").kept, 200);
}

TEST(Profile, WhatMakesTensorsTakesMemoryForItsCaller) {
  MadeStep made;
  const int op = made.add(Kind::kOperator, "stoa::linear", made.attention, 11, 20);
  const int zeros = made.add(Kind::kOperator, "aten::zeros", op, 12, 14);
  made.memory(13, 0x10, 64, made.add(Kind::kOperator, "aten::empty", zeros, 12, 13));
  made.memory(22, 0x20, 32, made.add(Kind::kOperator, "aten::empty", made.attention, 21, 23));
  const Profile profile = summarize(made.recording, {});
  EXPECT_DOUBLE_EQ(row(profile, "stoa::linear").allocated, 64);
  EXPECT_DOUBLE_EQ(row(profile, "aten::empty").allocated, 32);
}

TEST(Profile, ARecordingWithoutAStepIsRefused) {
  EXPECT_NE(thrown<Error>([] { summarize({}, {}); }).find("no step"), std::string::npos);
}

/// A run about which there is nothing to say.
ProfiledRun fine() {
  ProfiledRun run;
  run.samples = 32;
  run.step_ms = 100;
  return run;
}

TEST(ProfileAdvice, AStepWithoutFaultNeedsNone) {
  EXPECT_EQ(advice(summarize(MadeStep().recording, fine())), std::vector<std::string>{});
}

/// The advice on a step in which one phase takes `ms` of 100.
std::string advice_on(const std::string& phase, int ms) {
  Made made;
  const int step = made.scope(kStepName, -1, 0, 100);
  made.scope(phase, step, 0, ms, 0, 0);
  if (ms < 100) made.scope("forward", step, ms, 100, 0, 0);
  const auto lines = advice(summarize(made.recording, fine()));
  return lines.empty() ? "" : lines.front();
}

TEST(ProfileAdvice, WaitingForDataAsksForWorkers) {
  STOA_EXPECT_CONTAINS(advice_on("data", 20), "train.workers");
  EXPECT_EQ(advice_on("data", 8), "");
}

TEST(ProfileAdvice, ALongUpdateAsksForLargerBatches) {
  STOA_EXPECT_CONTAINS(advice_on("optimizer", 30), "train.batch_size (now 32)");
  EXPECT_EQ(advice_on("optimizer", 20), "");
}

TEST(ProfileAdvice, MuchElseAsksForFewerLines) {
  STOA_EXPECT_CONTAINS(advice_on("spare time", 30), "train.log_every");
}

TEST(ProfileAdvice, ManyShortOperatorsAskForLargerBatches) {
  MadeStep made;
  for (int i = 0; i < 20'000; ++i) made.add(Kind::kOperator, "aten::view", made.attention, 12, 12);
  STOA_EXPECT_CONTAINS(advice(summarize(made.recording, fine())).front(), "20000 operators a step");
}

TEST(ProfileAdvice, IdleCoresAreNamed) {
  ProfiledRun run = fine();
  run.cores = 4;
  STOA_EXPECT_CONTAINS(advice(summarize(MadeStep().recording, run)).front(), "1 of 4 cores");
}

TEST(ProfileText, SaysSpeedOfUnrecordedSteps) {
  ProfiledRun run = fine();
  run.step_ms = 50;
  run.macs = 1'000'000'000;
  const Profile profile = summarize(MadeStep().recording, run);
  EXPECT_DOUBLE_EQ(profile.samples_per_second(), 640);
  EXPECT_DOUBLE_EQ(profile.gflops(), 3 * 2 * 640);
  STOA_EXPECT_CONTAINS(profile_text(profile), "640 samples/s, about 3.84e+03 GFLOP/s");
}

TEST(ProfileText, ShowsTwentyOperatorsAndTheSumOfTheOthers) {
  MadeStep made;
  for (int i = 0; i < 30; ++i)
    made.add(Kind::kOperator, "aten::op" + std::to_string(i), made.attention, 12, 12);
  const std::string text = profile_text(summarize(made.recording, fine()));
  STOA_EXPECT_CONTAINS(text, "\n16 others");  // and six rows of what is outside operators
}

// ------------------------------------------------------------------ the recorder

/// One step of two parts, as the trainer's.
Recording record() {
  const auto weight = at::randn({64, 64}).set_requires_grad(true);
  ProfileRecorder recorder(c10::kCPU);
  {
    const nn::PartScope step(kStepName);
    at::Tensor loss;
    {
      const PhaseScope phase(Phase::kForward);
      const auto hidden = nn::in_part("first", [&] { return at::randn({32, 64}).matmul(weight).tanh(); });
      loss = nn::in_part("second", [&] { return hidden.matmul(weight).square().sum(); });
    }
    const PhaseScope phase(Phase::kBackward);
    loss.backward();
  }
  return recorder.stop();
}

TEST(ProfileRecorder, EventsLieWithinTheirParents) {
  const Recording recording = record();
  ASSERT_GT(recording.events.size(), 20u);
  for (std::size_t i = 0; i < recording.events.size(); ++i) {
    const auto& event = recording.events[i];
    EXPECT_LE(event.start, event.end) << event.name;
    if (event.name == kStepName) continue;
    ASSERT_GE(event.parent, 0) << event.name;
    ASSERT_LT(static_cast<std::size_t>(event.parent), i) << event.name;
    const auto& parent = recording.events[static_cast<std::size_t>(event.parent)];
    EXPECT_TRUE(parent.start <= event.start && event.end <= parent.end)
        << event.name << " in " << parent.name;
  }
}

TEST(ProfileRecorder, EveryPartHasAForwardAndABackwardPass) {
  const Profile profile = summarize(record(), {});
  for (const char* name : {"first", "second"}) {
    EXPECT_GT(part(profile, name).forward_ms, 0) << name;
    EXPECT_GT(part(profile, name).backward_ms, 0) << name;
  }
}

TEST(ProfileRecorder, NodesAreFoundInTheirPart) {
  const Recording recording = record();
  const auto inside = [&](const std::string& scope, const std::string& node) {
    const auto at = std::ranges::find(recording.events, scope, &RecordedEvent::name);
    const auto found = std::ranges::find(recording.events, node, &RecordedEvent::name);
    return found != recording.events.end() && at->sequence <= found->sequence &&
           found->sequence < at->sequence_end;
  };
  EXPECT_TRUE(inside("first", "TanhBackward0"));
  EXPECT_TRUE(inside("second", "PowBackward0"));
}

TEST(ProfileRecorder, MemoryOfTensorsIsTakenAndGivenBack) {
  ProfileRecorder recorder(c10::kCPU);
  at::empty({1000});
  const Recording recording = recorder.stop();
  ASSERT_EQ(recording.memory.size(), 2u);
  EXPECT_EQ(recording.memory[0].bytes, 4000);
  EXPECT_EQ(recording.memory[1].bytes, -4000);
  EXPECT_EQ(recording.memory[0].address, recording.memory[1].address);
}

TEST(ProfileRecorder, ThereIsOneAtATime) {
  ProfileRecorder recorder(c10::kCPU);
  EXPECT_NE(thrown<Error>([] { ProfileRecorder second(c10::kCPU); }).find("already"), std::string::npos);
  recorder.stop();
  EXPECT_NO_THROW(ProfileRecorder(c10::kCPU));
}

TEST(ProfileRecorder, ATraceIsJsonWithEveryEvent) {
  const test::TempDir dir;
  const Recording recording = record();
  write_trace(dir / "trace.json", recording);
  std::size_t spans = 0, counts = 0;
  const Json trace = read_json(dir / "trace.json");
  for (const Json& event : trace.at("traceEvents")) {
    if (event.at("ph") == "X") {
      ++spans;
      EXPECT_TRUE(event.at("name").is_string() && event.at("ts").is_number() && event.at("dur").is_number());
    }
    counts += event.at("ph") == "C" ? 1 : 0;
  }
  EXPECT_EQ(spans, recording.events.size());
  EXPECT_EQ(counts, recording.memory.size());
}

// ------------------------------------------------------------------ a profiled training

TrainResult profile(const fs::path& out, std::int64_t steps, const std::vector<std::string>& set = {}) {
  return run_training(
      {.recipe = test::toy_config(set), .out = out, .resume = {}, .resume_step = {}, .profile = steps},
      test::toy_catalog());
}

TEST(ProfiledTraining, EndsAfterItsStepsAndLeavesItsFiles) {
  const test::ToyScope scope;
  const test::TempDir dir;
  const TrainResult result = profile(dir / "run", 2, {"model.dropout=0.1"});
  EXPECT_EQ(result.steps, kProfileWarmUp + 2);
  ASSERT_TRUE(result.profile);
  EXPECT_EQ(result.profile->steps, 2);
  EXPECT_NEAR(sum_of_parts(*result.profile), result.profile->step_ms, 1e-6 * result.profile->step_ms);
  EXPECT_EQ(read_json(dir / "run/profile/profile.json"), profile_json(*result.profile));
  EXPECT_EQ(read_file(dir / "run/profile/profile.txt"), profile_text(*result.profile));
  EXPECT_TRUE(read_json(dir / "run/profile/trace.json").at("traceEvents").is_array());
  EXPECT_TRUE(CheckpointStore(dir / "run/checkpoints").steps().empty());
}

TEST(ProfiledTraining, EveryPhaseOfAStepTakesTime) {
  const test::ToyScope scope;
  const test::TempDir dir;
  const TrainResult result = profile(dir / "run", 2, {"train.ema=0.9"});
  for (const char* name : {"data", "clip", "optimizer", "other"})
    EXPECT_GT(part(*result.profile, name).ms, 0) << name;
  EXPECT_GT(part(*result.profile, "loss and the rest").forward_ms, 0);
  EXPECT_GT(part(*result.profile, "loss and the rest").backward_ms, 0);
}

TEST(ProfiledTraining, CanBeTrainedToItsEndAfterwards) {
  const test::ToyScope scope;
  const test::TempDir dir;
  test::start(dir / "whole", test::everything());
  profile(dir / "run", 3, test::everything());
  test::resume(dir / "run");
  test::expect_same_end(dir / "run", dir / "whole", 12);
}

TEST(ProfiledTraining, NeedsARecipeOfEnoughSteps) {
  const test::ToyScope scope;
  const test::TempDir dir;
  STOA_EXPECT_CONTAINS(thrown<ConfigError>([&] { profile(dir / "run", 10); }),
                       "trains 12: set `train.steps` higher");
  STOA_EXPECT_CONTAINS(thrown<ConfigError>([&] { profile(dir / "run", 0); }), "from 1 to 100");
  EXPECT_NO_THROW(profile(dir / "run", 9));
}

TEST(ProfiledTraining, IsOfANewRun) {
  const test::ToyScope scope;
  EXPECT_THROW(run_training({.recipe = {}, .out = {}, .resume = "run", .resume_step = {}, .profile = 2},
                            test::toy_catalog()),
               ConfigError);
}

}  // namespace
}  // namespace stoa
