#include "stoa/tasks/question_answering.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/progress.h"
#include "stoa/train/recipe.h"
#include "stoa/train/trainer.h"
#include "support/click_files.h"
#include "support/fake_text_model.h"
#include "support/thrown.h"

namespace stoa::test {
namespace {

namespace fs = std::filesystem;

const Catalog& question_catalog() {
  static const Catalog catalog = {
      question_answering<FakeTextModel, FakeTextOptions>("fake", "a bag of words")};
  return catalog;
}

/// A paragraph that asks for the colour in it, or for one that is not there.
Json paragraph(const std::string& id, const std::string& context, const std::string& answer) {
  Json question = {{"id", id}, {"question", "which colour"}, {"answers", Json::array()}};
  question["is_impossible"] = answer.empty();
  if (!answer.empty())
    question["answers"].push_back({{"text", answer}, {"answer_start", context.find(answer)}});
  return {{"context", context}, {"qas", Json::array({question})}};
}

class QuestionAnswering : public ::testing::Test {
 protected:
  QuestionAnswering() {
    set_verbosity(Verbosity::kQuiet);
    write_text(folder_ / "vocab.txt", word_vocabulary({"which", "colour", "the", "house", "is", "red", "blue",
                                                       "green", "sea", "and", "big"}));
    Json paragraphs = Json::array();
    int id = 0;
    for (const char* const colour : {"red", "blue", "green", ""})
      for (const std::string thing : {"house", "sea"}) {
        const std::string front = "the big " + thing + " is", back = " and the sea is big and big";
        paragraphs.push_back(paragraph("q" + std::to_string(id++),
                                       front + (*colour != 0 ? " " + std::string(colour) : "") + back,
                                       colour));
      }
    const Json document = {{"data", Json::array({{{"paragraphs", paragraphs}}})}};
    for (const char* const name : {"train", "dev"})
      write_text(folder_ / "data" / (name + std::string("-v2.0.json")), document.dump());
  }

  Config config(const std::vector<std::string>& set = {}) const {
    Config config = Config::from_text(R"(
[task]
name = "question_answering"
[model]
name = "fake"
[data]
format = "squad2"
length = 12
stride = 3
question_length = 2
[optimizer]
lr = 0.1
[schedule]
name = "constant"
[train]
steps = 100
batch_size = 8
workers = 0
eval_batch_size = 3
)",
                                      "qa.toml");
    config.set("data.path=" + (folder_ / "data").string());
    config.set("data.tokenizer=" + (folder_ / "vocab.txt").string());
    for (const auto& item : set) config.set(item);
    return config;
  }
  std::unique_ptr<Task> built(const std::vector<std::string>& set = {},
                              const BuildContext& context = {}) const {
    at::manual_seed(3);
    return read_recipe(config(set), question_catalog()).task->build(context);
  }
  std::string refused(const std::vector<std::string>& set) const {
    return thrown<ConfigError>([&] { read_recipe(config(set), question_catalog()); });
  }

