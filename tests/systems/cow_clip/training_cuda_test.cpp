// Tables in memory, the network on a GPU: training there ends where it does on the CPU.
#include <gtest/gtest.h>
#include <torch/cuda.h>

#include "stoa/base/config.h"
#include "stoa/systems/catalog.h"
#include "stoa/train/trainer.h"
#include "support/temp_dir.h"

namespace stoa {
namespace {

/// A short run of a small recipe on a device: its metrics.
Metrics train(const std::string& network, const std::string& device) {
  const test::TempDir dir;
  TrainRequest request;
  request.recipe = Config::from_file(STOA_SOURCE_DIR "/recipes/cow_clip/zipf.toml");
  for (const std::string& set : std::vector<std::string>{
           "train.epochs=0", "train.steps=200", "train.micro_batch_size=50", "train.eval_every=0",
           "data.zipf.ids=500", "data.zipf.train_rows=20000", "data.zipf.test_rows=5000",
           "embedding.clip=\"cowclip\"", "model.fusion_heads=8", "runtime.precision=\"fp32\"",
           "model.network=\"" + network + "\"", "runtime.device=\"" + device + "\""})
    request.recipe->set(set);
  request.out = dir / "run";
  return run_training(request, catalog()).metrics;
}

class CowClipOnCuda : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (!torch::cuda::is_available()) GTEST_SKIP() << "LibTorch sees no CUDA device";
  }
};

TEST_P(CowClipOnCuda, TrainsAsOnTheCpu) {
  const auto cpu = train(GetParam(), "cpu"), gpu = train(GetParam(), "cuda");
  EXPECT_NEAR(gpu["auc"], cpu["auc"], 2e-3);
  EXPECT_NEAR(gpu["logloss"], cpu["logloss"], 2e-3);
}

INSTANTIATE_TEST_SUITE_P(Networks, CowClipOnCuda,
                         ::testing::Values("deepfm", "dcn", "dcn_v2_mix", "dcn_v2", "final_mlp"));

}  // namespace
}  // namespace stoa
