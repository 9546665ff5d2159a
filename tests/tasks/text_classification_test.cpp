#include "stoa/tasks/text_classification.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <fstream>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/progress.h"
#include "stoa/train/recipe.h"
#include "stoa/train/trainer.h"
#include "support/click_files.h"
#include "support/fake_text_model.h"
#include "support/test_data.h"
#include "support/thrown.h"

namespace stoa::test {
namespace {

namespace fs = std::filesystem;

const Catalog& text_catalog() {
  static const Catalog catalog = {
      text_classification<FakeTextModel, FakeTextOptions>("fake", "a bag of words")};
  return catalog;
}

class TextClassification : public ::testing::Test {
 protected:
  TextClassification() {
    set_verbosity(Verbosity::kQuiet);
    write_text(folder_ / "vocab.txt",
               word_vocabulary({"good", "bad", "film", "a", "very", "it", "is", "yes", "no"}));
    std::string train = "text\tlabel\n", dev = train;
    for (const char* const words : {"a film", "it is", "very very a film", "film", "is it a film"})
      for (const char* const kind : {"good", "bad"}) {
        train += std::string(words) + " " + kind + "\t" + kind + "\n";
        dev += std::string(kind) + " " + words + "\t" + kind + "\n";
      }
    write_text(folder_ / "data/train.tsv", train);
    write_text(folder_ / "data/dev.tsv", dev);
    write_text(folder_ / "data/test.tsv", "text\na very good film\nbad\n");
  }

  Config config(const std::vector<std::string>& set = {}) const {
    Config config = Config::from_text(R"(
[task]
name = "text_classification"
[model]
name = "fake"
[optimizer]
lr = 0.05
[schedule]
name = "constant"
[train]
steps = 60
batch_size = 4
workers = 0
eval_batch_size = 3
)",
                                      "text.toml");
    config.set("data.path=" + (folder_ / "data").string());
    config.set("data.tokenizer=" + (folder_ / "vocab.txt").string());
    if (std::ranges::none_of(set, [](const auto& item) { return item.starts_with("data.format="); }))
      config.set("data.first=text");
    for (const auto& item : set) config.set(item);
    return config;
  }
  std::unique_ptr<Task> built(const std::vector<std::string>& set = {},
                              const BuildContext& context = {}) const {
    at::manual_seed(3);
    return read_recipe(config(set), text_catalog()).task->build(context);
  }
  std::string refused(const std::vector<std::string>& set) const {
    return thrown<ConfigError>([&] { read_recipe(config(set), text_catalog()); });
  }
  /// A data set of a GLUE task: one row for train and dev.
  void write_glue(const std::string& name, const std::string& header, const std::string& rows) const {
    for (const char* const file : {"train", "dev"})
      write_text(folder_ / "data" / name / (file + std::string(".tsv")), header + rows);
  }

