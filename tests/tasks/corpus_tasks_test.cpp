// Masked and causal language models on a small text, with a real model.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/data/text/masking.h"
#include "stoa/nn/parameters.h"
#include "stoa/tasks/causal_text.h"
#include "stoa/tasks/generation.h"
#include "stoa/tasks/masked_text.h"
#include "stoa/train/training_step.h"
#include "support/embedding_text_model.h"
#include "support/temp_dir.h"
#include "support/thrown.h"

namespace stoa {
namespace {

using test::TempDir;
using test::thrown;

/// Sixty short sentences in six documents.
std::string some_text() {
  std::string text;
  for (int i = 0; i < 60; ++i)
    text += format("the {} cat number {} sat on mat {}\n{}", i % 3 == 0 ? "black" : "white", i, i * 7 % 11,
                   i % 10 == 9 ? "\n" : "");
  return text;
}

struct Built {
  TempDir folder;
  std::unique_ptr<Task> task;

  explicit Built(const std::string& task_name, const std::string& more = "", const std::string& data = "") {
    write_file_atomically(folder.path() / "text.txt", some_text());
    const auto text = format(
        "[task]\n{}\n[data]\ntrain = [\"{}\"]\neval_share = 0.2\ntokenizer = \"bytes\"\nlength = 48\n{}\n",
        more, (folder.path() / "text.txt").string(), data);
    std::unique_ptr<TaskRecipe> recipe;
    const auto model = text_model_recipe<test::EmbeddingTextModel, test::EmbeddingTextOptions>();
    if (task_name == "masked_text")
      recipe = std::make_unique<MaskedTextRecipe>(model);
    else
      recipe = std::make_unique<CausalTextRecipe>(model);
    read_fields(Config::from_text(text, "recipe"), [&](FieldVisitor& v) { recipe->visit(v); });
    recipe->validate();
    torch::manual_seed(1);
    task = recipe->build({true, Json(), {}});
    task->model().to(at::kDouble);
  }
  Batch batch(std::int64_t size) const {
    BatchPlan plan;
    plan.batch_size = size;
    return task->train_batches(plan)->next();
  }
};

std::vector<at::Tensor> gradients(Task& task, const Batch& batch, std::int64_t micro_batch) {
  for (const auto& parameter : nn::distinct_parameters(task.model()))
    parameter.tensor.mutable_grad() = at::Tensor();
  accumulate_gradients(task, batch, {0, 1}, micro_batch, Runtime{}, false);
  std::vector<at::Tensor> found;
  for (const auto& parameter : nn::distinct_parameters(task.model()))
    if (parameter.tensor.grad().defined()) found.push_back(parameter.tensor.grad().clone());
  return found;
}

TEST(MaskedText, TheLossIsTheMeanOverThePlacesAskedFor) {
  const Built built("masked_text");
  const auto batch = built.batch(8);
  auto& model = dynamic_cast<test::EmbeddingTextModel&>(built.task->model());
  const auto logits = at::embedding(model.word, batch["ids"]).matmul(model.word.t());
  const auto wanted = at::cross_entropy_loss(logits.flatten(0, 1), batch["targets"].flatten(), {},
                                             at::Reduction::Mean, kNoTarget);
  EXPECT_NEAR(built.task->loss(batch, {}).loss.item<double>(), wanted.item<double>(), 1e-10);
}

TEST(MaskedText, ItDoesNotMatterHowABatchIsCut) {
  for (const char* pairs : {"none", "sentence_order", "next_sentence"}) {
    const Built built("masked_text", "", format("pairs = \"{}\"", pairs));
    const auto batch = built.batch(12);
    const auto whole = gradients(*built.task, batch, 0), cut = gradients(*built.task, batch, 5);
    ASSERT_EQ(whole.size(), cut.size());
    ASSERT_EQ(whole.size(), std::string(pairs) == "none" ? 1U : 2U);
    for (std::size_t i = 0; i < whole.size(); ++i)
      EXPECT_TRUE(whole[i].allclose(cut[i], 1e-10, 1e-12)) << pairs;
  }
}

TEST(MaskedText, EvaluationDoesNotDependOnTheBatchSize) {
  const Built built("masked_text");
  EvaluateOptions one, many;
  one.batch_size = 1;
  many.batch_size = 7;
  const auto a = built.task->evaluate(one).metrics, b = built.task->evaluate(many).metrics;
  for (const char* name : {"loss", "accuracy", "perplexity"}) EXPECT_NEAR(a[name], b[name], 1e-9) << name;
  EXPECT_NEAR(a["perplexity"], std::exp(a["loss"]), 1e-9);
}

TEST(MaskedText, PredictionsFillWhatIsMissing) {
  const Built built("masked_text");
  const std::vector<std::string> inputs = {"the [MASK]at"};
  const auto answer = built.task->predict(inputs).at(0);
  const auto& masks = answer.json["answers"][0]["masks"];
  ASSERT_EQ(masks.size(), 1U);
  EXPECT_EQ(masks[0].size(), 5U);
  EXPECT_GE(masks[0][0]["probability"].get<double>(), masks[0][1]["probability"].get<double>());
}

TEST(MaskedText, ALineWithoutAMaskAndALongOneAreRefused) {
  const Built built("masked_text");
  const auto refused = [&](const std::string& line) {
    return thrown<DataError>([&] { built.task->predict(std::vector<std::string>{line}); });
  };
  STOA_EXPECT_CONTAINS(refused("nothing missing"), "the text:1: there is nothing to fill; write [MASK]");
  STOA_EXPECT_CONTAINS(refused("[MASK]" + std::string(60, 'x')), "the model reads 48; shorten the line");
}

TEST(CausalText, TheLossIsThatOfTheFollowingTokens) {
  const Built built("causal_text");
  const auto batch = built.batch(3);
  EXPECT_TRUE(batch["ids"].slice(1, 1).equal(batch["targets"].slice(1, 0, -1)));
  auto& model = dynamic_cast<test::EmbeddingTextModel&>(built.task->model());
  const auto logits = at::embedding(model.word, batch["ids"]).matmul(model.word.t());
  const auto wanted = at::cross_entropy_loss(logits.flatten(0, 1), batch["targets"].flatten());
  EXPECT_NEAR(built.task->loss(batch, {}).loss.item<double>(), wanted.item<double>(), 1e-10);
}

TEST(CausalText, ContinuesEachLineAndRepeatsItself) {
  const Built built("causal_text", "generate.tokens = 9");
  built.task->model().to(at::kFloat);
  const std::vector<std::string> inputs = {"the cat"};
  const auto once = built.task->predict(inputs).at(0), again = built.task->predict(inputs).at(0);
  EXPECT_EQ(once.json, again.json);
  EXPECT_TRUE(once.text.starts_with("the cat"));
  write_file_atomically(built.folder.path() / "lines.txt", "one\ntwo\nthree\n");
  const std::vector<std::string> file = {(built.folder.path() / "lines.txt").string()};
  const auto answers = built.task->predict(file).at(0);
  EXPECT_EQ(answers.json["answers"].size(), 3U);
  EXPECT_EQ(std::ranges::count(answers.text, '\n'), 3) << "one line in, one line out";
}

TEST(CorpusRecipe, RefusesAShareBeyondOne) {
  for (const char* task : {"masked_text", "causal_text"})
    STOA_EXPECT_CONTAINS(thrown<ConfigError>([&] { Built(task, "label_smoothing = 1.0"); }),
                         "`task.label_smoothing` is 1");
}

at::Tensor scores_of(const std::vector<float>& values) {
  return at::tensor(values);
}

std::vector<int> drawn(const at::Tensor& scores, const GenerationOptions& options, int times) {
  RandomStream random(5);
  std::vector<int> counts(static_cast<std::size_t>(scores.size(0)));
  for (int i = 0; i < times; ++i) ++counts[static_cast<std::size_t>(draw_token(scores, options, random))];
  return counts;
}

TEST(DrawToken, FollowsTheProbabilities) {
  const auto counts = drawn(scores_of({0, std::log(2.F), std::log(5.F)}), {}, 8000);
  EXPECT_NEAR(counts[0] / 8000.0, 1 / 8.0, 0.02);
  EXPECT_NEAR(counts[1] / 8000.0, 2 / 8.0, 0.02);
  EXPECT_NEAR(counts[2] / 8000.0, 5 / 8.0, 0.02);
}

TEST(DrawToken, TemperatureSharpensAndZeroTakesTheBest) {
  GenerationOptions options;
  options.temperature = 0.5;  // squares the probabilities
  EXPECT_NEAR(drawn(scores_of({0, std::log(3.F)}), options, 8000)[1] / 8000.0, 0.9, 0.02);
  options.temperature = 0;
  EXPECT_EQ(drawn(scores_of({0, 3, 3, 1}), options, 10)[1], 10);
}

TEST(DrawToken, TopKAndTopPLeaveTheOthersOut) {
  const auto scores = scores_of({std::log(4.F), std::log(3.F), std::log(2.F), std::log(1.F)});
  GenerationOptions options;
  options.top_k = 2;
  auto counts = drawn(scores, options, 4000);
  EXPECT_EQ(counts[2] + counts[3], 0);
  EXPECT_NEAR(counts[0] / 4000.0, 4 / 7.0, 0.03);
  options.top_k = 0;
  options.top_p = 0.71;  // 0.4 + 0.3 is not enough
  counts = drawn(scores, options, 4000);
  EXPECT_EQ(counts[3], 0);
  EXPECT_NEAR(counts[2] / 4000.0, 2 / 9.0, 0.03);
}

TEST(GenerationOptions, AreRefusedByName) {
  GenerationOptions options;
  options.top_p = 0;
  STOA_EXPECT_CONTAINS(thrown<ConfigError>([&] { options.validate(); }), "`task.generate.top_p` is 0");
}

}  // namespace
}  // namespace stoa
