#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/base/progress.h"
#include "stoa/systems/catalog.h"
#include "stoa/train/plan.h"
#include "stoa/train/trainer.h"
#include "support/temp_dir.h"
#include "support/tensor_meter.h"

// Recipes whose memory is measured in real steps and held to what `stoa plan` predicts.
namespace stoa::test {

/// Peak of the tensors of a whole training run, model and optimiser included.
inline double measured_peak(const std::string& recipe, const std::filesystem::path& run) {
  set_verbosity(Verbosity::kQuiet);
  auto& meter = TensorMeter::get();
  meter.start();
  TrainRequest request;
  request.recipe = Config::from_text(recipe, "recipe");
  request.out = run;
  run_training(request, catalog());
  return meter.peak();
}

/// What plan says of the recipe as it stands.
inline PlanMemory predicted(const std::string& text, std::int64_t devices = 1) {
  Recipe recipe = read_recipe(Config::from_text(text, "recipe"), catalog());
  const auto task = recipe.task->build({false, nullptr});
  const auto model = plan_model(recipe, *task);
  return predict_memory(model, recipe_split(model, devices), {});
}

/// Words without end, in one document, and some for evaluation: the keys of [data] that name them.
inline std::string text_data(const std::filesystem::path& folder) {
  const auto write = [&](const char* name, int words) {
    std::string text;
    for (int i = 0; i < words; ++i) text += format("the {} of number {} was {} ", i % 7, i, i * 31 % 101);
    write_file_atomically(folder / name, text);
    return (folder / name).string();
  };
  const auto train = write("train.txt", 2000), eval = write("eval.txt", 30);
  return format("train = [\"{}\"]\neval = [\"{}\"]\ntokenizer = \"bytes\"\nsentences = \"whole\"\n", train,
                eval);
}

/// What all recipes here share: few steps, batches made by the training thread, whose tensors are counted.
inline std::string training(std::int64_t batch, const std::string& more = "", int steps = 3) {
  return format(
      "[optimizer]\nname = \"adamw\"\n[train]\nsteps = {}\nbatch_size = {}\neval_batch_size = 2\nworkers = "
      "0\n{}\n[checkpoint]\nkeep_best = false\n[runtime]\nprecision = \"fp32\"\ndevice = \"cpu\"\n",
      steps, batch, more);
}

/// The prediction is within a tenth of the measurement.
inline void expect_close_to_measured(const PlanMemory& plan, double measured, const std::string& what) {
  const double ratio = plan.tensors() / measured;
  testing::Test::RecordProperty(what, std::to_string(ratio));
  EXPECT_NEAR(ratio, 1, 0.1) << what << ": predicted " << plan.tensors() / 1e6 << " MB when " << plan.moment
                             << ", measured " << measured / 1e6 << " MB";
  if (std::getenv("STOA_TEST_SHOW") != nullptr)
    std::printf("%-28s predicted %8.2f MB (%s), measured %8.2f MB, ratio %.3f\n", what.c_str(),
                plan.tensors() / 1e6, plan.moment.c_str(), measured / 1e6, ratio);
}

}  // namespace stoa::test
