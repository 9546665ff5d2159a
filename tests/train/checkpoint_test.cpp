#include "stoa/train/checkpoint.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <fstream>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "support/private_memory.h"
#include "support/temp_dir.h"
#include "support/tensor_meter.h"
#include "support/thrown.h"

namespace stoa {
namespace {

namespace fs = std::filesystem;
using test::thrown;
using Steps = std::vector<std::int64_t>;

Checkpoint checkpoint(std::int64_t step, std::int64_t size = 4) {
  const auto tensor = [&](double start) {
    return at::arange(size, at::kDouble) + start + static_cast<double>(step);
  };
  return {step,
          {{"weight", tensor(0)}, {"bias", tensor(0.1).to(at::kFloat)}},
          {{"weight.exp_avg", tensor(0.2)}, {"step", at::full({}, step, at::kLong)}},
          {{"weight", tensor(0.3)}},
          {{"table.rows", tensor(0.4)}},
          {{"metrics", {{"error", 0.1 + 0.2}}}}};
}

void expect_equal(const std::map<std::string, at::Tensor>& a, const std::map<std::string, at::Tensor>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, tensor] : a) {
    EXPECT_EQ(tensor.dtype(), b.at(name).dtype()) << name;
    EXPECT_TRUE(at::equal(tensor, b.at(name))) << name;
  }
}

/// A folder with intact checkpoints of the steps 10 and 20.
struct Store {
  test::TempDir dir;
  CheckpointStore store{dir / "checkpoints"};
  CheckpointOptions keep_all{.keep_last = 100};

  Store() {
    save(10);
    save(20);
  }
  void save(std::int64_t step, std::optional<double> value = std::nullopt) {
    save(step, value, keep_all, true);
  }
  void save(std::int64_t step, std::optional<double> value, const CheckpointOptions& options, bool higher) {
    store.save(checkpoint(step), options, value, higher);
  }
  fs::path file(std::int64_t step, const std::string& name) const {
    return dir / "checkpoints" / ("step-" + std::to_string(step)) / name;
  }
};

TEST(Checkpoint, TablesAreReadWithoutMemoryOfTheirOwn) {
  constexpr std::int64_t kBytes = 64 << 20;
  const test::TempDir dir;
  const CheckpointStore store(dir / "checkpoints");
  auto large = checkpoint(1);
  large.sparse = {{"tables.rows", at::full({kBytes / 4}, 0.5F)}};
  CheckpointStore(dir / "checkpoints").save(large, {}, std::nullopt, true);
  large = {};
  const auto before = test::private_memory();
  const auto read = store.load(1);
  EXPECT_EQ(read.sparse.at("tables.rows").sum().item<double>(), 0.5 * kBytes / 4);
  EXPECT_LT(test::private_memory(), before + kBytes / 4);
}

TEST(Checkpoint, NothingIsCopiedBeforeItIsTakenUnlessItsWeightsAloneAreAskedFor) {
  const Store s;
  s.store.load(20);  // what is made once is made
  auto& meter = test::TensorMeter::get();
  meter.start();
  const auto mapped = s.store.load(20);
  EXPECT_EQ(meter.peak(), 0);
  const auto copied = s.store.load(20, /*weights_only=*/true);
  EXPECT_GE(meter.peak(), 2 * 4 * 8);  // `weight` and its average
  copied.model.at("weight").add_(1);   // which in a mapped file would be a fault
}

/// As the checkpoint of that step, of tensors that are brought when they are asked for; notes their names.
StreamedCheckpoint streamed_checkpoint(std::int64_t step, std::vector<std::string>& brought) {
  const auto whole = checkpoint(step);
  const auto stream = [&](const std::map<std::string, at::Tensor>& tensors) {
    auto sources = streamed(tensors);
    for (auto& [name, source] : sources)
      source.bring = [&brought, name = name, tensor = std::exchange(source.tensor, {})](const auto& put) {
        brought.push_back(name);
        put(tensor);
      };
    return sources;
  };
  return {
      step,       stream(whole.model), stream(whole.optimizer), stream(whole.average), stream(whole.sparse),
      whole.state};
}

