// Language models whose sequences are split over processes train as one process does.
#include <gtest/gtest.h>

#include <cstdlib>
#include <sstream>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/base/text.h"
#include "stoa/systems/catalog.h"
#include "stoa/train/events.h"
#include "stoa/train/trainer.h"
#include "support/processes.h"
#include "support/temp_dir.h"
#include "support/thrown.h"

namespace stoa {
namespace {

namespace fs = std::filesystem;
using test::TempDir;

constexpr const char* kRecipe = R"(
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

/// Documents of a few sentences of made-up words, so that sequences have padding.
void write_text(const fs::path& folder) {
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
    std::string recipe = kRecipe;
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

void train(const fs::path& recipe, const fs::path& out, const std::vector<std::string>& set) {
  Config config = Config::from_file(recipe);
  for (const auto& assignment : set) config.set(assignment);
  run_training({.recipe = config, .out = out, .resume = {}, .resume_step = {}}, catalog());
}

STOA_PROCESS_BODY(train) {
  std::vector<std::string> set;
  std::istringstream words(std::getenv("STOA_TEST_SET"));
  for (std::string word; words >> word;) set.push_back(word);
  train(std::getenv("STOA_TEST_RECIPE"), std::getenv("STOA_TEST_RUN"), set);
}

struct Case {
  std::string name, task;
  int world;
  std::string set;
};

void PrintTo(const Case& c, std::ostream* to) {
  *to << c.name;
}

class SequenceParallel : public testing::TestWithParam<Case> {};

TEST_P(SequenceParallel, TrainsAsOneProcessDoes) {
  const TempDir folder;
  write_text(folder.path());
  const fs::path recipe = folder / (GetParam().task + ".toml");
  train(recipe, folder / "one", {});
  test::expect_processes("train", GetParam().world,
                         {.environment = {{"STOA_TEST_RECIPE", recipe},
                                          {"STOA_TEST_RUN", folder / "many"},
                                          {"STOA_TEST_SET", GetParam().set}}});
  if (HasFailure()) return;
  const auto one = read_events(folder / "one"), many = read_events(folder / "many");
  ASSERT_EQ(one.size(), 22u);
  ASSERT_EQ(many.size(), one.size());
  for (std::size_t i = 0; i < one.size(); ++i)
    for (const auto& [name, value] : one[i].items()) {
      if (!value.is_number() || name.starts_with("seconds") || name == "samples_per_second") continue;
      const double wanted = value.get<double>(), found = many[i].at(name).get<double>();
      // Adam divides by gradients' sizes, so that rounding grows a little with the steps
      EXPECT_NEAR(found, wanted, 2e-5 * std::max(1.0, std::abs(wanted))) << "line " << i << ", " << name;
    }
}

INSTANTIATE_TEST_SUITE_P(
    Text, SequenceParallel,
    testing::Values(
        Case{"masked, ring of 2", "masked_text", 2, "parallel.sequence=2"},
        Case{"masked, RSA of 3", "masked_text", 3, "parallel.sequence=3 parallel.attention=rsa"},
        Case{"masked, 2 replicas of 2", "masked_text", 4, "parallel.sequence=2 parallel.attention=ulysses"},
        Case{"causal, zigzag ring of 4", "causal_text", 4, "parallel.sequence=4 parallel.order=zigzag"},
        Case{"causal, striped hybrid of 4", "causal_text", 4,
             "parallel.sequence=4 parallel.order=striped parallel.attention=hybrid parallel.ulysses=2"},
        Case{"causal, gathered keys, recomputed", "causal_text", 2,
             "parallel.sequence=2 parallel.attention=gather_kv model.recompute=true"}));

TEST(SequenceSplit, NeedsSeveralProcesses) {
  const TempDir folder;
  write_text(folder.path());
  STOA_EXPECT_CONTAINS(test::thrown<ConfigError>([&] {
                         train(folder / "causal_text.toml", folder / "run", {"parallel.sequence=2"});
                       }),
                       "stoa launch -n 2");
}

}  // namespace
}  // namespace stoa
