#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "stoa/base/config.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/systems/catalog.h"
#include "stoa/train/events.h"
#include "stoa/train/trainer.h"

// Small language models on made-up text, for tests of whole runs.
namespace stoa::test {

inline constexpr const char* kTextRecipe = R"(
[task]
name = "{1}"
[data]
train = ["{0}/text.txt"]
eval = ["{0}/text.txt"]
tokenizer = "{0}/vocab.txt"
length = 30
{2}
[model]
name = "text_transformer"
dim = 24
depth = 2
heads = 4
mlp_dim = 48
positions = 30
segments = 2
dropout = 0.2
attention_dropout = 0.3
[optimizer]
lr = 1e-3
[schedule]
name = "constant"
[train]
steps = 20
batch_size = 6
micro_batch_size = 4
log_every = 1
eval_every = 10
eval_batch_size = 5
workers = 0
[runtime]
threads = 1
precision = "fp32"
)";

/// Documents of a few sentences of made-up words, so that sequences have padding, and the recipes
/// masked_text.toml and causal_text.toml.
inline void write_text(const std::filesystem::path& folder) {
  std::string text, words = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n";
  for (int i = 0; i < 40; ++i) words += format("w{}\n", i);
  for (int document = 0; document < 12; ++document, text += "\n")
    for (int sentence = 0; sentence < 3 + document % 3; ++sentence, text += ".\n")
      for (int word = 0; word < 4 + (5 * document + 3 * sentence) % 7; ++word)
        text += format("w{} ", (document * 7 + sentence * 5 + word * (1 + document % 4)) % 40);
  write_file_atomically(folder / "text.txt", text);
  write_file_atomically(folder / "vocab.txt", words);
  for (const auto& [name, more] : std::vector<std::pair<std::string, std::string>>{
           {"masked_text", "pairs = \"sentence_order\""}, {"causal_text", ""}}) {
    std::string recipe = kTextRecipe;
    const auto fill = [&](const std::string& place, const std::string& value) {
      for (std::size_t at; (at = recipe.find(place)) != std::string::npos;)
        recipe.replace(at, place.size(), value);
    };
    fill("{0}", folder.string());
    fill("{1}", name);
    fill("{2}", more);
    write_file_atomically(folder / (name + ".toml"), recipe);
  }
}

inline void train_text(const std::filesystem::path& recipe, const std::filesystem::path& out,
                       const std::vector<std::string>& set) {
  Config config = Config::from_file(recipe);
  for (const auto& assignment : set) config.set(assignment);
  run_training({.recipe = config, .out = out, .resume = {}, .resume_step = {}}, catalog());
}

inline std::vector<std::string> words_of(const std::string& text) {
  std::vector<std::string> words;
  std::istringstream stream(text);
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

/// Every number of the log is the same but for rounding in fp32: of 20 steps some 1e-7 was seen at most.
inline void expect_equal_runs(const std::filesystem::path& wanted, const std::filesystem::path& found) {
  const auto one = read_events(wanted), many = read_events(found);
  ASSERT_EQ(one.size(), 22u);
  ASSERT_EQ(many.size(), one.size());
  for (std::size_t i = 0; i < one.size(); ++i)
    for (const auto& [name, value] : one[i].items()) {
      if (!value.is_number() || name.starts_with("seconds") || name == "samples_per_second") continue;
      const double expected = value.get<double>();
      EXPECT_NEAR(many[i].at(name).get<double>(), expected, 1e-6 * std::max(1e-3, std::abs(expected)))
          << "line " << i << ", " << name;
    }
}

}  // namespace stoa::test
