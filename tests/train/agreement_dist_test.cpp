// What the processes of a run compare before it begins.
#include "stoa/train/agreement.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <utility>

#include "stoa/base/format.h"
#include "stoa/dist/errors.h"
#include "support/processes.h"
#include "support/thrown.h"
#include "support/toy_task.h"

namespace stoa {
namespace {

using dist::DistributedError;
using test::thrown;

/// The toy, of whose data this process may have another copy.
class CopiedToy : public test::ToyTask {
 public:
  explicit CopiedToy(std::int64_t samples = 200) : ToyTask({.samples = samples}) {}

  Json metadata() const override { return known; }
  std::unique_ptr<BatchSource> train_batches(const BatchPlan& plan) override {
    read.push_back(plan.batch_size);
    return shuffled_batches(train_samples(), plan, [this](const std::vector<SampleKey>& keys) {
      std::vector<std::int64_t> indices;
      for (const auto& key : keys) indices.push_back(key.index);
      Batch batch = samples(at::tensor(indices));
      batch.tensors["y"].masked_fill_(at::tensor(indices).eq(altered), 0.5);
      return batch;
    });
  }

  Json known = {{"classes", {"a", "b"}}};
  std::int64_t altered = -1;       // the sample that is another one here
  std::vector<std::int64_t> read;  // sizes of the batches asked for
};

TrainOptions options_of(std::int64_t batch_size) {
  TrainOptions options;
  options.batch_size = batch_size;
  return options;
}

/// Every rank throws, and names the first that differs, which is rank 1.
template <class Work>
void expect_refused(const std::string& about, const Work& work) {
  const auto message = thrown<DistributedError>(work);
  STOA_EXPECT_CONTAINS(message, "agreeing on `" + about);
  STOA_EXPECT_CONTAINS(message, "failed: rank 1 with `");
}

// teams whose agreement failed are of no more use, so each fact has a body of its own
const Team& team() {
  static const auto* const one = new Team(dist::ParallelOptions{});
  return *one;
}
bool differs() {
  return std::getenv("RANK") == std::string("1");
}

STOA_PROCESS_TEST(Agreement, CopiesThatLieElsewhereAreTheSame, 2) {
  CopiedToy task;
  const std::string folder = format("/scratch/{}", differs() ? "of_another" : "of_one");
  task.known["tokenizer"] = {{"place", folder + "/vocab.txt"}, {"fingerprint", "17"}};
  task.known["files"] = {folder + "/a", folder + "/b"};
  agree_on_program(team(), {.device = c10::kCPU, .threads = differs() ? 1 : 2});
  agree_on_samples(team(), task);
  agree_on_batches(team(), task, options_of(8));
}

STOA_PROCESS_TEST(Agreement, SeesAnotherNumberOfSamples, 3) {
  const CopiedToy task(differs() ? 201 : 200);
  expect_refused("the data, 20", [&] { agree_on_samples(team(), task); });
}

STOA_PROCESS_TEST(Agreement, SeesAnotherVocabulary, 3) {
  CopiedToy task;
  task.known["tokenizer"] = {{"place", "/one/vocab.txt"}, {"fingerprint", differs() ? "18" : "17"}};
  expect_refused("the data, 200 training samples", [&] { agree_on_samples(team(), task); });
}

// of 200 samples, whatever the batch, all are looked at
STOA_PROCESS_TEST(Agreement, SeesOneSampleThatDiffers, 3) {
  CopiedToy task;
  if (differs()) task.altered = 123;
  expect_refused("the first training samples", [&] { agree_on_batches(team(), task, options_of(8)); });
}

STOA_PROCESS_TEST(Agreement, SeesAnotherOrder, 3) {
  CopiedToy task;
  auto options = options_of(8);
  if (differs()) options.seed = 1;
  expect_refused("the first training samples", [&] { agree_on_batches(team(), task, options); });
}

STOA_PROCESS_TEST(Agreement, SeesAnotherPrecision, 3) {
  const auto message =
      thrown<DistributedError>([&] { agree_on_program(team(), {.device = c10::kCPU, .bf16 = differs()}); });
  STOA_EXPECT_CONTAINS(message, "failed: rank 1 with `stoa 0.");
  STOA_EXPECT_CONTAINS(message, "runtime.precision = \"bf16\"`, others with `stoa 0.");
  STOA_EXPECT_CONTAINS(message, "runtime.precision = \"fp32\"`; start every rank");
}

STOA_PROCESS_TEST(Agreement, SeesAnotherKindOfDevice, 3) {
  expect_refused("stoa 0.", [&] {
    agree_on_program(team(), {.device = differs() ? c10::Device("cuda:1") : c10::Device("cpu")});
  });
}

// of samples that are large, or very many, not all are
STOA_PROCESS_TEST(Agreement, EndsBeforeALargeDataSetDoes, 2) {
  CopiedToy task(5000);
  const auto last = samples_of_step(4999, 1, 5000, 0)[0].index;
  if (differs()) task.altered = last;
  agree_on_batches(team(), task, options_of(500));
  EXPECT_EQ(task.read, std::vector<std::int64_t>{64});
}

TEST(Agreement, AProcessAloneReadsNothing) {
  const Team alone(dist::ParallelOptions{});
  CopiedToy task;
  agree_on_program(alone, {});
  agree_on_samples(alone, task);
  agree_on_batches(alone, task, options_of(8));
  EXPECT_TRUE(task.read.empty());
}

}  // namespace
}  // namespace stoa