  TempDir folder_;
};

TEST_F(TextClassification, BatchesHoldTokensLengthsAndLabels) {
  const auto task = built();
  EXPECT_EQ(task->train_samples(), 10);
  BatchPlan plan;
  plan.batch_size = 10;
  const auto batch = task->train_batches(plan)->next();
  EXPECT_EQ(batch["ids"].sizes(), (std::vector<std::int64_t>{10, 7}));  // [CLS] very very a film good [SEP]
  EXPECT_EQ(batch["lengths"].min().item<std::int64_t>(), 4);
  // good is class 1, bad class 0, and the words' ids are 5 and 6
  const auto good = batch["ids"].eq(5).any(1), bad = batch["ids"].eq(6).any(1);
  EXPECT_TRUE(good.to(at::kLong).equal(batch["labels"]));
  EXPECT_TRUE(bad.logical_not().equal(good));
}

TEST_F(TextClassification, TheLossIsCrossEntropyWithSmoothing) {
  const auto task = built({"task.label_smoothing=0.2"});
  BatchPlan plan;
  plan.batch_size = 6;
  const auto batch = task->train_batches(plan)->next();
  auto& model = dynamic_cast<FakeTextModel&>(task->model());
  const auto tokens = nn::pack_tokens(batch["ids"], batch["lengths"], batch["segments"]);
  const auto logs = model.class_scores(model.forward(tokens).hidden, tokens).log_softmax(1);
  const auto right = logs.gather(1, batch["labels"].unsqueeze(1)).mean();
  const auto expected = -(0.8 * right + 0.2 * logs.mean());
  EXPECT_NEAR(task->loss(batch, {}).loss.item<double>(), expected.item<double>(), 1e-12);
}

TEST_F(TextClassification, NumbersAreLearnedByTheSquaredError) {
  write_glue("STS-B", "index\tsentence1\tsentence2\tscore\n",
             "0\tgood film\tbad film\t1.5\n1\tgood\tgood\t5\n");
  const auto task = built({"data.format=stsb"});
  EXPECT_EQ(dynamic_cast<FakeTextModel&>(task->model()).input.classes, 1);
  BatchPlan plan;
  plan.batch_size = 2;
  const auto batch = task->train_batches(plan)->next();
  auto& model = dynamic_cast<FakeTextModel&>(task->model());
  const auto tokens = nn::pack_tokens(batch["ids"], batch["lengths"], batch["segments"]);
  const auto values = model.class_scores(model.forward(tokens).hidden, tokens).squeeze(1);
  EXPECT_NEAR(task->loss(batch, {}).loss.item<double>(),
              (values - batch["labels"]).square().mean().item<double>(), 1e-12);
  EXPECT_EQ(task->primary_metric(), "score");
  const auto metrics = task->evaluate({}).metrics;
  EXPECT_NEAR(metrics["score"], (metrics["pearson"] + metrics["spearman"]) / 2, 1e-12);
}

TEST_F(TextClassification, EvaluationDoesNotDependOnTheBatches) {
  const auto task = built();
  EvaluateOptions options;
  options.batch_size = 100;
  const auto whole = task->evaluate(options).metrics;
  for (const std::int64_t size : {1, 3, 7}) {
    options.batch_size = size;
    const auto parts = task->evaluate(options).metrics;
    for (const auto& [name, value] : whole.items()) EXPECT_NEAR(parts[name], value, 1e-12) << name << size;
  }
}

TEST_F(TextClassification, EveryTaskOfGlueHasItsMetrics) {
  const auto metrics_of = [&](const std::string& format) {
    const auto task = built({"data.format=" + format});
    const auto metrics = task->evaluate({}).metrics;
    EXPECT_TRUE(metrics.has(task->primary_metric())) << format;
    return metrics.text();
  };
  write_text(folder_ / "data/CoLA/train.tsv", "x\t1\t\tgood film\nx\t0\t*\tbad\n");
  write_text(folder_ / "data/CoLA/dev.tsv", "x\t1\t\tgood film\nx\t0\t*\tbad\n");
  STOA_EXPECT_CONTAINS(metrics_of("cola"), "matthews");
  write_glue("MRPC", "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n", "1\t1\t2\ta\tb\n0\t1\t2\ta\tno\n");
  STOA_EXPECT_CONTAINS(metrics_of("mrpc"), "f1");
  const std::string rows = "0\tgood\tyes\tentailment\n1\tbad\tno\tnot_entailment\n";
  write_glue("RTE", "index\tsentence1\tsentence2\tlabel\n", rows);
  STOA_EXPECT_CONTAINS(metrics_of("rte"), "accuracy");
}

TEST_F(TextClassification, MnliIsMeasuredOnBothDevelopmentFiles) {
  const std::string header = "index\tsentence1\tsentence2\tgold_label\n";
  write_text(folder_ / "data/MNLI/train.tsv", header + "0\tgood\tyes\tentailment\n");
  write_text(folder_ / "data/MNLI/dev_matched.tsv",
             header + "0\tgood\tyes\tentailment\n1\tbad\tno\tneutral\n");
  write_text(folder_ / "data/MNLI/dev_mismatched.tsv", header + "0\tbad\tyes\tcontradiction\n");
  const auto task = built({"data.format=mnli"});
  std::vector<std::int64_t> progress;
  EvaluateOptions options;
  options.progress = [&](std::int64_t done, std::int64_t total) {
    progress.push_back(done);
    EXPECT_EQ(total, 3);
  };
  const auto metrics = task->evaluate(options).metrics;
  EXPECT_TRUE(metrics.has("accuracy") && metrics.has("accuracy_mismatched") &&
              metrics.has("loss_mismatched"));
  EXPECT_EQ(progress, (std::vector<std::int64_t>{0, 2, 3}));
}

TEST_F(TextClassification, ReportsShowAConfusionMatrixAndMistakes) {
  EvaluateOptions options;
  options.exhibits = true;
  const auto exhibits = built()->evaluate(options).exhibits;
  ASSERT_EQ(exhibits.size(), 2u);
  EXPECT_EQ(exhibits[0].title, "Confusion matrix");
  EXPECT_EQ(exhibits[1].title, "Mistakes");
}

TEST_F(TextClassification, AnswersLinesFilesAndJson) {
  const auto task = built({"data.classes=[\"good\", \"bad\"]"});
  write_text(folder_ / "rows.tsv", "id\ttext\n1\tgood film\n2\tbad\n");
  const std::vector<std::string> inputs = {"good film\nbad", (folder_ / "rows.tsv").string(),
                                           R"({"text": "good film"})"};
  const auto answers = task->predict(inputs);
  ASSERT_EQ(answers.size(), 3u);
  EXPECT_EQ(answers[0].json, answers[1].json);
  ASSERT_EQ(answers[0].json["answers"].size(), 2u);
  EXPECT_EQ(answers[0].json["answers"][0], answers[2].json["answers"][0]);
  const auto& first = answers[0].json["answers"][0];
  EXPECT_NEAR(first["probabilities"]["good"].get<double>() + first["probabilities"]["bad"].get<double>(), 1,
              1e-12);
  EXPECT_EQ(std::ranges::count(answers[0].text, '\n'), 2);
  STOA_EXPECT_CONTAINS(answers[2].text, first["class"].get<std::string>() + "\t");
}

TEST_F(TextClassification, AFileThatIsNotThereIsNoText) {
  const auto task = built();
  const auto refused_input = [&](const std::string& input) {
    return thrown<IoError>([&] { task->predict({&input, 1}); });
  };
  EXPECT_EQ(refused_input("rows.tsv"), "rows.tsv: there is no such file");
  EXPECT_EQ(refused_input("no/such"), "no/such: there is no such file");
  const std::string pair = "good\tbad";
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { task->predict({&pair, 1}); }), "the text, line 1: 2 fields");
}

