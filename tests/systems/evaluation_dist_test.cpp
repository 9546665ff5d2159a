// Evaluations shared out over the replicas of a run find what one process finds: of every task, to the bit.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <utility>

#include "stoa/base/progress.h"
#include "stoa/dist/expert_parallel.h"
#include "stoa/dist/mesh.h"
#include "stoa/dist/table_exchange.h"
#include "stoa/dist/world.h"
#include "stoa/nn/embedding_exchange.h"
#include "stoa/systems/catalog.h"
#include "stoa/tasks/image_classification.h"
#include "stoa/tasks/question_answering.h"
#include "stoa/tasks/text_classification.h"
#include "stoa/train/evaluation_rounds.h"
#include "stoa/train/events.h"
#include "stoa/train/trainer.h"
#include "support/click_files.h"
#include "support/fake_text_model.h"
#include "support/processes.h"
#include "support/text_runs.h"

namespace stoa {
namespace {

namespace fs = std::filesystem;
using test::FakeTextModel;
using test::FakeTextOptions;

constexpr std::int64_t kImages = 47, kBatch = 5;  // ten batches, the last of two images

struct ProbeOptions {
  void visit(FieldVisitor&) {}
  void validate(const ImageClassifierInput&) const {}
};

/// A linear classifier that counts what it sees in evaluation.
class Probe : public ImageClassifier {
 public:
  Probe(const ProbeOptions&, const ImageClassifierInput& input) {
    weight_ = register_parameter(
        "weight", 0.1 * at::randn({input.channels * input.image_size * input.image_size, input.classes}));
  }
  ImageClassifierOutput classify(const at::Tensor& images) override {
    if (!is_training()) seen += images.size(0);
    const auto logits = at::matmul(images.flatten(1), weight_);
    return {logits, {{}, {{"sharpness", logits.detach().abs().mean()}}}};
  }
  nn::ModelDescription describe() const override { return {{{"all", weight_.numel(), 1, 1}}, "images"}; }
  std::vector<Exhibit> exhibits(const std::vector<nn::NamedTensor>& statistics) const override {
    TableExhibit table;
    table.headings = {"sharpness"};
    table.rows = {{std::to_string(statistics.at(0).value.item<double>())}};
    return {{"Sharpness", "of the logits", table}};
  }

  static inline std::int64_t seen = 0;

