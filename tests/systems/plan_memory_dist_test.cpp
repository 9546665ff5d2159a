// The same of processes that share a run: what each of them holds.
#include <gtest/gtest.h>

#include "stoa/ops/gemm.h"
#include "support/plan_shapes.h"
#include "support/processes.h"

namespace stoa {
namespace {

/// What all processes find, which the first one writes.
std::filesystem::path folder() {
  return std::getenv("STOA_TEST_MEETING");
}

void check(const std::string& what, const std::string& parallel, const std::string& train = "",
           bool compared = true, const std::string& model = "") {
  if (!ops::has_gemm_blocks()) GTEST_SKIP() << "the plan is of the fused operators, which need x86 here";
  const auto recipe =
      "[task]\nname = \"causal_text\"\n[data]\n" + test::text_data(folder()) +
      "length = 256\n[model]\nname = \"text_transformer\"\npreset = \"gpt2\"\ndim = 128\ndepth = "
      "4\nheads = 4\nmlp_dim = 512\npositions = 256\n" +
      model + "[parallel]\n" + parallel + "\n" + test::training(8, train);
  const double measured = test::measured_peak(recipe, folder() / "run");
  const auto devices = std::atoi(std::getenv("WORLD_SIZE"));
  if (compared) test::expect_close_to_measured(test::predicted(recipe, devices), measured, what);
}

/// The first of two stages, which waits with the most micro-batches.
void check_images(const std::string& what, const std::string& model) {
  if (!ops::has_gemm_blocks()) GTEST_SKIP() << "the plan is of the fused operators, which need x86 here";
  const auto recipe =
      "[task]\nname = \"image_classification\"\n[data]\nformat = \"synthetic\"\nimage_size = 32\nchannels "
      "= 3\nclasses = 10\ntrain_limit = 256\ntest_limit = 4\n[model]\nname = \"wide_net\"\npatch = 4\n" +
      model + "[parallel]\npipeline = 2\n" + test::training(24, "micro_batch_size = 6");
  const double measured = test::measured_peak(recipe, folder() / "run");
  if (std::getenv("RANK") == std::string("0"))
    test::expect_close_to_measured(test::predicted(recipe, 2), measured, what);
}

STOA_PROCESS_TEST(PlanMemory, OfSplitSequences, 2) {
  check("split sequences", "sequence = 2\norder = \"zigzag\"");
}

STOA_PROCESS_TEST(PlanMemory, OfReplicas, 2) {
  check("replicas", "data = 2");
}

STOA_PROCESS_TEST(PlanMemory, OfReplicasThatShareOutStates, 2) {
  check("replicas, ZeRO 1", "data = 2\nzero = 1");
}

STOA_PROCESS_TEST(PlanMemory, OfReplicasThatShareOutGradients, 2) {
  check("replicas, ZeRO 2", "data = 2\nzero = 2");
}

STOA_PROCESS_TEST(PlanMemory, OfReplicasThatShareOutWeights, 2) {
  check("replicas, ZeRO 3", "data = 2\nzero = 3");
}

STOA_PROCESS_TEST(PlanMemory, OfSplitMatrices, 2) {
  check("split matrices", "tensor = 2");
}

/// The plan is for the first stage, which waits with the most micro-batches.
STOA_PROCESS_TEST(PlanMemory, OfStages, 2) {
  check("stages", "pipeline = 2", "micro_batch_size = 2", std::getenv("RANK") == std::string("0"));
}

/// Each stage has the weights that the layers share, and half of what they keep.
STOA_PROCESS_TEST(PlanMemory, OfStagesThatShareTheirWeights, 2) {
  check_images("WideNet, stages",
               "dim = 128\ndepth = 6\nheads = 4\nmlp_dim = 256\n[model.router]\nexperts = "
               "4\ncapacity_factor = 0.0\n");
}

STOA_PROCESS_TEST(PlanMemory, OfStagesOfAVisionTransformer, 2) {
  check_images("ViT, stages",
               "dim = 128\ndepth = 6\nheads = 4\nmlp_dim = 512\nmixture_layers = 0\nshare_attention = "
               "false\nshare_mlp = false\n");
}

STOA_PROCESS_TEST(PlanMemory, OfStagesThatShareOutGradients, 4) {
  check("stages and replicas, ZeRO 2", "pipeline = 2\ndata = 2\nzero = 2", "micro_batch_size = 2",
        std::getenv("RANK") == std::string("0"));
}

STOA_PROCESS_TEST(PlanMemory, OfStagesThatShareOutWeights, 4) {
  check("stages and replicas, ZeRO 3", "pipeline = 2\ndata = 2\nzero = 3", "micro_batch_size = 2",
        std::getenv("RANK") == std::string("0"));
}

/// Experts that choose are equally busy, so that all processes have as many rows as planned.
void check_experts(const std::string& what, const std::string& parallel) {
  check(what, parallel, "", true,
        "mixture_layers = -1\n[model.router]\nexperts = 8\ntop_k = 2\nrouting = "
        "\"expert_choice\"\ncapacity_factor = 1.0\n");
}

STOA_PROCESS_TEST(PlanMemory, OfExpertsDealtOut, 2) {
  check_experts("experts dealt out", "data = 2\nexpert = 2");
}

STOA_PROCESS_TEST(PlanMemory, OfExpertsDealtOutTwiceThatShareOutWeights, 4) {
  check_experts("experts in two blocks, ZeRO 3", "data = 4\nexpert = 2\nzero = 3");
}

}  // namespace
}  // namespace stoa
