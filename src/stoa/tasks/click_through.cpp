#include "stoa/tasks/click_through.h"

#include <ATen/ATen.h>
#include <torch/types.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <numeric>
#include <utility>

#include "stoa/base/checksum.h"
#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/base/text.h"
#include "stoa/data/find.h"
#include "stoa/data/tabular/encoder.h"
#include "stoa/data/tabular/prepare.h"
#include "stoa/metrics/binary.h"
#include "stoa/ops/table_rows_kernels.h"
#include "stoa/optim/scaling.h"
#include "stoa/tasks/click_exhibits.h"
#include "stoa/tasks/click_rows.h"
#include "stoa/train/evaluation_rounds.h"

namespace stoa {

namespace fs = std::filesystem;

namespace {

/// The shape of a run's rows, as its folder keeps it.
struct Shape {
  std::vector<std::string> fields, numerics;
  std::vector<std::int64_t> sizes;
  std::string vocabulary_hash;
  std::string folder;           // of the prepared data; empty where there is none
  std::string grown_from = {};  // hash of the vocabulary whose ids this one keeps

  std::int64_t ids() const { return std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0}); }
};

Shape shape_of(const TabularSchema& schema, const fs::path& folder) {
  Shape shape{{}, schema.numerics, {}, schema.vocabulary_hash, folder.string(), schema.grown_from};
  for (const auto& field : schema.fields) {
    shape.fields.push_back(field.name);
    shape.sizes.push_back(field.size);
  }
  return shape;
}

Shape shape_of(const Json& metadata) {
  return {metadata.at("fields"), metadata.at("numerics"), metadata.at("sizes"), metadata.at("vocabulary"),
          metadata.at("data")};
}

/// The shape that a recipe states, for sizes without data: ids shared evenly.
Shape shape_of(const TabularDataOptions& options) {
  Shape shape;
  if (options.format == TabularFormat::kZipf) {
    for (std::int64_t f = 0; f < options.zipf.fields; ++f) {
      shape.fields.push_back(format("field {}", f));
      shape.sizes.push_back(options.zipf.ids);
    }
    return shape;
  }
  if (options.fields == 0)
    throw ConfigError(
        "without data the sizes are not known: set `data.fields`, `data.numerics` and `data.ids`");
  for (std::int64_t f = 0; f < options.fields; ++f) {
    shape.fields.push_back(format("field {}", f));
    shape.sizes.push_back(
        std::max<std::int64_t>(1, options.ids / options.fields + (f < options.ids % options.fields ? 1 : 0)));
  }
  for (std::int64_t n = 0; n < options.numerics; ++n) shape.numerics.push_back(format("number {}", n));
  return shape;
}

/// Where raw data that are prepared on the way are kept: a folder for each place they came from.
fs::path prepared_copy(const fs::path& raw, const std::string& source) {
  const char *const cache = std::getenv("XDG_CACHE_HOME"), *const home = std::getenv("HOME");
  const fs::path root =
      cache != nullptr && *cache != 0 ? fs::path(cache) : fs::path(home != nullptr ? home : ".") / ".cache";
  const std::string place = fs::absolute(raw).lexically_normal().string();
  const auto crc = crc32({reinterpret_cast<const std::uint8_t*>(place.data()), place.size()});
  return root / "stoa" / format("{}-{:08x}", source, crc);
}

/// The folder of prepared data that the options mean; raw MovieLens files are prepared where that was not
/// done yet.
fs::path prepared_folder(const TabularDataOptions& options) {
  const fs::path place = find_data(options.path);
  if (options.format == TabularFormat::kPrepared) return place;
  PrepareOptions prepare;
  prepare.source = "movielens";
  prepare.inputs = {place};
  prepare.out = prepared_copy(place, prepare.source);
  try {
    prepare_tabular(prepare);
  } catch (const ConfigError&) {  // of files that changed since, or by an earlier version: it is only a copy
    prepare.overwrite = true;
    prepare_tabular(prepare);
  }
  return prepare.out;
}