  TempDir folder_;
};

TEST_F(QuestionAnswering, TheLossIsTheMeanOfBothEnds) {
  const auto task = built();
  BatchPlan plan;
  plan.batch_size = 5;
  const auto batch = task->train_batches(plan)->next();
  auto& model = dynamic_cast<FakeTextModel&>(task->model());
  const auto tokens = nn::pack_tokens(batch["ids"], batch["lengths"], batch["segments"]);
  const auto scores = model.span_scores(model.forward(tokens).hidden);
  double expected = 0;
  for (std::int64_t i = 0; i < 5; ++i) {
    const auto own =
        scores.slice(0, tokens.offsets[i].item<std::int64_t>(), tokens.offsets[i + 1].item<std::int64_t>())
            .log_softmax(0);
    for (std::int64_t end = 0; end < 2; ++end)
      expected -= own[batch["spans"][i][end].item<std::int64_t>()][end].item<double>() / 10;
  }
  EXPECT_NEAR(task->loss(batch, {}).loss.item<double>(), expected, 1e-9);
}

TEST_F(QuestionAnswering, EvaluationDoesNotDependOnTheBatches) {
  const auto task = built();
  EvaluateOptions options;
  options.batch_size = 100;
  const auto whole = task->evaluate(options).metrics;
  EXPECT_TRUE(whole.has("has_answer_f1") && whole.has("no_answer") && whole.has("best_f1"));
  for (const std::int64_t size : {1, 5}) {
    options.batch_size = size;
    for (const auto& [name, value] : whole.items())
      EXPECT_NEAR(task->evaluate(options).metrics[name], value, 1e-6) << name;
  }
}

TEST_F(QuestionAnswering, SquadOneHasNoPartsAndAlwaysAnswers) {
  write_text(folder_ / "data/train-v1.1.json", read_file(folder_ / "data/train-v2.0.json"));
  write_text(folder_ / "data/dev-v1.1.json", read_file(folder_ / "data/train-v2.0.json"));
  const auto task = built({"data.format=squad1"});
  const auto metrics = task->evaluate({}).metrics;
  EXPECT_TRUE(metrics.has("f1") && metrics.has("exact"));
  EXPECT_FALSE(metrics.has("no_answer"));
  const std::string input = "which colour\tthe sea";
  EXPECT_NE(task->predict({&input, 1}).at(0).json["answers"][0]["answer"], "");
}

TEST_F(QuestionAnswering, ARunLearnsAndAnswersWithoutItsData) {
  TrainRequest request;
  request.recipe = config();
  request.out = folder_ / "run";
  const auto trained = run_training(request, question_catalog());
  EXPECT_EQ(trained.metrics["f1"], 1);
  EXPECT_EQ(trained.metrics["no_answer"], 1);
  fs::remove_all(folder_ / "data");
  fs::remove(folder_ / "vocab.txt");
  const auto loaded = load_run(folder_ / "run", question_catalog(), "last", false);
  const std::string input =
      "which colour\tThe house, é, is  Green and big.\n{\"id\": \"x\", \"question\": \"which colour\", "
      "\"context\": \"the sea is big and big\"}\n";
  const auto prediction = loaded.task->predict({&input, 1}).at(0);
  const auto& answers = prediction.json["answers"];
  ASSERT_EQ(answers.size(), 2u);
  EXPECT_EQ(answers[0]["answer"], "Green");   // as the context writes it
  EXPECT_EQ(answers[0]["answer_start"], 18);  // in code points
  EXPECT_EQ(answers[1]["answer"], "");
  EXPECT_EQ(answers[1]["id"], "x");
  EXPECT_FALSE(answers[1].contains("answer_start"));
  EXPECT_TRUE(prediction.text.starts_with("Green\t")) << prediction.text;
  EXPECT_EQ(std::ranges::count(prediction.text, '\n'), 2);
}

TEST_F(QuestionAnswering, WritesWhatSquadsProgramTakes) {
  const auto task = built();
  const auto files = task->save_predictions(folder_ / "out", {});
  EXPECT_EQ(files.size(), 3u);
  const auto answers = read_json(folder_ / "out/predictions.json");
  const auto best = read_json(folder_ / "out/nbest_predictions.json");
  const auto none = read_json(folder_ / "out/null_odds.json");
  ASSERT_EQ(answers.size(), 8u);
  for (const auto& [id, answer] : answers.items()) {
    EXPECT_EQ(answer == "", none[id].get<double>() > 0);
    if (answer != "") {
      EXPECT_EQ(answer, best[id][0]["text"]);
    }
  }
}

TEST_F(QuestionAnswering, ReportsShowMistakes) {
  EvaluateOptions options;
  options.exhibits = true;
  const auto exhibits = built()->evaluate(options).exhibits;
  ASSERT_EQ(exhibits.size(), 1u);
  EXPECT_EQ(exhibits[0].title, "Mistakes");
}

TEST_F(QuestionAnswering, SavedExamplesCanBePredicted) {
  const auto task = built();
  task->save_examples(folder_ / "examples", 3);
  const std::string file = folder_ / "examples/examples.jsonl";
  EXPECT_EQ(task->predict({&file, 1}).at(0).json["answers"].size(), 3u);
}

TEST_F(QuestionAnswering, SizesNeedNeitherDataNorTokenizer) {
  const auto task = built({"data.path=nowhere", "data.tokenizer="}, {false, nullptr});
  EXPECT_EQ(dynamic_cast<FakeTextModel&>(task->model()).input.vocabulary, 30522);
  task->infer(task->example(2));
}

TEST_F(QuestionAnswering, OptionsThatDoNotFitAreRefused) {
  STOA_EXPECT_CONTAINS(refused({"data.length=7"}),
                       "`data.length` is 7; 2 of a question, 3 of context and 3 marks need at least 8");
  STOA_EXPECT_CONTAINS(refused({"data.stride=0"}), "`data.stride` is 0");
  STOA_EXPECT_CONTAINS(refused({"task.n_best=0"}), "`task.n_best` is 0");
  STOA_EXPECT_CONTAINS(refused({"data.path="}), "`data.path` is not set");
}

TEST_F(QuestionAnswering, AMissingFileIsADataError) {
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { built({"data.format=squad1"}); }),
                       "train-v1.1.json: there is no such file");
}

}  // namespace
}  // namespace stoa::test
