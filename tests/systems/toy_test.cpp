// The walk-through of docs/adding_a_system.md, built and run: the page's code is the code compiled here.
#include <gtest/gtest.h>

#include "stoa/base/files.h"
#include "stoa/nn/parameters.h"
#include "stoa/systems/toy/model.cpp"  // in tests/, and in this file: the toy has no library of its own
#include "stoa/train/trainer.h"
#include "support/image_files.h"
#include "support/temp_dir.h"
#include "support/thrown.h"

namespace stoa {
namespace {

const std::string kRoot = STOA_SOURCE_DIR;

Catalog toy_catalog() {
  return {image_classification<toy::Toy, toy::ToyOptions>("toy", "one hidden layer on pixels")};
}

std::string page() {
  return read_file(kRoot + "/docs/adding_a_system.md");
}

std::string code_block(const std::string& language) {
  const std::string text = page(), open = "```" + language + "\n";
  const auto begin = text.find(open) + open.size();
  return text.substr(begin, text.find("```", begin) - begin);
}

TEST(AddingASystem, ThePageHoldsTheCodeOfThisTest) {
  for (const char* file : {"model.h", "model.cpp"})
    STOA_EXPECT_CONTAINS(page(), "`src/stoa/systems/toy/" + std::string(file) + "`:\n\n```cpp\n" +
                                     read_file(kRoot + "/tests/stoa/systems/toy/" + file) + "```");
  STOA_EXPECT_CONTAINS(page(), "```cpp\n#include \"stoa/systems/toy/model.h\"\n```");
  // as in toy_catalog()
  STOA_EXPECT_CONTAINS(
      page(),
      "image_classification<toy::Toy, toy::ToyOptions>(\"toy\", \"one hidden layer on pixels\"),\n```");
}

TEST(AddingASystem, TheToyTakesUnderSixtyLines) {
  std::size_t lines = 0;
  for (const char* file : {"model.h", "model.cpp"}) {
    const auto text = read_file(kRoot + "/tests/stoa/systems/toy/" + file);
    lines += static_cast<std::size_t>(std::ranges::count(text, '\n'));
  }
  EXPECT_LT(lines, 60u);
}

TEST(AddingASystem, TheToyTrainsFromThePagesRecipe) {
  const test::TempDir folder;
  TrainRequest request;
  request.recipe = Config::from_text(code_block("toml"), "page");
  request.out = folder / "run";
  const auto catalog = toy_catalog();
  const auto result = run_training(request, catalog);
  EXPECT_EQ(result.steps, 60);
  EXPECT_GT(result.metrics["accuracy"], 0.5);  // chance is 0.25

  auto loaded = load_run(folder / "run", catalog, "last", /*open_data=*/false);
  EXPECT_EQ(loaded.step, 60);
  const std::string picture = (folder / "picture.png").string();
  test::save(picture, test::plain_png(8, 200));
  const auto answers = loaded.task->predict(std::vector{picture});
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_EQ(answers[0].json["top"].size(), 4u);
}

TEST(AddingASystem, ThePagesRecipeHasADescription) {
  EXPECT_FALSE(read_recipe(Config::from_text(code_block("toml"), "page"), toy_catalog()).description.empty());
}

TEST(AddingASystem, MisspeltKeysOfTheToyAreNamed) {
  auto config = Config::from_text(code_block("toml"), "page");
  config.set("model.hiden=4");
  EXPECT_NE(test::thrown<ConfigError>([&] { read_recipe(config, toy_catalog()); }).find("`model.hidden`"),
            std::string::npos);
}

}  // namespace
}  // namespace stoa
