// Checkpoints of several processes for which the disk has no room: all end at once, nothing half-written
// stays, and the run goes on from the checkpoint before as if nothing had been.
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "stoa/base/errors.h"
#include "stoa/base/interrupt.h"
#include "stoa/dist/errors.h"
#include "stoa/systems/text_transformer/model.h"
#include "stoa/tasks/causal_text.h"
#include "stoa/train/checkpoint.h"
#include "stoa/train/trainer.h"
#include "support/processes.h"
#include "support/temp_dir.h"
#include "support/text_runs.h"
#include "support/thrown.h"
#include "support/toy_runs.h"

namespace stoa {
namespace {

namespace fs = std::filesystem;

std::string asked(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

/// A user who stops the run in its first step, where the test asks for it.
class StoppedText : public text_transformer::TextTransformerImpl {
 public:
  using TextTransformerImpl::forward;
  using TextTransformerImpl::TextTransformerImpl;
  TextOutput forward(const nn::PackedTokens& tokens) override {
    if (is_training() && asked("STOA_TEST_STOPS") == "1" && !std::exchange(stopped_, true))
      std::raise(SIGINT);
    return TextTransformerImpl::forward(tokens);
  }

 private:
  bool stopped_ = false;
};

const Catalog& stopped_catalog() {
  static const Catalog entries = {
      causal_text<StoppedText, text_transformer::TextTransformerOptions>("text_transformer",
                                                                         "may be stopped"),
  };
  return entries;
}

/// Weights of half a megabyte, of which a file is written in several pieces while they come. Waiting for time
/// to be over would take longer than the processes are given.
constexpr const char* kSet =
    "model.dim=64 model.depth=4 model.mlp_dim=128 train.steps=6 train.eval_every=3 train.micro_batch_size=3 "
    "train.ema=0.9 checkpoint.every=2 checkpoint.keep_last=100 parallel.timeout=300 ";

STOA_PROCESS_BODY(train) {
  auto config = Config::from_file(asked("STOA_TEST_RECIPE"));
  for (const auto& assignment : test::words_of(kSet + asked("STOA_TEST_SET"))) config.set(assignment);
  run_training({.recipe = config, .out = asked("STOA_TEST_RUN"), .resume = {}, .resume_step = {}},
               stopped_catalog());
}

/// Goes on from a step, from the newest where none is given.
void go_on() {
  const auto step = asked("STOA_TEST_STEP");
  run_training({.recipe = {},
                .out = {},
                .resume = asked("STOA_TEST_RUN"),
                .resume_step = step.empty() ? std::nullopt : std::optional<std::int64_t>(std::stoll(step))},
               stopped_catalog());
}

STOA_PROCESS_BODY(resume) {
  go_on();
}

/// Bytes that the line of a write that failed says there were so far.
double bytes_in(const std::string& message) {
  const auto end = message.find(" bytes were being written");
  const auto begin = message.rfind(' ', end - 1);
  return end == std::string::npos ? -1 : std::atof(message.substr(begin).c_str());
}

/// Goes on until a checkpoint cannot be written. No file grows beyond STOA_TEST_LIMIT bytes, if it is given.
STOA_PROCESS_BODY(fail) {
  if (const auto limit = asked("STOA_TEST_LIMIT"); !limit.empty()) {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit most{std::stoul(limit), RLIM_INFINITY};
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &most), 0);
  }
  install_interrupt_handler();
  const bool writes = asked("RANK") == "0";
  const auto message = writes ? test::thrown<IoError>(go_on) : test::thrown<dist::DistributedError>(go_on);
  EXPECT_EQ(std::ranges::count(message, '\n'), 0) << message;
  if (!writes) {
    STOA_EXPECT_CONTAINS(message, "another rank ended");
    return;
  }
  STOA_EXPECT_CONTAINS(message, "optimizer.safetensors: ");
  STOA_EXPECT_CONTAINS(message, asked("STOA_TEST_REASON"));
  STOA_EXPECT_CONTAINS(message, "the checkpoint of step " + asked("STOA_TEST_STEP") +
                                    " is unharmed: go on from it with --resume");
  EXPECT_GT(bytes_in(message), 0) << message;
  EXPECT_LT(bytes_in(message), std::stod(asked("STOA_TEST_WHOLE"))) << "all was there already: " << message;
}

constexpr const char *kTooLarge = "File too large; ", *kFull = "free space and try again";

struct Split {
  const char* set;
  int step;              ///< after whose checkpoint no other can be written
  bool stopped = false;  ///< the user stops the run in the step that follows
};

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename());
  std::ranges::sort(names);
  return names;
}

/// Two processes, and one run of theirs that nothing disturbs.
class FullDisk : public testing::Test {
 protected:
  FullDisk() { test::write_text(folder_.path()); }

  void train(const char* set) {
    test::expect_processes("train", 2,
                           {.environment = {{"STOA_TEST_RECIPE", folder_ / "causal_text.toml"},
                                            {"STOA_TEST_RUN", whole()},
                                            {"STOA_TEST_SET", set}}});
  }

