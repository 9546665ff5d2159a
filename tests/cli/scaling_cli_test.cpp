// What `stoa info` says of recipes with embedding tables.
#include <gtest/gtest.h>

#include "support/program.h"
#include "support/thrown.h"

namespace stoa::test {
namespace {

const std::string kCriteo = STOA_SOURCE_DIR "/recipes/cow_clip/criteo_deepfm_1k.toml";

TEST(Scaling, PrintsThePublishedSettingsOfTheLargestBatch) {
  const Ended ended =
      run_stoa({"info", kCriteo, "--scale-from", "1024", "--batch", "131072", "--rule", "cowclip"});
  ASSERT_EQ(ended.exit_code, 0) << ended.errors;
  STOA_EXPECT_CONTAINS(ended.output, "8e-4 -> 90.51e-4");
  STOA_EXPECT_CONTAINS(ended.output, "1e-5 -> 128e-5");
  STOA_EXPECT_CONTAINS(ended.output, "1e-4 -> 1e-4");
  const Json json =
      json_of(run_stoa({"info", kCriteo, "--scale-from", "1024", "--batch", "131072", "--json"}));
  EXPECT_NEAR(json.at("dense_lr").get<double>(), 90.5096e-4, 1e-8);
  EXPECT_EQ(json.at("rule"), "cowclip");
}

TEST(Scaling, RefusesHalfAQuestion) {
  const auto refused = [](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "info");
    const Ended ended = run_stoa(arguments);
    EXPECT_EQ(ended.exit_code, 2) << ended.errors;
    EXPECT_EQ(line_count(ended.errors), 1) << ended.errors;
    return ended.errors;
  };
  STOA_EXPECT_CONTAINS(refused({kCriteo, "--batch", "131072"}), "--scale-from");
  STOA_EXPECT_CONTAINS(refused({"--scale-from", "1024"}), "stoa info RECIPE");
  STOA_EXPECT_CONTAINS(refused({kCriteo, "--scale-from", "1024", "--rule", "cowclp"}), "`cowclip`?");
  STOA_EXPECT_CONTAINS(refused({STOA_SOURCE_DIR "/recipes/wide_net/widenet_b.toml", "--scale-from", "1024"}),
                       "embedding tables");
}

TEST(Info, CountsDenseParametersApartFromTables) {
  for (const auto& [recipe, dense] : {std::pair{"criteo_deepfm_1k", 430814},
                                      {"criteo_wdl_8k", 430814},
                                      {"criteo_dcn_128k", 432725},
                                      {"criteo_dcnv2_1k", 654950},
                                      {"avazu_deepfm_1k", 409601}}) {
    const Json info = json_of(
        run_stoa({"info", std::string(STOA_SOURCE_DIR "/recipes/cow_clip/") + recipe + ".toml", "--json"}));
    EXPECT_EQ(info.at("dense_parameters"), dense) << recipe;
  }
  const Json criteo = json_of(run_stoa({"info", kCriteo, "--json"}));
  EXPECT_EQ(criteo.at("parameters"), 430814 + std::int64_t{33762577} * 11);
  EXPECT_LT(criteo.at("memory").at("total"), std::int64_t{24} << 30);
}

}  // namespace
}  // namespace stoa::test
