// `stoa plan` as a program.
#include <gtest/gtest.h>

#include <map>

#include "support/program.h"
#include "support/temp_dir.h"
#include "support/thrown.h"

namespace stoa::test {
namespace {

/// Speeds are given, so that nothing is measured and nothing depends on time.
const std::vector<std::string> kMachine = {"--gflops", "100",   "--memory-bandwidth",
                                           "10GB/s",   "--set", "runtime.precision=\"fp32\""};

std::vector<std::string> plan_of(const std::string& recipe, std::vector<std::string> more) {
  std::vector<std::string> words = {"plan", recipe};
  words.insert(words.end(), kMachine.begin(), kMachine.end());
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

const std::string kTutorial = STOA_SOURCE_DIR "/recipes/ring_attention/tutorial.toml";

std::string refused(const std::vector<std::string>& words) {
  const Ended ended = run_stoa(words);
  EXPECT_EQ(ended.exit_code, 2) << ended.output;
  EXPECT_EQ(ended.output, "");
  EXPECT_EQ(line_count(ended.errors), 1) << ended.errors;
  return ended.errors;
}

TEST(PlanCommand, ShowsTenSplitsTheFastestFirstAndHowToStartOne) {
  const Ended ended = run_stoa(plan_of(kTutorial, {"--devices", "64", "--memory", "16GiB"}));
  ASSERT_EQ(ended.exit_code, 0) << ended.errors;
  STOA_EXPECT_CONTAINS(ended.output, "4,764,608 parameters, batches of 32 x 128 tokens");
  STOA_EXPECT_CONTAINS(ended.output, "64 devices of 16.0 GiB (given): 100 GFLOP/s in fp32 (given)");
  STOA_EXPECT_CONTAINS(ended.output, "% arithmetic");
  STOA_EXPECT_CONTAINS(ended.output, "more splits: --all");
  STOA_EXPECT_CONTAINS(ended.output, "\nstoa launch -n 64 -- train ");
  const Ended all = run_stoa(plan_of(kTutorial, {"--devices", "64", "--memory", "16GiB", "--all"}));
  EXPECT_GT(line_count(all.output), line_count(ended.output) + 10);
}

TEST(PlanCommand, TellsProgramsAllOfIt) {
  const auto json = json_of(run_stoa(plan_of(kTutorial, {"--devices", "4", "--memory", "2GB", "--json"})));
  ASSERT_TRUE(json.is_object());
  EXPECT_EQ(json["machine"]["memory"], 2'000'000'000);
  EXPECT_EQ(json["tokens"], 128);
  double before = 0;
  for (const auto& split : json["splits"]) {
    EXPECT_EQ(split["data"].get<int>() * split["sequence"].get<int>() * split["tensor"].get<int>() *
                  split["pipeline"].get<int>(),
              4);
    EXPECT_EQ(split["runs_today"].get<bool>(), !split.contains("refused"));
    EXPECT_GE(split["seconds"]["total"].get<double>(), before);
    before = split["seconds"]["total"];
    const auto& memory = split["memory"];
    std::int64_t sum = 0;
    for (const char* part : {"weights", "gradients", "optimizer", "activations", "work", "buffers", "inputs",
                             "spare", "program"})
      sum += memory[part].get<std::int64_t>();
    EXPECT_NEAR(static_cast<double>(sum), memory["total"].get<double>(), 8);
  }
}

TEST(PlanCommand, OfOneDeviceTellsThePartsOfMemoryAndTime) {
  const Ended ended = run_stoa(plan_of(kTutorial, {"--memory", "16GiB"}));
  ASSERT_EQ(ended.exit_code, 0) << ended.errors;
  for (const char* part : {"weights", "optimizer", "the program itself", "total, fits", "time of a step",
                           "arithmetic", "passes over memory", "\nstoa train "})
    STOA_EXPECT_CONTAINS(ended.output, part);
}

TEST(PlanCommand, SaysWhatIsTooLarge) {
  const Ended ended = run_stoa(plan_of(kTutorial, {"--devices", "2", "--memory", "1MiB"}));
  ASSERT_EQ(ended.exit_code, 0) << ended.errors;
  STOA_EXPECT_CONTAINS(ended.output, "too large");
  STOA_EXPECT_CONTAINS(ended.output, "Nothing fits 1MiB");
}

TEST(PlanCommand, PrintsTheTablesOfThePaper) {
  const auto attention = json_of(run_stoa({"plan", "--table", "attention", "--json"}));
  ASSERT_TRUE(attention.is_object());
  const auto& four = attention["rows"][2];
  EXPECT_EQ(four["ranks"], 4);
  EXPECT_NEAR(four["tensor"].get<double>() / 1e6, 103.02, 0.005);
  EXPECT_NEAR(four["rsa"].get<double>() / 1e6, 91.23, 0.005);
  EXPECT_EQ(attention["rows"].back()["ranks"], 1024);
  EXPECT_TRUE(attention["rows"].back()["tensor"].is_null());  // 12 heads
  const Ended lengths = run_stoa({"plan", "--table", "length", "--memory", "2GiB"});
  ASSERT_EQ(lengths.exit_code, 0) << lengths.errors;
  STOA_EXPECT_CONTAINS(lengths.output, "Longest sequence whose attention block fits into 2.0 GiB a rank");
  STOA_EXPECT_CONTAINS(lengths.output, "Computed.");
  EXPECT_EQ(run_stoa({"plan", kTutorial, "--table", "mlp"}).exit_code, 0);
}

TEST(PlanCommand, ComputesScalingToAThousandDevices) {
  const std::vector<std::string> speeds = {
      "--table", "scaling",     "--gflops", "500",       "--memory-bandwidth",
      "40GB/s",  "--bandwidth", "10Gbit/s", "--latency", "50us"};
  auto words = std::vector<std::string>{"plan"};
  words.insert(words.end(), speeds.begin(), speeds.end());
  const Ended text = run_stoa(words);
  ASSERT_EQ(text.exit_code, 0) << text.errors;
  for (const char* part : {"Computed, not measured", "500 GFLOP/s in fp32 (given)",
                           "1.25 GB/s (given) and 50 us", "Sequences grow: 64 x 512 tokens for each device",
                           "Batches grow", "The work stays", "all-to-all", "\n1024 "})
    STOA_EXPECT_CONTAINS(text.output, part);
  words.insert(words.begin() + 1, kTutorial);
  words.push_back("--json");
  const auto json = json_of(run_stoa(words));
  ASSERT_TRUE(json.is_object());
  EXPECT_TRUE(json["computed"].get<bool>());
  for (const char* growth : {"sequence", "batch", "nothing"}) {
    EXPECT_EQ(json[growth].size(), 11) << growth;
    EXPECT_EQ(json[growth].back()["devices"], 1024) << growth;
  }
  EXPECT_LT(json["sequence"].back()["ring"]["efficiency"].get<double>(), 1);
  EXPECT_TRUE(json["sequence"].back()["tensor"].is_null());  // 4 heads
}

TEST(PlanCommand, DealsOutExperts) {
  const auto moe = [](std::vector<std::string> more) {
    more.insert(more.end(), {"--devices", "4", "--memory", "16GiB", "--set", "model.mixture_layers=-1",
                             "--set", "model.router.experts=4"});
    return run_stoa(plan_of(kTutorial, more));
  };
  const Ended text = moe({"--all"});
  ASSERT_EQ(text.exit_code, 0) << text.errors;
  STOA_EXPECT_CONTAINS(text.output, "  expert  ");
  std::map<int, double> weights;
  const auto json = json_of(moe({"--json"}));
  ASSERT_TRUE(json.is_object());
  for (const auto& split : json["splits"])
    if (split["data"] == 4) weights[split["expert"].get<int>()] = split["memory"]["weights"].get<double>();
  ASSERT_EQ(weights.size(), 3);  // 1, 2 and 4
  EXPECT_GT(weights[1], weights[2]);
  EXPECT_GT(weights[2], weights[4]);
}

TEST(PlanCommand, MeasuresTheNetworkWhereItIsLaunched) {
  const Ended ended = run_stoa({"launch", "-n", "2", "--", "plan", kTutorial, "--gflops", "100",
                                "--memory-bandwidth", "10GB/s", "--memory", "4GiB"});
  ASSERT_EQ(ended.exit_code, 0) << ended.errors;
  STOA_EXPECT_CONTAINS(ended.output, "2 devices of");
  STOA_EXPECT_CONTAINS(ended.output, "GB/s (measured) and");
}

TEST(PlanCommand, RefusesWhatItCannotRead) {
  STOA_EXPECT_CONTAINS(refused({"plan", "recipes/ring_attention/tutorail.toml"}), "there is no such recipe");
  STOA_EXPECT_CONTAINS(refused({"plan"}), "name a recipe");
  STOA_EXPECT_CONTAINS(refused(plan_of(kTutorial, {"--memory", "0"})), "--memory is `0`");
  STOA_EXPECT_CONTAINS(refused(plan_of(kTutorial, {"--memory", "16Gold"})), "`Gold` is no unit");
  STOA_EXPECT_CONTAINS(refused(plan_of(kTutorial, {"--memory", "1GiB", "--bandwidth", "10GB"})),
                       "`GB` is no unit of it");
  STOA_EXPECT_CONTAINS(refused(plan_of(kTutorial, {"--memory", "1GiB", "--latency", "1m"})), "--latency");
  STOA_EXPECT_CONTAINS(refused(plan_of(kTutorial, {"--memory", "1GiB", "--devices", "0"})), "--devices is 0");
  STOA_EXPECT_CONTAINS(refused(plan_of(kTutorial, {"--memory", "1GiB", "--devices", "37"})),
                       "no split of this model uses 37 devices");
  STOA_EXPECT_CONTAINS(refused({"plan", kTutorial, "--memory", "1GiB", "--gflops", "0"}), "--gflops is 0");
  STOA_EXPECT_CONTAINS(refused({"plan", "--table", "attntion"}), "--table");
}

}  // namespace
}  // namespace stoa::test