TEST(StreamedCheckpoint, IsTheSameFilesAndBroughtInTheSameOrderByWhoDoesNotWrite) {
  const Store s;
  std::vector<std::string> written, brought;
  CheckpointStore other(s.dir / "other");
  other.save(streamed_checkpoint(20, written), {}, std::nullopt, true);
  for (const char* file : {"model.safetensors", "optimizer.safetensors", "average.safetensors",
                           "sparse.safetensors", "state.json"})
    EXPECT_EQ(read_file(s.dir / "other/step-20" / file), read_file(s.file(20, file))) << file;
  streamed_checkpoint(20, brought).bring();
  EXPECT_EQ(written,
            (std::vector<std::string>{"bias", "weight", "step", "weight.exp_avg", "weight", "table.rows"}));
  EXPECT_EQ(brought, written);
}

TEST(StreamedCheckpoint, OfWhichAPartDoesNotComeLeavesTheOldCheckpointsAndNothingElse) {
  Store s;
  std::vector<std::string> brought;
  auto broken = streamed_checkpoint(30, brought);
  broken.optimizer.at("weight.exp_avg").bring = [](const PutElements&) {
    throw Error("rank 1 does not answer");
  };
  EXPECT_EQ(thrown<Error>([&] { s.store.save(broken, {.keep_last = 1}, 0.5, true); }),
            "rank 1 does not answer");
  EXPECT_EQ(s.store.steps(), (Steps{10, 20}));
  EXPECT_FALSE(fs::exists(s.dir / "checkpoints/.step-30"));
}

TEST(CheckpointStore, GivesBackWhatWasSaved) {
  const Store s;
  const Checkpoint saved = checkpoint(20), loaded = s.store.load(20);
  EXPECT_EQ(loaded.step, 20);
  expect_equal(loaded.model, saved.model);
  expect_equal(loaded.optimizer, saved.optimizer);
  expect_equal(loaded.average, saved.average);
  EXPECT_EQ(loaded.state.dump(), saved.state.dump());
}

TEST(CheckpointStore, WeightsAloneLeaveOutTheOptimizer) {
  const Store s;
  const Checkpoint loaded = s.store.load(20, /*weights_only=*/true);
  EXPECT_TRUE(loaded.optimizer.empty());
  EXPECT_EQ(loaded.average.size(), 1);
}

TEST(CheckpointStore, AStepThatIsNotThereIsAnsweredWithThoseThatAre) {
  const Store s;
  STOA_EXPECT_CONTAINS(thrown<ConfigError>([&] { s.store.load(15); }),
                       "no checkpoint of step 15; there are: 10, 20");
}

class DamagedFile : public testing::TestWithParam<const char*> {
 protected:
  void expect_refused(const std::string& reason) {
    const auto message = thrown<DataError>([&] { s.store.load(20); });
    STOA_EXPECT_CONTAINS(message, s.file(20, GetParam()).string());
    STOA_EXPECT_CONTAINS(message, reason);
    STOA_EXPECT_CONTAINS(message, "the checkpoint of step 10 is intact");
  }
  Store s;
  fs::path file = s.file(20, GetParam());
};

TEST_P(DamagedFile, CutShortIsRefused) {
  fs::resize_file(file, fs::file_size(file) - 5);
  expect_refused("");
}

TEST_P(DamagedFile, WithAFlippedBitIsRefusedWhereverItIs) {
  const std::string content = read_file(file);
  for (std::size_t i = 0; i < content.size(); i += 7) {
    std::string altered = content;
    altered[i] = static_cast<char>(altered[i] ^ 1);
    if (Json::accept(content) && Json::accept(altered) && Json::parse(altered) == Json::parse(content))
      continue;
    std::ofstream(file, std::ios::binary) << altered;
    expect_refused("");
  }
}

TEST_P(DamagedFile, ThatIsMissingIsRefused) {
  fs::remove(file);
  expect_refused("is missing");
}

TEST_P(DamagedFile, WithNoIntactCheckpointBeforeItSaysSo) {
  fs::remove(file);
  fs::remove(s.file(10, GetParam()));
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { s.store.load(20); }), "no earlier checkpoint is intact");
}

INSTANTIATE_TEST_SUITE_P(Files, DamagedFile,
                         testing::Values("model.safetensors", "optimizer.safetensors", "average.safetensors",
                                         "state.json"));

TEST(CheckpointStore, TheLastOnesAreKept) {
  Store s;
  s.save(30, std::nullopt, {.keep_last = 2}, true);
  EXPECT_EQ(s.store.steps(), (Steps{20, 30}));
}