TEST_F(TextClassification, ARunAnswersWithoutItsDataAndItsTokenizersPlace) {
  TrainRequest request;
  request.recipe = config();
  request.out = folder_ / "run";
  const auto trained = run_training(request, text_catalog());
  EXPECT_EQ(trained.metrics["accuracy"], 1);
  fs::remove_all(folder_ / "data");
  fs::remove(folder_ / "vocab.txt");
  const auto loaded = load_run(folder_ / "run", text_catalog(), "last", false);
  const std::string input = "very good\nvery bad";
  const auto answers = loaded.task->predict({&input, 1}).at(0).json["answers"];
  EXPECT_EQ(answers[0]["class"], "good");
  EXPECT_EQ(answers[1]["class"], "bad");
}

TEST_F(TextClassification, AnotherTokenizerThanTheRunsIsRefused) {
  const auto metadata = built()->metadata();
  write_text(folder_ / "vocab.txt", word_vocabulary({"other"}));
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] {
                         built({}, {true, metadata});
                       }),
                       "this is not the tokenizer that the run was trained with");
}

TEST_F(TextClassification, OtherClassesThanTheRunsAreRefused) {
  const auto metadata = built()->metadata();
  write_text(folder_ / "data/train.tsv", "text\tlabel\na\tgood\nb\tmiddling\n");
  write_text(folder_ / "data/dev.tsv", "text\tlabel\na\tgood\n");
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] {
                         built({}, {true, metadata});
                       }),
                       "the classes of the training rows are not those that this run was trained with");
}

TEST_F(TextClassification, TheTokenizerMayLieBesideTheWeights) {
  write_text(folder_ / "pretrained/vocab.txt", word_vocabulary({"good"}));
  const auto task =
      built({"data.tokenizer=", "model.weights=" + (folder_ / "pretrained/model.safetensors").string()});
  EXPECT_EQ(dynamic_cast<FakeTextModel&>(task->model()).input.vocabulary, 6);
  const auto beside = built({"data.tokenizer=", "model.weights=" + (folder_ / "pretrained").string()});
  EXPECT_EQ(dynamic_cast<FakeTextModel&>(beside->model()).input.vocabulary, 6);
  STOA_EXPECT_CONTAINS(thrown<ConfigError>([&] { built({"data.tokenizer="}); }),
                       "`data.tokenizer` is not set");
}

TEST_F(TextClassification, SizesNeedNeitherDataNorTokenizer) {
  const BuildContext sizes{false, nullptr};
  const auto task = built({"data.path=nowhere", "data.tokenizer=", "model.vocabulary=77"}, sizes);
  EXPECT_EQ(dynamic_cast<FakeTextModel&>(task->model()).input.vocabulary, 77);
  task->infer(task->example(3));
}

TEST_F(TextClassification, PretrainedWeightsAreReadWhereARunBegins) {
  const auto task = built();
  load_initial(*task, {});
  EXPECT_EQ(dynamic_cast<FakeTextModel&>(task->model()).pretrained, 1);
}