struct Splits {
  std::shared_ptr<const TabularDataset> train, test;
  fs::path folder;  // of prepared data; empty for generated rows
};

Splits open(const TabularDataOptions& options) {
  if (options.format == TabularFormat::kZipf)
    return {make_zipf_dataset(options.zipf, TabularSplit::kTrain),
            make_zipf_dataset(options.zipf, TabularSplit::kTest),
            {}};
  const fs::path folder = prepared_folder(options);
  return {open_tabular_dataset(folder, TabularSplit::kTrain),
          open_tabular_dataset(folder, TabularSplit::kTest), fs::absolute(folder)};
}

Batch to_batch(std::span<const EncodedRow> rows) {
  const auto count = std::ssize(rows);
  Batch batch;
  batch.samples = count;
  auto ids = at::empty({count, count > 0 ? std::ssize(rows[0].ids) : 0}, at::kInt);
  auto numerics = at::empty({count, count > 0 ? std::ssize(rows[0].numerics) : 0});
  for (std::int64_t i = 0; i < count; ++i) {
    const auto& row = rows[static_cast<std::size_t>(i)];
    std::ranges::copy(row.ids, ids.mutable_data_ptr<std::int32_t>() + i * ids.size(1));
    std::ranges::copy(row.numerics, numerics.mutable_data_ptr<float>() + i * numerics.size(1));
  }
  batch.tensors = {{"ids", ids}, {"numerics", numerics}};
  return batch;
}

class ClickThrough : public Task, public SharesEvaluation {
 public:
  ClickThrough(nn::EmbeddingOptions embedding, Shape shape, std::shared_ptr<ClickModel> model, Splits data)
      : embedding_(std::move(embedding)),
        shape_(std::move(shape)),
        model_(std::move(model)),
        train_(std::move(data.train)),
        test_(std::move(data.test)),
        table_seed_(static_cast<std::uint64_t>(
            at::randint(std::numeric_limits<std::int64_t>::max(), {}, at::kLong).item<std::int64_t>())) {}

  torch::nn::Module& model() override { return *model_; }
  nn::SparseWeights* sparse_weights() override { return &tables(); }
  std::int64_t sparse_bytes() const override {
    const std::int64_t numbers = ops::RowFormat{embedding_.dim}.stride();
    return shape_.ids() * numbers * static_cast<std::int64_t>(sizeof(float));
  }
  nn::ModelDescription describe() override;
  std::int64_t train_samples() const override { return rows(train_).size(); }
  std::string primary_metric() const override { return "auc"; }
  Json metadata() const override {
    return {{"fields", shape_.fields},
            {"numerics", shape_.numerics},
            {"sizes", shape_.sizes},
            {"vocabulary", shape_.vocabulary_hash},
            {"data", shape_.folder}};
  }

  std::unique_ptr<BatchSource> train_batches(const BatchPlan& plan) override {
    if (plan.batch_size > rows(train_).size())
      throw ConfigError(format("`train.batch_size` is {}, but there are {} training rows; take a smaller one",
                               plan.batch_size, rows(train_).size()));
    tables().draw();  // here rather than in the first step, whose time is measured
    return train_tabular_batches(train_, plan);
  }

  LossResult loss(const Batch& batch, const StepContext&) override {
    LossResult result;
    const auto logits = score(batch);
    const auto labels = batch["labels"].to(logits.scalar_type());
    result.loss = at::binary_cross_entropy_with_logits(logits, labels);
    const auto penalty = model_->penalty(embedding_.l2);
    if (penalty.requires_grad()) result.side.losses.push_back({"l2", penalty});
    // of the step before: this one's gradients are not there yet
    result.side.statistics.push_back({"rows.gradient_norms", shares_of(tables().gradient_norms())});
    return result;
  }

