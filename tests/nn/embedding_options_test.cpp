#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "stoa/base/errors.h"
#include "stoa/nn/embedding_tables.h"
#include "support/thrown.h"

namespace stoa::nn {
namespace {

TEST(EmbeddingOptions, OutOfRangeIsNamed) {
  const auto refused = [](const std::function<void(EmbeddingOptions&)>& change) {
    EmbeddingOptions options;
    change(options);
    return test::thrown<ConfigError>([&] { options.validate(); });
  };
  STOA_EXPECT_CONTAINS(refused([](auto& o) { o.clip_ratio = 0; }), "embedding.clip_ratio is 0");
  STOA_EXPECT_CONTAINS(refused([](auto& o) { o.clip_floor = -1; }), "embedding.clip_floor is -1");
  STOA_EXPECT_CONTAINS(refused([](auto& o) { o.l2 = -1e-5; }), "embedding.l2 is -1e-05");
  STOA_EXPECT_CONTAINS(refused([](auto& o) { o.lr = -1; }), "embedding.lr is -1");
  STOA_EXPECT_CONTAINS(refused([](auto& o) { o.lr = std::nan(""); }), "embedding.lr is nan");
  STOA_EXPECT_CONTAINS(refused([](auto& o) { o.dim = 0; }), "embedding.dim is 0");
  STOA_EXPECT_CONTAINS(refused([](auto& o) { o.eps = 0; }), "embedding.eps is 0");
  STOA_EXPECT_CONTAINS(refused([](auto& o) { o.betas = {0.9, 1}; }), "embedding.betas is 1");
  STOA_EXPECT_CONTAINS(refused([](auto& o) { o.betas = {0.9}; }), "embedding.betas has 1");
  STOA_EXPECT_CONTAINS(refused([](auto& o) { o.l2 = 0.5; }), "embedding.l2 is 0.5 with clip_ratio 1");
  STOA_EXPECT_CONTAINS(refused([](auto& o) {
                         o.clip = RowClip::kGlobal;
                         o.clip_floor = 0;
                       }),
                       "embedding.clip_floor is 0");
}

TEST(EmbeddingOptions, AreReadFromARecipe) {
  EmbeddingOptions options;
  read_options(Config::from_text(
                   "absent = \"dense\"\nclip = \"field_adaptive\"\nfloor = \"paper\"\nl2 = 1e-3", "recipe"),
               options);
  EXPECT_EQ(options.absent, AbsentRows::kDense);
  EXPECT_EQ(options.clip, RowClip::kFieldAdaptive);
  EXPECT_EQ(options.floor, ClipFloor::kPaper);
  EXPECT_EQ(options.l2, 1e-3);
}

}  // namespace
}  // namespace stoa::nn
