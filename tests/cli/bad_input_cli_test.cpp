// Each bad input gets one line that names the thing and the cure, and the exit code of its kind.
#include <gtest/gtest.h>

#include "stoa/base/files.h"
#include "support/image_files.h"
#include "support/program.h"
#include "support/thrown.h"

namespace stoa::test {
namespace {

namespace fs = std::filesystem;

struct Bad {
  const char* name;
  std::vector<std::string> set;  // what is wrong with the recipe
  int exit_code;
  std::vector<const char*> parts;  // of the line
};
void PrintTo(const Bad& bad, std::ostream* out) {
  *out << bad.name;
}

// Trains with the changes and checks how that is refused; the line.
std::string refuse(const TempDir& folder, const std::vector<std::string>& set, int exit_code) {
  std::vector<std::string> command = {"train", "tiny.toml", "--quiet", "--out", "run"};
  for (const std::string& assignment : set) command.insert(command.end(), {"--set", assignment});
  const Ended ended = run_stoa(command, folder.path());
  EXPECT_EQ(ended.exit_code, exit_code) << ended.errors;
  EXPECT_EQ(line_count(ended.errors), 1) << ended.errors;
  EXPECT_TRUE(ended.errors.starts_with("stoa: ")) << ended.errors;
  EXPECT_EQ(ended.output, "");
  return ended.errors;
}

class BadRecipe : public ::testing::TestWithParam<Bad> {};

TEST_P(BadRecipe, IsRefusedInOneLine) {
  const TempDir folder;
  write_tiny_recipe(folder / "tiny.toml");
  const std::string line = refuse(folder, GetParam().set, GetParam().exit_code);
  for (const char* part : GetParam().parts) STOA_EXPECT_CONTAINS(line, part);
}

const std::vector<Bad> kBadRecipes = {
    {"UnknownKey", {"train.bach_size=4"}, 2, {"--set train.bach_size=4", "`train.batch_size`"}},
    {"UnknownTable", {"trian.steps=4"}, 2, {"`train`"}},
    {"WrongType", {"train.steps=4.0"}, 2, {"train.steps", "an integer is needed", "write 4"}},
    {"TextForNumber", {"optimizer.lr='fast'"}, 2, {"optimizer.lr", "a number is needed"}},
    {"UnknownChoice", {"data.format='sinthetic'"}, 2, {"data.format", "\"synthetic\""}},
    {"UnknownTask", {"task.name='image_clasification'"}, 2, {"`image_classification`"}},
    {"UnknownModel", {"model.name='widenet'"}, 2, {"`wide_net`"}},
    {"KeyOfAnotherOptimizer", {"optimizer.name='adamw'", "optimizer.momentum=0.5"}, 2, {"sgd"}},
    {"MoreChoicesThanExperts",
     {"model.router.top_k=3"},
     2,
     {"--set model.router.top_k=3: `model.router.top_k` is 3", "`model.router.experts` = 2"}},
    {"NegativeRate", {"optimizer.lr=-1"}, 2, {"--set optimizer.lr=-1: `optimizer.lr` is -1"}},
    {"NegativeWarmup", {"schedule.warmup=-1"}, 2, {"--set schedule.warmup=-1: `schedule.warmup` is -1"}},
    {"NoClasses", {"data.classes=0"}, 2, {"--set data.classes=0: `data.classes` is 0"}},
    {"NegativeMixup",
     {"data.augment.mixup=-1"},
     2,
     {"--set data.augment.mixup=-1: `data.augment.mixup` is -1"}},
    {"NoCapacity", {"model.router.experts=8", "model.router.capacity_factor=0.1"}, 2, {"capacity"}},
    {"HeadsDoNotDivideDim", {"model.heads=3"}, 2, {"model.heads", "model.dim", "16"}},
    {"PatchDoesNotDivideImage", {"model.patch=3"}, 2, {"model.patch", "data.image_size", "8"}},
    {"NegativeBatch", {"train.batch_size=0"}, 2, {"train.batch_size", "at least 1"}},
    {"NoLength", {"train.steps=0"}, 2, {"train.steps", "train.epochs"}},
    {"NotAnAssignment", {"train.steps"}, 2, {"train.steps", "="}},
    {"NoData", {"data.format='idx'", "data.path='nowhere'"}, 3, {"nowhere"}},
    {"NoGpu", {"runtime.device='cuda:63'"}, 4, {"cuda:63", "cpu"}},
    {"UnknownDevice", {"runtime.device='gpu'"}, 2, {"gpu", "cuda"}},
    {"NoMemory",
     {"model.dim=4194304", "model.mlp_dim=4194304", "model.share_mlp=true"},
     4,
     {"out of memory", "TiB"}},
    {"LossNotFinite",
     {"model.mixture_layers=0", "optimizer.name='sgd'", "optimizer.lr=1e30", "checkpoint.every=1"},
     1,
     {"step 2", "the last good checkpoint is run/checkpoints/step-1", "optimizer.lr"}},
};

INSTANTIATE_TEST_SUITE_P(All, BadRecipe, ::testing::ValuesIn(kBadRecipes),
                         [](const auto& info) { return std::string(info.param.name); });

// "tiny.toml:30", the last line of the recipe.
std::string last_line(const TempDir& folder) {
  return "tiny.toml:" + std::to_string(line_count(read_file(folder / "tiny.toml")));
}

TEST(BadRecipeFile, AMisspeltKeyIsShownWithFileAndLine) {
  const TempDir folder;
  write_tiny_recipe(folder / "tiny.toml", "[optimizer]\nlearning_rte = 1\n");
  STOA_EXPECT_CONTAINS(refuse(folder, {}, 2), last_line(folder) + ": unknown key");
}

TEST(BadRecipeFile, ASyntaxErrorIsShownWithItsLine) {
  const TempDir folder;
  write_tiny_recipe(folder / "tiny.toml", "steps = = 3\n");
  STOA_EXPECT_CONTAINS(refuse(folder, {}, 2), last_line(folder));
}

TEST(BadRecipeFile, LeavesNoRunFolder) {
  const TempDir folder;
  write_tiny_recipe(folder / "tiny.toml");
  refuse(folder, {"data.format='idx'", "data.path='nowhere'"}, 3);
  EXPECT_FALSE(fs::exists(folder / "run"));
}

TEST(BadRecipeFile, AFolderThatCannotBeMadeIsNamed) {
  const TempDir folder;
  write_tiny_recipe(folder / "tiny.toml");
  std::ofstream(folder / "run") << "a file";
  STOA_EXPECT_CONTAINS(refuse(folder, {}, 1), "run");
}

// ------------------------------------------------------------------ data

const std::vector<std::string> kIdx = {"data.format='idx'", "data.path='data'"};

// Eight 8 x 8 images in both splits, with labels from `labels`.
void write_idx(const fs::path& folder, const Bytes& labels) {
  for (const std::string split : {"train", "t10k"}) {
    save(folder / (split + "-images-idx3-ubyte.gz"), gzip(idx({8, 8, 8}, Bytes(512, 100))));
    save(folder / (split + "-labels-idx1-ubyte.gz"), gzip(idx({8}, labels)));
  }
}

struct BadData : ::testing::Test {
  BadData() { write_tiny_recipe(folder / "tiny.toml"); }
  TempDir folder;
};

TEST_F(BadData, GoodIdxFilesAreTaken) {
  write_idx(folder / "data", {0, 1, 2, 3, 0, 1, 2, 3});
  EXPECT_EQ(run_stoa({"train", "tiny.toml", "--set", kIdx[0], "--set", kIdx[1]}, folder.path()).exit_code, 0);
}

TEST_F(BadData, ALabelOutOfRangeIsNamed) {
  write_idx(folder / "data", {0, 1, 2, 9, 0, 1, 2, 3});
  const std::string line = refuse(folder, kIdx, 3);
  STOA_EXPECT_CONTAINS(line, "labels-idx1-ubyte");
  STOA_EXPECT_CONTAINS(line, "9");
}

TEST_F(BadData, ATruncatedGzipFileIsNamed) {
  write_idx(folder / "data", {0, 1, 2, 3, 0, 1, 2, 3});
  const fs::path file = folder / "data/train-images-idx3-ubyte.gz";
  const Bytes whole = load(file);
  save(file, cut(whole, whole.size() - 9));
  STOA_EXPECT_CONTAINS(refuse(folder, kIdx, 3), "train-images-idx3-ubyte.gz");
}

TEST_F(BadData, AnEmptyFolderIsNamed) {
  fs::create_directories(folder / "data/train");
  fs::create_directories(folder / "data/test");
  STOA_EXPECT_CONTAINS(refuse(folder, {"data.format='folder'", "data.path='data'"}, 3), "data/train");
}

void write_folders(const fs::path& data, const std::vector<std::string>& classes) {
  const Bytes picture = jpeg(8, 8, Bytes(192, 90));
  for (const std::string split : {"train", "test"})
    for (const std::string& name : classes)
      for (const std::string number : {"1", "2", "3"}) save(data / split / name / (number + ".jpg"), picture);
}

TEST_F(BadData, ATruncatedJpegIsNamed) {
  write_folders(folder / "data", {"ant", "bee", "cow", "dog"});
  for (const std::string number : {"1", "2", "3"}) {
    const fs::path file = folder / "data/train/bee" / (number + ".jpg");
    save(file, cut(load(file), 200));
  }
  STOA_EXPECT_CONTAINS(refuse(folder, {"data.format='folder'", "data.path='data'"}, 3), "bee/");
}

TEST_F(BadData, AClassCountOtherThanTheRecipesIsNamed) {
  write_folders(folder / "data", {"ant", "bee", "cow"});
  const std::string line = refuse(folder, {"data.format='folder'", "data.path='data'"}, 3);
  STOA_EXPECT_CONTAINS(line, "3");
  STOA_EXPECT_CONTAINS(line, "data.classes");
}

TEST_F(BadData, AClassCountOtherThanTheCheckpointsIsNamed) {
  write_folders(folder / "data", {"ant", "bee", "cow", "dog"});
  ASSERT_EQ(run_stoa({"train", "tiny.toml", "--out", "run", "--set", "data.format='folder'", "--set",
                      "data.path='data'"},
                     folder.path())
                .exit_code,
            0);
  write_folders(folder / "data", {"emu"});
  const Ended ended = run_stoa({"eval", "run", "--quiet"}, folder.path());
  EXPECT_EQ(ended.exit_code, 3);
  EXPECT_EQ(line_count(ended.errors), 1) << ended.errors;
  STOA_EXPECT_CONTAINS(ended.errors, "5");
  STOA_EXPECT_CONTAINS(ended.errors, "4");
}

TEST_F(BadData, ATruncatedTfRecordIsNamed) {
  const Bytes record = tf_record(image_example(jpeg(8, 8, Bytes(192, 90)), 1));
  save(folder / "data/train-00000-of-00001", cut(record, record.size() - 3));
  save(folder / "data/validation-00000-of-00001", record);
  STOA_EXPECT_CONTAINS(refuse(folder, {"data.format='tfrecord'", "data.path='data'"}, 3),
                       "train-00000-of-00001");
}

TEST_F(BadData, AFolderThatIsNoRunIsNamed) {
  for (const std::string command : {"eval", "report"}) {
    const Ended ended = run_stoa({command, folder.path().string()});
    EXPECT_EQ(ended.exit_code, 2);
    STOA_EXPECT_CONTAINS(ended.errors, "has no recipe.toml");
  }
}

}  // namespace
}  // namespace stoa::test