  Evaluation evaluate(const EvaluateOptions& options) override;
  std::vector<Prediction> predict(std::span<const std::string> inputs) override;

  Batch example(std::int64_t samples) override {
    Batch batch;
    batch.samples = samples;
    const auto fields = static_cast<std::int64_t>(shape_.sizes.size());
    auto ids = at::empty({samples, fields}, at::kInt);
    for (std::int64_t f = 0; f < fields; ++f)
      ids.select(1, f).copy_(
          at::arange(samples).mul(7919).remainder(shape_.sizes[static_cast<std::size_t>(f)]));
    batch.tensors["ids"] = ids;
    batch.tensors["numerics"] = at::zeros({samples, std::ssize(shape_.numerics)});
    return batch;
  }
  void infer(const Batch& batch) override { score(batch); }

  void save_examples(const std::filesystem::path& folder, std::int64_t count) override;

 private:
  static const TabularDataset& rows(const std::shared_ptr<const TabularDataset>& dataset) {
    if (!dataset) throw Error("this task was built without its data");
    return *dataset;
  }
  nn::EmbeddingTables& tables() {
    if (!tables_) {
      tables_ = std::make_unique<nn::EmbeddingTables>(shape_.sizes, embedding_, table_seed_);
      tables_->name_vocabulary(shape_.vocabulary_hash, shape_.grown_from);
    }
    return *tables_;
  }
  /// Logits [batch] fp32 at least.
  at::Tensor score(const Batch& batch) {
    const auto logits = model_->score(tables().lookup(batch["ids"]), batch["numerics"]);
    return logits.scalar_type() == at::kDouble ? logits : logits.to(at::kFloat);
  }
  const RowEncoder& encoder();

  nn::EmbeddingOptions embedding_;
  Shape shape_;
  std::shared_ptr<ClickModel> model_;
  std::shared_ptr<const TabularDataset> train_, test_;
  std::uint64_t table_seed_;
  std::unique_ptr<nn::EmbeddingTables> tables_;
  std::unique_ptr<RarityBuckets> buckets_;
  std::unique_ptr<RowEncoder> encoder_;
};

nn::ModelDescription ClickThrough::describe() {
  auto description = model_->describe();
  const std::int64_t per_row = embedding_.dim + 1, fields = std::ssize(shape_.sizes);
  description.parts.insert(description.parts.begin(),
                           {"tables", shape_.ids() * per_row, 0, fields * per_row});
  description.input =
      format("{} fields, {} ids, {} numbers", fields, thousands(shape_.ids()), shape_.numerics.size());
  return description;
}

Evaluation ClickThrough::evaluate(const EvaluateOptions& options) {
  const at::NoGradGuard no_gradients;
  const bool was_training = model_->is_training();
  model_->eval();
  auto rounds = this->rounds(rows(test_).size(), options.batch_size, options.workers);
  if (options.progress) options.progress(0, rounds.samples());
  if (!buckets_) buckets_ = std::make_unique<RarityBuckets>(rows(train_));
  metrics::BinaryScores scores;
  auto batches = test_tabular_batches(test_, rounds.plan());
  for (auto batch = batches->next(); batch.samples > 0; batch = batches->next()) {
    const auto placed = batch.to(model_->parameters().front().device());
    for (const auto& answer :
         rounds.share({score(placed).cpu(), batch["labels"], buckets_->of(batch["ids"])}))
      scores.add(answer.tensors[0], answer.tensors[1], answer.tensors[2]);
    if (options.progress) options.progress(rounds.done(), rounds.samples());
  }
  model_->train(was_training);

  const auto found = scores.results();
  const auto by_rarity = scores.by_bucket();
  Evaluation evaluation;
  evaluation.metrics = {{"auc", found.auc},
                        {"logloss", found.log_loss},
                        {"calibration", found.calibration},
                        {"calibration_error", found.calibration_error}};
  for (const auto& bucket : by_rarity)
    if (bucket.auc) evaluation.metrics.set(RarityBuckets::metric(bucket.bucket), *bucket.auc);
  if (!options.exhibits) return evaluation;
  evaluation.exhibits = score_exhibits(scores, found, by_rarity);
  evaluation.exhibits.push_back(norm_exhibit(tables()));
  return evaluation;
}