TEST_F(TextClassification, WritesWhatGlueTakes) {
  const std::string header = "index\tsentence1\tsentence2\t";
  write_text(folder_ / "data/MNLI/train.tsv", header + "gold_label\n0\tgood\tyes\tentailment\n");
  for (const char* const dev : {"dev_matched", "dev_mismatched"})
    write_text(folder_ / "data/MNLI" / (dev + std::string(".tsv")),
               header + "gold_label\n0\tgood\tyes\tentailment\n");
  write_text(folder_ / "data/MNLI/test_matched.tsv",
             "index\tsentence1\tsentence2\n0\tgood\tno\n1\tbad\tno\n");
  const auto task = built({"data.format=mnli"});
  const auto files = task->save_predictions(folder_ / "out", {});
  EXPECT_EQ(files, (std::vector<std::string>{(folder_ / "out/MNLI-m.tsv").string()}));
  const auto text = read_file(folder_ / "out/MNLI-m.tsv");
  EXPECT_EQ(std::ranges::count(text, '\n'), 3);
  STOA_EXPECT_CONTAINS(text, "index\tprediction\n0\t");
  const auto& classes = glue_layout(GlueTask::kMnli).form.classes;
  const auto answer = text.substr(text.rfind('\t') + 1, text.size() - text.rfind('\t') - 2);
  EXPECT_NE(std::ranges::find(classes, answer), classes.end()) << answer;
}

TEST_F(TextClassification, WritesPredictionsOfAnOwnTestFile) {
  const auto task = built({"data.test=test.tsv"});
  task->save_predictions(folder_ / "out", {});
  const auto text = read_file(folder_ / "out/predictions.tsv");
  EXPECT_EQ(std::ranges::count(text, '\n'), 3);
  STOA_EXPECT_CONTAINS(thrown<ConfigError>([&] { built()->save_predictions(folder_ / "out", {}); }),
                       "`data.test` names no file");
}

TEST_F(TextClassification, SavedExamplesCanBePredicted) {
  const auto task = built();
  task->save_examples(folder_ / "examples", 3);
  const std::string file = folder_ / "examples/examples.jsonl";
  EXPECT_EQ(task->predict({&file, 1}).at(0).json["answers"].size(), 3u);
}

TEST_F(TextClassification, OptionsThatDoNotFitAreRefused) {
  STOA_EXPECT_CONTAINS(refused({"task.label_smoothing=1"}), "`task.label_smoothing` is 1");
  STOA_EXPECT_CONTAINS(refused({"task.label_smoothing=0.1", "data.format=stsb"}), "numbers are predicted");
  STOA_EXPECT_CONTAINS(refused({"task.metric=correlation"}), "which is for numbers");
  STOA_EXPECT_CONTAINS(refused({"task.metric=f1", "data.format=mnli"}), "is for two classes; there are 3");
  STOA_EXPECT_CONTAINS(refused({"data.length=4"}), "`data.length` is 4; it must be at least 5");
  STOA_EXPECT_CONTAINS(refused({"data.classes=[\"a\", \"b\", \"a\"]"}), "names \"a\" twice");
  STOA_EXPECT_CONTAINS(refused({"data.classes=[\"a\", \"b\"]", "data.numbers=true"}), "there are none");
  STOA_EXPECT_CONTAINS(refused({"data.path="}), "`data.path` is not set");
  STOA_EXPECT_CONTAINS(refused({"data.format=rte", "data.first=a"}), "data.first");
}

TEST_F(TextClassification, AMissingFileOrColumnIsADataError) {
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { built({"data.dev=none.tsv"}); }),
                       "correct `data.path` or `data.dev`");
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { built({"data.label=mood"}); }),
                       "line 1: there is no column `mood`");
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] {
                         built({"data.format=rte", "data.path=" + folder_.path().string()});
                       }),
                       "there is no train.tsv");
}

TEST_F(TextClassification, RealCoLAWithBertsVocabulary) {
  STOA_NEEDS_TEST_DATA("glue");
  STOA_NEEDS_TEST_DATA("bert/vocab.txt");
  const auto task = built({"data.format=cola", "data.path=" + test_data("glue").string(),
                           "data.tokenizer=" + test_data("bert/vocab.txt").string()});
  EXPECT_EQ(task->train_samples(), 8551);
  EvaluateOptions options;
  options.batch_size = 64;
  const auto metrics = task->evaluate(options).metrics;
  EXPECT_GE(metrics["matthews"], -1);
  EXPECT_GT(metrics["loss"], 0);
}

}  // namespace
}  // namespace stoa::test
