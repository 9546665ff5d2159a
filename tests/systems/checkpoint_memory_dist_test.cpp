// Checkpoints of models that are dealt out: rank 0 writes the file that one process writes, and no rank ever
// needs room for more than a few tensors beside what it has.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "stoa/base/config.h"
#include "stoa/base/files.h"
#include "stoa/systems/catalog.h"
#include "stoa/train/checkpoint.h"
#include "stoa/train/shared_model.h"
#include "support/processes.h"
#include "support/temp_dir.h"
#include "support/tensor_meter.h"
#include "support/text_runs.h"

namespace stoa {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFiles[] = {"model.safetensors", "optimizer.safetensors", "average.safetensors"};

/// Bytes of a checkpoint's tensors: of all, and of the largest.
struct Sizes {
  double all = 0, largest = 0;

  explicit Sizes(const Checkpoint& checkpoint) {
    for (const auto* tensors : {&checkpoint.model, &checkpoint.optimizer, &checkpoint.average})
      for (const auto& item : *tensors) {
        const auto bytes = static_cast<double>(item.second.nbytes());
        all += bytes;
        largest = std::max(largest, bytes);
      }
  }
};

/// Takes what is this process's of one process's checkpoint, and writes it with the others.
STOA_PROCESS_BODY(load_and_save) {
  auto config = Config::from_file(std::getenv("STOA_TEST_RECIPE"));
  for (const auto& assignment : test::words_of(std::getenv("STOA_TEST_SET"))) config.set(assignment);
  auto recipe = read_recipe(config, catalog());
  const Team team(recipe.parallel);
  at::manual_seed(100);  // other weights than those that are loaded
  const auto task = recipe.task->build({/*open_data=*/true, nullptr, {}});
  SharedModel model(recipe, *task, team);

  const fs::path run = std::getenv("STOA_TEST_RUN");
  auto one = CheckpointStore(run / "checkpoints").load(2);
  const Sizes sizes(one);
  ASSERT_GT(sizes.all, 60 * sizes.largest) << "too small to tell";
  auto& meter = test::TensorMeter::get();
  meter.start();
  model.load(one, "one");
  EXPECT_LE(meter.peak(), 2 * sizes.largest) << "loading";
  one = {};

  meter.start();
  auto checkpoint = model.checkpoint();
  if (team.leads()) {
    checkpoint.step = 2;
    CheckpointStore(run / std::getenv("STOA_TEST_NAME")).save(checkpoint, {}, std::nullopt, false);
  } else {
    checkpoint.bring();
  }
  EXPECT_LE(meter.peak(), std::atof(std::getenv("STOA_TEST_MOST")) * sizes.largest) << "saving";
}

struct Split {
  int world;
  const char* set;
  const char* most;  ///< what a rank may need to save it, by the largest tensor
};

/// Trains one process and has others read and write its checkpoint.
void expect_equal_files(const std::vector<Split>& splits, const std::string& common) {
  const test::TempDir folder;
  test::write_text(folder.path());
  const auto recipe = folder / "causal_text.toml", run = folder / "one";
  const auto all =
      "model.depth=12 train.steps=2 train.batch_size=12 train.ema=0.9 optimizer.name=lamb " + common;
  test::train_text(recipe, run, test::words_of(all));
  for (std::size_t i = 0; i < splits.size() && !testing::Test::HasFailure(); ++i) {
    SCOPED_TRACE(splits[i].set);
    const auto name = std::to_string(i);
    test::expect_processes("load_and_save", splits[i].world,
                           {.environment = {{"STOA_TEST_RECIPE", recipe},
                                            {"STOA_TEST_RUN", run},
                                            {"STOA_TEST_NAME", name},
                                            {"STOA_TEST_MOST", splits[i].most},
                                            {"STOA_TEST_SET", all + " " + splits[i].set}}});
    for (const char* file : kFiles)
      EXPECT_EQ(read_file(run / name / "step-2" / file), read_file(run / "checkpoints/step-2" / file))
          << file;
  }
}

TEST(SplitCheckpoints, AreWrittenAndReadTensorByTensor) {
  expect_equal_files({{2, "parallel.pipeline=2", "1.1"},
                      {3, "parallel.zero=3", "1.1"},
                      {2, "parallel.tensor=2", "1.6"},
                      {4, "parallel.tensor=2 parallel.zero=3", "2.1"}},
                     "train.micro_batch_size=2");
}

TEST(SplitCheckpoints, OfExpertsToo) {
  expect_equal_files({{2, "parallel.expert=2", "1.1"}, {4, "parallel.expert=2 parallel.zero=3", "1.6"}},
                     "train.micro_batch_size=0 model.mixture_layers=-1 model.router.experts=2 "
                     "model.router.capacity_factor=1");
}

}  // namespace
}  // namespace stoa