/// What reads raw rows as this run's training data were read.
const RowEncoder& ClickThrough::encoder() {
  if (encoder_) return *encoder_;
  if (shape_.folder.empty())
    throw DataError(
        "this run's rows were generated, so there is no vocabulary for raw ones; give encoded rows: "
        "{\"ids\": [...]}");
  auto encoder = std::make_unique<RowEncoder>(shape_.folder);
  if (encoder->schema().vocabulary_hash != shape_.vocabulary_hash)
    throw DataError(
        format("{}: its vocabulary is not the one this run was trained with; prepare the data as they were",
               shape_.folder));
  encoder_ = std::move(encoder);
  return *encoder_;
}

std::vector<Prediction> ClickThrough::predict(std::span<const std::string> inputs) {
  constexpr std::size_t kAtOnce = 8192;
  const at::NoGradGuard no_gradients;
  model_->eval();
  const auto device = model_->parameters().front().device();
  std::vector<Prediction> predictions;
  for (const auto& input : inputs) {
    const auto all = read_rows(input, shape_.sizes, shape_.numerics.size(),
                               [&]() -> const RowEncoder& { return encoder(); });
    Prediction prediction;
    prediction.json["probabilities"] = Json::array();
    for (std::size_t first = 0; first < all.size(); first += kAtOnce) {
      const auto batch = to_batch(std::span(all).subspan(first, std::min(kAtOnce, all.size() - first)));
      const auto rates = score(batch.to(device)).to(at::kCPU, at::kDouble).sigmoid();
      for (std::int64_t i = 0; i < rates.size(0); ++i) {
        const double rate = rates[i].item<double>();
        prediction.json["probabilities"].push_back(rate);
        prediction.text += format("{:.6f}\n", rate);
      }
    }
    predictions.push_back(std::move(prediction));
  }
  return predictions;
}

void ClickThrough::save_examples(const fs::path& folder, std::int64_t count) {
  std::vector<std::int64_t> numbers(static_cast<std::size_t>(std::min(count, rows(test_).size())));
  std::iota(numbers.begin(), numbers.end(), 0);
  const auto batch = test_->rows(numbers);
  std::string lines;
  for (std::int64_t i = 0; i < batch.samples; ++i) {
    Json row = {{"ids", Json::array()}, {"numerics", Json::array()}};
    for (std::int64_t f = 0; f < batch["ids"].size(1); ++f)
      row["ids"].push_back(batch["ids"][i][f].item<std::int64_t>());
    for (std::int64_t n = 0; n < batch["numerics"].size(1); ++n)
      row["numerics"].push_back(batch["numerics"][i][n].item<float>());
    row["label"] = batch["labels"][i].item<double>();
    lines += row.dump() + "\n";
  }
  fs::create_directories(folder);
  write_file_atomically(folder / "examples.jsonl", lines);
}

}  // namespace

void TabularDataOptions::visit(FieldVisitor& v) {
  v.choice("format", format,
           {{"prepared", TabularFormat::kPrepared},
            {"movielens", TabularFormat::kMovieLens},
            {"zipf", TabularFormat::kZipf}},
           "prepared: made by `stoa data prepare`; movielens: its raw files; zipf: generated rows");
  v.when(format != TabularFormat::kZipf, "format = \"prepared\" or \"movielens\"", [&] {
    v.field("path", path, "folder of the data; a relative one is also looked for below $STOA_DATA");
    v.field("fields", fields, "categorical fields, for sizes without data; 0 takes what the data have");
    v.field("numerics", numerics, "numbers of a row, likewise");
    v.field("ids", ids, "ids of all fields together, likewise");
  });
  v.when(format == TabularFormat::kZipf, "format = \"zipf\"",
         [&] { v.group("zipf", zipf, "the generated rows"); });
}