 private:
  at::Tensor weight_;
};

const Catalog& own_catalog() {
  static const Catalog own = {
      image_classification<Probe, ProbeOptions>("probe", "a matrix"),
      text_classification<FakeTextModel, FakeTextOptions>("fake", "a bag of words"),
      question_answering<FakeTextModel, FakeTextOptions>("fake", "a bag of words"),
  };
  return own;
}

/// A place of this process's own.
fs::path folder() {
  return fs::path(std::getenv("STOA_TEST_MEETING")) / ("files-" + std::string(std::getenv("RANK")));
}

constexpr const char* kRest = R"(
[optimizer]
lr = 0.05
[schedule]
name = "constant"
[train]
steps = 3
batch_size = 6
eval_batch_size = 5
eval_every = 2
workers = 0
[runtime]
device = "cpu"
threads = 1
precision = "fp32"
)";

std::unique_ptr<Task> build(const std::string& recipe, const Catalog& from) {
  at::manual_seed(3);
  auto task = read_recipe(Config::from_text(recipe + kRest, "recipe.toml"), from).task->build({});
  task->model().eval();
  return task;
}

Evaluation evaluate(Task& task, int workers = 0) {
  return task.evaluate({.batch_size = kBatch, .workers = workers, .exhibits = true, .progress = {}});
}

Evaluation evaluate_shared(Task& task, dist::World& world, int workers = 0) {
  auto& sharing = dynamic_cast<SharesEvaluation&>(task);
  sharing.share_evaluation(world.all_shared());
  auto found = evaluate(task, workers);
  sharing.share_evaluation(nullptr);
  return found;
}

void expect_equal(const Evaluation& found, const Evaluation& wanted) {
  EXPECT_EQ(found.metrics.items(), wanted.metrics.items());
  ASSERT_EQ(found.exhibits.size(), wanted.exhibits.size());
  for (std::size_t i = 0; i < wanted.exhibits.size(); ++i) {
    if (wanted.exhibits[i].title == "Norms of embeddings") continue;  // of rows that are elsewhere
    EXPECT_TRUE(found.exhibits[i].to_json() == wanted.exhibits[i].to_json()) << wanted.exhibits[i].title;
  }
}

/// Batches of this process where `batches` are dealt to all, each of which makes equally many.
std::int64_t dealt(std::int64_t batches, const dist::World& world) {
  return (batches + world.size() - 1) / world.size();
}

std::string images(const std::string& model, int classes = 7) {
  return "[task]\nname = \"image_classification\"\n[data]\nformat = \"synthetic\"\nimage_size = 8\nchannels "
         "= 1\nmean = [0.5]\ndeviation = [0.3]\ntrain_limit = 60\ntest_limit = " +
         std::to_string(kImages) + "\nclasses = " + std::to_string(classes) + "\n[model]\n" + model;
}

STOA_PROCESS_TEST(SharedEvaluation, OfImagesIsThatOfOneProcess, 2, 3) {
  const auto world = dist::World::join(dist::read_place());
  const auto task = build(images("name = \"probe\""), own_catalog());
  for (const int workers : {0, 2}) {
    Probe::seen = 0;
    const auto wanted = evaluate(*task);
    EXPECT_EQ(Probe::seen, kImages);
    EXPECT_TRUE(wanted.metrics.has("top5_accuracy"));
    Probe::seen = 0;
    expect_equal(evaluate_shared(*task, *world, workers), wanted);
    EXPECT_LE(Probe::seen, dealt(10, *world) * kBatch);
    EXPECT_GE(Probe::seen, (dealt(10, *world) - 1) * kBatch);
  }
}

STOA_PROCESS_TEST(SharedEvaluation, OfSentencesAndQuestionsIsThatOfOneProcess, 3) {
  const auto world = dist::World::join(dist::read_place());
  const auto place = folder();
  test::write_text(place / "vocab.txt",
                   test::word_vocabulary({"good", "bad", "film", "a", "very", "it", "is", "big", "sea"}));
  std::string rows = "text\tlabel\n", numbers = rows;
  int number = 0;
  for (const std::string words : {"a film", "it is", "very very a film", "film", "is it a film", "sea"})
    for (const std::string kind : {"good", "bad"})
      for (const std::string end : {"", " it", " is big"}) {
        rows += kind + " " + words + end + "\t" + (number % 7 < 3 ? "good" : "bad") + "\n";
        numbers += kind + " " + words + end + "\t" + std::to_string(number++ % 5) + "\n";
      }
  const auto text = [&](const std::string& data, const std::string& task) {
    return "[task]\nname = \"text_classification\"\n" + task + "[data]\npath = \"" + place.string() +
           "\"\ntokenizer = \"" + (place / "vocab.txt").string() + "\"\nfirst = \"text\"\n" + data +
           "[model]\nname = \"fake\"\n";
  };
  for (const char* const name : {"train.tsv", "dev.tsv"}) test::write_text(place / name, rows);
  test::write_text(place / "numbers.tsv", numbers);
  int not_zero = 0;
  for (const auto& [recipe, metric] :
       {std::pair{text("", "metric = \"matthews\"\n"), "matthews"},
        {text("", "metric = \"f1\"\n"), "f1"},
        {text("train = \"numbers.tsv\"\ndev = \"numbers.tsv\"\nnumbers = true\n", ""), "spearman"}}) {
    const auto task = build(recipe, own_catalog());
    for (const char* const same_for_all : {"segments.weight", "head.bias"})  // which would decide alone
      task->model().named_parameters()[same_for_all].detach().zero_();
    const auto wanted = evaluate(*task);
    EXPECT_TRUE(wanted.metrics.has(metric));
    not_zero += wanted.metrics[metric] != 0;
    auto& passes = dynamic_cast<FakeTextModel&>(task->model()).passes;
    EXPECT_EQ(std::exchange(passes, 0), 8);  // of 36 rows
    expect_equal(evaluate_shared(*task, *world), wanted);
    EXPECT_EQ(passes, dealt(8, *world));
  }
  EXPECT_GE(not_zero, 2);

  Json questions = Json::array();
  for (int i = 0; i < 9; ++i) {
    const std::string context = (i % 2 == 0 ? "it is a very very big sea and " : "a bad film is ") +
                                std::string(i % 3 == 0 ? "good" : "big") + " it is it is a film";
    Json question = {{"id", std::to_string(i)},
                     {"question", "is it"},
                     {"is_impossible", i % 4 == 3},
                     {"answers", Json::array()}};
    if (i % 4 != 3) question["answers"].push_back({{"text", "film"}, {"answer_start", context.find("film")}});
    questions.push_back({{"context", context}, {"qas", Json::array({question})}});
  }
  const Json squad = {{"data", Json::array({{{"paragraphs", questions}}})}};
  for (const char* const name : {"train-v2.0.json", "dev-v2.0.json"})
    test::write_text(place / name, squad.dump());
  const auto task = build("[task]\nname = \"question_answering\"\n[data]\nformat = \"squad2\"\npath = \"" +
                              place.string() + "\"\ntokenizer = \"" + (place / "vocab.txt").string() +
                              "\"\nlength = 12\nstride = 3\nquestion_length = 2\n[model]\nname = \"fake\"\n",
                          own_catalog());
  const auto wanted = evaluate(*task);
  auto& passes = dynamic_cast<FakeTextModel&>(task->model()).passes;
  const auto batches = std::exchange(passes, 0);
  EXPECT_GT(batches, 3);
  expect_equal(evaluate_shared(*task, *world), wanted);
  EXPECT_EQ(passes, dealt(batches, *world));
}

/// Capacities and experts that choose make a sample's result depend on its batch.
constexpr const char* kMixture =
    "mixture_layers = -1\n[model.router]\nexperts = 4\ncapacity_factor = 0.8\neval_capacity_factor = -1.0\n";

STOA_PROCESS_TEST(SharedEvaluation, OfLanguageModelsIsThatOfOneProcess, 2) {
  const auto world = dist::World::join(dist::read_place());
  fs::create_directories(folder());
  test::write_text(folder());
  const auto text = [&](const std::string& task, const std::string& data, const std::string& model) {
    const auto file = "\"" + (folder() / "text.txt").string() + "\"";
    return "[task]\nname = \"" + task + "\"\n[data]\ntrain = [" + file + "]\neval = [" + file +
           "]\ntokenizer = \"" + (folder() / "vocab.txt").string() + "\"\nlength = 30\n" + data +
           "[model]\nname = \"text_transformer\"\ndim = 24\ndepth = 2\nheads = 4\nmlp_dim = 48\npositions = "
           "30\nsegments = 2\n" +
           model;
  };
  for (const auto& recipe :
       {text("masked_text", "pairs = \"sentence_order\"\n", ""), text("causal_text", "", ""),
        text("causal_text", "", kMixture),
        text("masked_text", "", std::string(kMixture) + "routing = \"expert_choice\"\n")}) {
    const auto task = build(recipe, catalog());
    expect_equal(evaluate_shared(*task, *world), evaluate(*task));
  }
}

/// Replicas whose mixtures are one, with the experts of each dealt out among `holders` of them.
dist::ExpertParallel share_experts(Task& task, dist::World& world, std::int64_t holders) {
  dist::ParallelOptions options;
  options.data = world.size();
  options.expert = holders;
  const dist::Mesh mesh(world, options);
  return {task.model(),
          {mesh.shared(dist::GroupKind::kData), mesh.shared(dist::GroupKind::kExpert),
           mesh.shared(dist::GroupKind::kExpertData)},
          /*together=*/true};
}

STOA_PROCESS_TEST(SharedEvaluation, OfMixturesIsThatOfOneProcess, 2) {
  const auto world = dist::World::join(dist::read_place());
  const auto wide = images(
      "name = \"wide_net\"\npatch = 4\ndim = 8\ndepth = 2\nheads = 2\nmlp_dim = 10\n[model.router]\nexperts "
      "= 4\ncapacity_factor = 0.8\neval_capacity_factor = -1.0\n",
      3);
  const auto task = build(wide, catalog());
  const auto wanted = evaluate(*task);
  EXPECT_NE(task->evaluate({.batch_size = 9, .progress = {}}).metrics["loss"], wanted.metrics["loss"]);
  {  // the batches of training are routed together, those of evaluation are not
    const auto replicas = share_experts(*task, *world, 1);
    expect_equal(evaluate_shared(*task, *world), wanted);
  }
  const auto dealt_out = build(wide, catalog());
  const auto experts = share_experts(*dealt_out, *world, 2);
  const auto found = evaluate_shared(*dealt_out, *world);  // equal but for rounding: experts see other rows
  for (const auto& [name, value] : wanted.metrics.items())
    EXPECT_NEAR(found.metrics[name], value, 1e-6 * (1 + value)) << name;
}

STOA_PROCESS_TEST(SharedEvaluation, OfClicksIsThatOfOneProcess, 3) {
  const auto world = dist::World::join(dist::read_place());
  const std::string recipe =
      "[task]\nname = \"click_through\"\n[data]\nformat = \"zipf\"\nzipf = { fields = 4, ids = 300, "
      "train_rows = 3000, test_rows = 233 }\n[model]\nname = \"cow_clip\"\nnetwork = \"deepfm\"\nhidden = "
      "[8, "
      "8]\n[embedding]\ndim = 5\ninit_std = 0.5\n";
  const auto one = build(recipe, catalog()), many = build(recipe, catalog());
  dynamic_cast<nn::SplitsRows&>(*many->sparse_weights())
      .split(std::make_shared<dist::TableExchange>(world->all_shared()));
  const auto wanted = evaluate(*one);
  EXPECT_GT(wanted.metrics.items().size(), 4u);  // an AUC of rare rows among them
  expect_equal(evaluate_shared(*many, *world), wanted);
}

TrainResult train(const fs::path& out) {
  TrainRequest request;
  request.recipe = Config::from_text(images("name = \"probe\"") + kRest, "probe.toml");
  request.out = out;
  return run_training(request, own_catalog());
}

STOA_PROCESS_BODY(train) {
  Probe::seen = 0;
  const auto result = train(std::getenv("STOA_TEST_RUN"));
  EXPECT_TRUE(result.metrics.has("accuracy"));
  // two evaluations of ten batches by three processes; rank 0 also measures the speed of inference
  if (std::getenv("RANK") != std::string("0")) {
    EXPECT_LE(Probe::seen, 2 * 4 * kBatch);
  }
}

TEST(SharedEvaluation, IsThatOfTraining) {
  const test::TempDir place;
  set_verbosity(Verbosity::kQuiet);
  train(place / "one");
  test::expect_processes("train", 3, {.environment = {{"STOA_TEST_RUN", (place / "many").string()}}});
  if (HasFailure()) return;
  std::int64_t evaluations = 0;
  const auto lines = read_events(place / "one"), others = read_events(place / "many");
  ASSERT_EQ(lines.size(), others.size());
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (!lines[i].contains("top5_accuracy")) continue;
    ++evaluations;
    EXPECT_EQ(others[i].at("accuracy"), lines[i].at("accuracy"));
    EXPECT_NEAR(others[i].at("loss").get<double>(), lines[i].at("loss").get<double>(), 1e-5);
  }
  EXPECT_EQ(evaluations, 2);
}

}  // namespace
}  // namespace stoa