TEST(CheckpointStore, TheBestOneIsKeptBesideThem) {
  Store s;
  for (const auto& [step, value] :
       std::vector<std::pair<std::int64_t, double>>{{30, 0.5}, {40, 0.9}, {50, 0.7}, {60, 0.6}})
    s.save(step, value, {.keep_last = 1}, true);
  EXPECT_EQ(s.store.steps(), (Steps{40, 60}));
  EXPECT_EQ(s.store.best(true), 40);
}

TEST(CheckpointStore, LessMayBeBetter) {
  Store s;
  for (const auto& [step, value] :
       std::vector<std::pair<std::int64_t, double>>{{30, 0.5}, {40, 0.9}, {50, 0.7}})
    s.save(step, value, {.keep_last = 1}, false);
  EXPECT_EQ(s.store.steps(), (Steps{30, 50}));
}

TEST(CheckpointStore, TheBestOneIsNotKeptUnasked) {
  Store s;
  s.save(30, 0.9);
  s.save(40, 0.1, {.keep_last = 1, .keep_best = false}, true);
  EXPECT_EQ(s.store.steps(), Steps{40});
}

TEST(CheckpointStore, OfEquallyGoodOnesTheFirstIsBest) {
  Store s;
  s.save(30, 0.5);
  s.save(40, 0.5);
  EXPECT_EQ(s.store.best(true), 30);
}

TEST(CheckpointStore, WithoutAMeasurementNoneIsBest) {
  EXPECT_EQ(Store().store.best(true), std::nullopt);
}

TEST(CheckpointStore, SavingAStepAgainReplacesIt) {
  Store s;
  s.save(20, 0.5);
  EXPECT_EQ(s.store.best(true), 20);
  EXPECT_EQ(s.store.steps(), (Steps{10, 20}));
}

TEST(CheckpointStore, LaterOnesCanBeRemoved) {
  const Store s;
  s.store.remove_after(10);
  EXPECT_EQ(s.store.steps(), Steps{10});
}

TEST(CheckpointStore, UnfinishedFoldersDoNotCountAndCanBeCleaned) {
  const Store s;
  fs::copy(s.file(20, ""), s.dir / "checkpoints/.step-30", fs::copy_options::recursive);
  EXPECT_EQ(s.store.steps(), (Steps{10, 20}));
  s.store.clean();
  EXPECT_FALSE(fs::exists(s.dir / "checkpoints/.step-30"));
  EXPECT_EQ(s.store.steps(), (Steps{10, 20}));
}

/// While it lives, no file can grow beyond `bytes`: what a full disk looks like.
class FullDisk {
 public:
  explicit FullDisk(rlim_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    handler_ = std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FullDisk() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }
  FullDisk(const FullDisk&) = delete;
  FullDisk& operator=(const FullDisk&) = delete;

 private:
  rlimit before_{};
  void (*handler_)(int) = nullptr;
};

TEST(CheckpointStore, AFullDiskLeavesTheOldCheckpointsAndNothingElse) {
  Store s;
  std::string message;
  {
    const FullDisk full(20000);  // of the files of 80 kB none fits
    message = thrown<IoError>([&] { s.store.save(checkpoint(30, 10000), {.keep_last = 1}, 0.5, true); });
  }
  STOA_EXPECT_CONTAINS(message, "model.safetensors");
  STOA_EXPECT_CONTAINS(message, "the checkpoint of step 20 is unharmed");
  EXPECT_EQ(s.store.steps(), (Steps{10, 20}));
  EXPECT_FALSE(fs::exists(s.dir / "checkpoints/.step-30"));
  expect_equal(s.store.load(20).model, checkpoint(20).model);
}

TEST(CheckpointStore, ADiskThatFillsUpWithinACheckpointLeavesTheOldOne) {
  Store s;
  Checkpoint large = checkpoint(20);
  large.optimizer["weight.exp_avg"] = at::zeros({10000}, at::kDouble);  // the model still fits
  {
    const FullDisk full(20000);
    STOA_EXPECT_CONTAINS(thrown<IoError>([&] { s.store.save(large, {}, 0.5, true); }),
                         "optimizer.safetensors");
  }
  expect_equal(s.store.load(20).optimizer, checkpoint(20).optimizer);
}

}  // namespace
}  // namespace stoa