void TabularDataOptions::validate() const {
  if (format == TabularFormat::kZipf) return zipf.validate();
  if (path.empty()) throw ConfigError("`data.path` is not set; name the folder of the data");
  const auto check = [](const char* name, std::int64_t value) {
    if (value < 0) throw ConfigError(stoa::format("`data.{}` is {}; it must be at least 0", name, value));
  };
  check("fields", fields);
  check("numerics", numerics);
  check("ids", ids);
  if (fields > 0 && ids < fields)
    throw ConfigError(stoa::format("`data.ids` is {}; {} fields need at least one id each", ids, fields));
}

void ComparisonOptions::visit(FieldVisitor& v) {
  v.field("factors", factors, "times the batch, e.g. [8, 32]; [] compares nothing");
  v.field("rules", rules, "how rates and L2 follow: none, sqrt, sqrt_star, linear, n2_lambda, cowclip");
}

void ComparisonOptions::validate() const {
  for (const std::int64_t factor : factors)
    if (factor < 2 || std::ranges::count(factors, factor) > 1)
      throw ConfigError(
          format("`comparison.factors` has {}; whole numbers over 1 are needed, each once", factor));
  for (const std::string& rule : rules) {
    try {
      optim::scaling_rule(rule);
    } catch (const ConfigError& error) {
      throw ConfigError(format("`comparison.rules`: {}", error.what()));
    }
    if (std::ranges::count(rules, rule) > 1)
      throw ConfigError(format("`comparison.rules` has {} twice; name it once", rule));
  }
}

ClickThroughRecipe::ClickThroughRecipe(VisitFields visit_model,
                                       std::function<void(const ClickModelInput&)> validate_model,
                                       MakeClickModel make)
    : visit_model_(std::move(visit_model)),
      validate_model_(std::move(validate_model)),
      make_(std::move(make)) {}

void ClickThroughRecipe::visit(FieldVisitor& v) {
  v.group("data", data_, "the rows");
  v.group("embedding", embedding_, "tables of embeddings and their update");
  v.group("comparison", comparison_, "larger batches that `stoa train` compares the finished run with");
  v.enter("model", "the model");
  visit_model_(v);
  v.leave();
}

void ClickThroughRecipe::validate() const {
  data_.validate();
  embedding_.validate();
  comparison_.validate();
  const bool known = data_.format == TabularFormat::kZipf || data_.fields > 0;
  if (known)
    validate_model_({data_.format == TabularFormat::kZipf ? data_.zipf.fields : data_.fields,
                     data_.format == TabularFormat::kZipf ? 0 : data_.numerics, embedding_.dim});
}

std::unique_ptr<Task> ClickThroughRecipe::build(const BuildContext& context) {
  Splits data;
  Shape shape;
  if (context.open_data) {
    data = open(data_);
    shape = shape_of(data.train->schema(), data.folder);
    if (context.metadata.is_object() && context.metadata.contains("vocabulary") &&
        context.metadata["vocabulary"] != shape.vocabulary_hash)
      throw DataError(
          format("{}: its vocabulary is not the one this run was trained with; to go on with new data, "
                 "start a run from this one's weights: --set initial.weights=RUN",
                 shape.folder.empty() ? "the generated data" : shape.folder));
  } else if (context.metadata.is_object() && context.metadata.contains("sizes")) {
    shape = shape_of(context.metadata);
  } else {
    shape = shape_of(data_);
  }
  const ClickModelInput input{std::ssize(shape.sizes), std::ssize(shape.numerics), embedding_.dim};
  validate_model_(input);
  return std::make_unique<ClickThrough>(embedding_, std::move(shape), make_(input), std::move(data));
}

}  // namespace stoa
