// What `stoa plan` predicts of memory, beside the tensors of real training steps.
#include <gtest/gtest.h>

#include "stoa/ops/gemm.h"
#include "support/plan_shapes.h"

namespace stoa {
namespace {

using test::TempDir;
using test::training;

void check(const std::string& what, const std::string& recipe) {
  const TempDir folder;
  test::expect_close_to_measured(test::predicted(recipe), test::measured_peak(recipe, folder / "run"), what);
}

std::string images(const std::string& model, std::int64_t batch, const std::string& more = "",
                   int steps = 3) {
  return "[task]\nname = \"image_classification\"\n[data]\nformat = \"synthetic\"\nimage_size = "
         "32\nchannels = 3\nclasses = 10\ntrain_limit = 256\ntest_limit = 4\n[model]\nname = "
         "\"wide_net\"\npatch = 4\n" +
         model + training(batch, more, steps);
}

std::string text(const TempDir& folder, const std::string& task, const std::string& data,
                 const std::string& model, std::int64_t batch, const std::string& more = "") {
  return format("[task]\nname = \"{}\"\n[data]\n{}{}[model]\nname = \"text_transformer\"\n{}", task,
                test::text_data(folder.path()), data, model) +
         training(batch, more);
}

class PlanMemory : public testing::Test {
 protected:
  void SetUp() override {
    if (!ops::has_gemm_blocks()) GTEST_SKIP() << "the plan is of the fused operators, which need x86 here";
  }
};

TEST_F(PlanMemory, OfAVisionTransformer) {
  check("ViT", images("dim = 128\ndepth = 6\nheads = 4\nmlp_dim = 512\nmixture_layers = 0\nshare_attention = "
                      "false\nshare_mlp = false\n",
                      32));
}

/// Nothing is dropped: what does not find room in an expert takes none, and the plan is for the most.
TEST_F(PlanMemory, OfWideNetWhoseLayersShareAMixture) {
  check("WideNet", images("dim = 128\ndepth = 6\nheads = 4\nmlp_dim = 256\n[model.router]\nexperts = "
                          "4\ncapacity_factor = 0.0\n",
                          24));
}

/// The plan is for the step in which the fewest rows find no room; the first ones leave out more.
TEST_F(PlanMemory, OfWideNetAsItsDefaultsAre) {
  check("WideNet, default capacity",
        images("dim = 128\ndepth = 6\nheads = 4\nmlp_dim = 256\n[model.router]\nexperts = 4\n", 24, "", 8));
}

TEST_F(PlanMemory, OfExpertsThatAreFull) {
  check("WideNet, half the capacity",
        images("dim = 128\ndepth = 3\nheads = 4\nmlp_dim = 256\n[model.router]\nexperts = "
               "4\ncapacity_factor = 0.5\n",
               16));
}

TEST_F(PlanMemory, OfExpertsThatChoose) {
  check("WideNet, expert choice",
        images("dim = 128\ndepth = 3\nheads = 4\nmlp_dim = 256\n[model.router]\nexperts = "
               "4\nrouting = \"expert_choice\"\ncapacity_factor = 1.5\n",
               16));
}

TEST_F(PlanMemory, OfAVisionTransformerWithMixturesAsTheOriginalProgramHasThem) {
  check("ViT-MoE",
        images("preset = \"code\"\ndim = 128\ndepth = 6\nheads = 4\nmlp_dim = 256\nmixture_layers = "
               "2\nshare_attention = false\nshare_mlp = false\n[model.router]\nexperts = 4\n",
               24));
}

TEST_F(PlanMemory, OfMaskedTextWithALargeVocabulary) {
  const TempDir folder;
  check("masked text, tutorial",
        text(folder, "masked_text", "length = 128\n",
             "preset = \"megatron\"\nvocabulary = 30528\ndim = 128\ndepth = 4\nheads = 4\nmlp_dim = "
             "512\npositions = 128\nsegments = 0\n",
             16));
}

TEST_F(PlanMemory, OfCausalText) {
  const TempDir folder;
  check("causal text", text(folder, "causal_text", "length = 128\n",
                            "preset = \"gpt2\"\ndim = 128\ndepth = 4\nheads = 4\nmlp_dim = 512\npositions = "
                            "128\ndropout = 0.0\nattention_dropout = 0.0\n",
                            16));
}

TEST_F(PlanMemory, OfMaskedTextInMicroBatches) {
  const TempDir folder;
  check("masked text, micro-batches",
        text(folder, "masked_text", "length = 128\n",
             "preset = \"bert\"\ndim = 192\ndepth = 4\nheads = 4\nmlp_dim = 768\npositions = 128\n", 12,
             "micro_batch_size = 4\nema = 0.99\n"));
}

TEST_F(PlanMemory, OfLinformer) {
  const TempDir folder;
  check("masked text, Linformer",
        text(folder, "masked_text", "length = 128\n",
             "preset = \"bert\"\ndim = 192\ndepth = 4\nheads = 4\nmlp_dim = 768\npositions = "
             "128\nlinformer = 32\n",
             16));
}

TEST_F(PlanMemory, OfBlocksThatRunAgain) {
  const TempDir folder;
  check(
      "causal text, recomputed",
      text(folder, "causal_text", "length = 128\n",
           "preset = \"gpt2\"\ndim = 128\ndepth = 6\nheads = 4\nmlp_dim = 512\npositions = 128\nrecompute = "
           "true\n",
           16));
}

}  // namespace
}  // namespace stoa
