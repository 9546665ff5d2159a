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
  if (compared) test::expect_close_to_measured(test::predicted(recipe, 2), measured, what);
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

/// Experts that choose are equally busy, so that both processes have as many rows as planned.
STOA_PROCESS_TEST(PlanMemory, OfExpertsDealtOut, 2) {
  check("experts dealt out", "data = 2\nexpert = 2", "", true,
        "mixture_layers = -1\n[model.router]\nexperts = 8\ntop_k = 2\nrouting = "
        "\"expert_choice\"\ncapacity_factor = 1.0\n");
}

}  // namespace
}  // namespace stoa