  /// Copies the whole run as it was at a step, so that the steps that follow are done once more.
  void copy_until(int step, const fs::path& run) const {
    fs::copy(whole(), run, fs::copy_options::recursive);
    CheckpointStore(run / "checkpoints").remove_after(step);
  }

  void expect_failure(const fs::path& run, const Split& split, const char* reason,
                      const std::string& limit = "") const {
    const auto earlier = names_in(run / "checkpoints");
    test::expect_processes(
        "fail", 2,
        {.timeout_s = 100,
         .environment = {{"STOA_TEST_RUN", run},
                         {"STOA_TEST_STEP", std::to_string(split.step)},
                         {"STOA_TEST_STOPS", split.stopped ? "1" : "0"},
                         {"STOA_TEST_LIMIT", limit},
                         {"STOA_TEST_REASON", reason},
                         {"STOA_TEST_WHOLE", std::to_string(size_of("optimizer.safetensors"))}}});
    EXPECT_EQ(names_in(run / "checkpoints"), earlier);
  }

  void expect_end_of_whole(const fs::path& run) const {
    test::expect_processes("resume", 2, {.environment = {{"STOA_TEST_RUN", run}}});
    if (!HasFailure()) test::expect_same_end(run, whole(), 6);
  }

  /// Of a file of a checkpoint.
  std::uintmax_t size_of(const char* file) const {
    return fs::file_size(whole() / "checkpoints/step-2" / file);
  }
  fs::path whole() const { return folder_ / "whole"; }

  test::TempDir folder_;
};

/// The optimiser's file, after that of the model, is cut short while others still have parts of it.
class LimitedFiles : public FullDisk, public testing::WithParamInterface<Split> {};

TEST_P(LimitedFiles, EndAllAndTheRunGoesOnToTheSameEnd) {
  const auto run = folder_ / "run";
  train(GetParam().set);
  if (HasFailure()) return;
  copy_until(GetParam().step, run);
  const auto limit = size_of("model.safetensors") * 5 / 4;
  expect_failure(run, GetParam(), kTooLarge, std::to_string(limit));
  if (!HasFailure()) expect_end_of_whole(run);
}

constexpr Split kSplits[] = {
    {"parallel.data=2", 4},  // after the last step rank 1 has nothing more to do
    {"parallel.data=2", 2, /*stopped=*/true},
    {"parallel.zero=3", 2},
    {"parallel.tensor=2", 2},
    {"parallel.pipeline=2", 2},
};

INSTANTIATE_TEST_SUITE_P(All, LimitedFiles, testing::ValuesIn(kSplits), [](const auto& each) {
  std::string name = each.param.set + std::string("_from_") + std::to_string(each.param.step);
  std::ranges::replace_if(
      name, [](char c) { return c == '.' || c == '='; }, '_');
  return name;
});

/// A file system in memory of `bytes`, mounted while it lives.
class SmallDisk {
 public:
  SmallDisk(fs::path place, std::uintmax_t bytes) : place_(std::move(place)) {
    fs::create_directories(place_);
    mount(bytes, 0);
  }
  ~SmallDisk() {
    if (error_ == 0) ::umount2(place_.c_str(), MNT_DETACH);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;

  int error() const { return error_; }
  void grow(std::uintmax_t bytes) { mount(bytes, MS_REMOUNT); }

 private:
  void mount(std::uintmax_t bytes, unsigned long flags) {
    const auto size = "size=" + std::to_string(bytes);
    error_ = ::mount("stoa-test", place_.c_str(), "tmpfs", flags, size.c_str()) == 0 ? 0 : errno;
  }

  fs::path place_;
  int error_ = 0;
};

/// What a folder takes of a disk: blocks of 4 kB.
std::uintmax_t blocks_of(const fs::path& folder) {
  std::uintmax_t bytes = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    bytes += entry.is_regular_file() ? (entry.file_size() + 4095) / 4096 * 4096 : 0;
  return bytes;
}

TEST_F(FullDisk, WithoutSpaceLeftEndsAllAndTheRunGoesOnWhereThereIsSome) {
  const Split split{"parallel.tensor=2", 2};
  train(split.set);
  if (HasFailure()) return;
  copy_until(split.step, folder_ / "copy");
  const auto used = blocks_of(folder_ / "copy");
  SmallDisk disk(folder_ / "disk", used + size_of("model.safetensors") * 3 / 2);
  if (disk.error() != 0)
    GTEST_SKIP() << "no file system can be mounted here: " << std::strerror(disk.error());
  const auto run = folder_ / "disk/run";
  fs::copy(folder_ / "copy", run, fs::copy_options::recursive);
  expect_failure(run, split, kFull);
  if (HasFailure()) return;
  EXPECT_LE(blocks_of(run), used + 4096 * 4) << "more than some lines of the log";
  disk.grow(10 * used);
  expect_end_of_whole(run);
}

}  // namespace
}  // namespace stoa
