#include "stoa/tasks/image_classification.h"

#include <ATen/ATen.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/data/image/dataset.h"
#include "stoa/data/image/pipeline.h"
#include "stoa/metrics/classification.h"
#include "stoa/tasks/classification_exhibits.h"
#include "stoa/tasks/label_smoothing.h"
#include "stoa/train/evaluation_rounds.h"

namespace stoa {
namespace {

constexpr std::int64_t kTopK = 5;
constexpr std::int64_t kGalleryPictures = 12;  // of right and of wrong predictions each

/// Cross-entropy against labels (or two mixed labels), with label smoothing over the mixed target
/// (widenet.md 6.11).
at::Tensor classification_loss(const at::Tensor& logits, const Batch& batch, double smoothing) {
  const auto scores = logits.scalar_type() == at::kDouble ? logits : logits.to(at::kFloat);
  if (!batch.has("labels_mixed"))
    return at::cross_entropy_loss(scores, batch["labels"], {}, at::Reduction::Mean, -100, smoothing);
  const auto own = at::cross_entropy_loss(scores, batch["labels"], {}, at::Reduction::None, -100, smoothing);
  const auto other =
      at::cross_entropy_loss(scores, batch["labels_mixed"], {}, at::Reduction::None, -100, smoothing);
  return (batch["share"] * own + (1 - batch["share"]) * other).mean();
}

class ImageClassification : public Task, public SharesEvaluation {
 public:
  ImageClassification(ImageClassificationOptions options, ImageDataOptions data,
                      std::shared_ptr<ImageClassifier> model, const BuildContext& context)
      : options_(std::move(options)),
        data_(std::move(data)),
        model_(std::move(model)),
        class_names_(options_.class_names) {
    if (context.open_data) {
      train_ = open_image_dataset(data_, Split::kTrain);
      test_ = open_image_dataset(data_, Split::kTest);
      if (class_names_.empty()) class_names_ = train_->class_names();
    } else if (class_names_.empty() && context.metadata.contains("class_names")) {
      class_names_ = context.metadata["class_names"].get<std::vector<std::string>>();
    }
    for (auto label = static_cast<std::int64_t>(class_names_.size()); label < data_.classes; ++label)
      class_names_.push_back(std::to_string(label));
  }

  torch::nn::Module& model() override { return *model_; }
  nn::ModelDescription describe() override { return model_->describe(); }
  std::int64_t train_samples() const override { return data(train_).size(); }
  std::string primary_metric() const override { return "accuracy"; }
  Json metadata() const override { return {{"class_names", class_names_}}; }

  std::unique_ptr<BatchSource> train_batches(const BatchPlan& plan) override {
    data(train_);
    return train_image_batches(train_, data_, plan);
  }

  LossResult loss(const Batch& batch, const StepContext&) override {
    auto output = model_->classify(batch["images"]);
    LossResult result;
    if (output.link.defined()) {
      result.loss = output.link;
      return result;
    }
    result.loss = classification_loss(output.logits, batch, options_.label_smoothing);
    const auto right = output.logits.detach().argmax(1).eq(batch["labels"]).to(at::kFloat).mean();
    result.metrics.push_back({"accuracy", right});
    result.side = std::move(output.side);
    return result;
  }

  Evaluation evaluate(const EvaluateOptions& options) override;
  std::vector<Prediction> predict(std::span<const std::string> inputs) override;

  Batch example(std::int64_t samples) override {
    Batch batch;
    batch.tensors["images"] = at::zeros({samples, data_.channels, data_.image_size, data_.image_size});
    batch.samples = samples;
    return batch;
  }
  void infer(const Batch& batch) override { model_->classify(batch["images"]); }

  void save_examples(const std::filesystem::path& folder, std::int64_t count) override;

 private:
  /// A data set that must have been opened.
  static const ImageDataset& data(const std::shared_ptr<const ImageDataset>& dataset) {
    if (!dataset) throw Error("this task was built without its data");
    return *dataset;
  }
  GalleryExhibit::Picture picture(const at::Tensor& image, std::int64_t label, std::int64_t guess,
                                  double probability) const;
  void add_pictures(const BatchAnswer& answer, GalleryExhibit& right, GalleryExhibit& wrong) const;

  ImageClassificationOptions options_;
  ImageDataOptions data_;
  std::shared_ptr<ImageClassifier> model_;
  std::shared_ptr<const ImageDataset> train_, test_;
  std::vector<std::string> class_names_;
};

Evaluation ImageClassification::evaluate(const EvaluateOptions& options) {
  torch::InferenceMode no_gradients;
  const bool was_training = model_->is_training();
  model_->eval();
  const auto device = model_->parameters().front().device();
  metrics::ClassificationCounts counts(data_.classes, kTopK);
  StatisticsMean statistics;
  GalleryExhibit right, wrong;
  auto rounds = this->rounds(data(test_).size(), options.batch_size, options.workers);
  if (options.progress) options.progress(0, rounds.samples());
  const auto take = [&](const std::vector<BatchAnswer>& answers) {
    for (const auto& answer : answers) {
      counts.add(answer.tensors[0], answer.tensors[1]);
      statistics.add(answer.statistics, answer.samples);
      if (options.exhibits) add_pictures(answer, right, wrong);
    }
    if (options.progress) options.progress(rounds.done(), rounds.samples());
  };
  auto batches = test_image_batches(test_, data_, rounds.plan());
  for (auto batch = batches->next(); batch.samples > 0; batch = batches->next()) {
    const auto output = model_->classify(batch["images"].to(device));
    take(rounds.share({output.logits, batch["labels"]}, output.side.statistics, output.stages));
  }
  take(rounds.rest());
  model_->train(was_training);

  Evaluation evaluation;
  evaluation.metrics.set("accuracy", counts.accuracy());
  if (data_.classes > kTopK) evaluation.metrics.set("top5_accuracy", counts.top_k_accuracy());
  evaluation.metrics.set("loss", counts.negative_log_likelihood());
  if (options.exhibits) {
    if (data_.classes <= kLargestConfusion)
      evaluation.exhibits.push_back(confusion_exhibit(counts.confusion(), class_names_));
    evaluation.exhibits.push_back(
        {"Right", "The first test images the model names rightly, with its probability.", right});
    evaluation.exhibits.push_back(
        {"Wrong", "The first test images the model names wrongly: its answer, then the truth.", wrong});
    for (auto& exhibit : model_->exhibits(statistics.means()))
      evaluation.exhibits.push_back(std::move(exhibit));
  }
  return evaluation;
}

GalleryExhibit::Picture ImageClassification::picture(const at::Tensor& image, std::int64_t label,
                                                     std::int64_t guess, double probability) const {
  GalleryExhibit::Picture result;
  result.png = encode_png(tensor_to_image(image, data_));
  result.good = guess == label;
  const auto& answer = class_names_[static_cast<std::size_t>(guess)];
  result.caption = format("{} {:.0f} %", answer, 100 * probability);
  if (!result.good) result.caption += format(", is {}", class_names_[static_cast<std::size_t>(label)]);
  return result;
}

/// The images are read again: the batch may have been another process's.
void ImageClassification::add_pictures(const BatchAnswer& answer, GalleryExhibit& right,
                                       GalleryExhibit& wrong) const {
  if (std::ssize(right.pictures) >= kGalleryPictures && std::ssize(wrong.pictures) >= kGalleryPictures)
    return;
  const auto probabilities = answer.tensors[0].to(at::kCPU, at::kDouble).softmax(1);
  for (std::int64_t i = 0; i < answer.samples; ++i) {
    const auto label = answer.tensors[1][i].item<std::int64_t>();
    const auto guess = probabilities[i].argmax().item<std::int64_t>();
    auto& gallery = guess == label ? right : wrong;
    if (std::ssize(gallery.pictures) < kGalleryPictures)
      gallery.pictures.push_back(picture(image_to_tensor(test_->get(answer.first + i).image, data_), label,
                                         guess, probabilities[i][guess].item<double>()));
  }
}

std::vector<Prediction> ImageClassification::predict(std::span<const std::string> inputs) {
  torch::InferenceMode no_gradients;
  model_->eval();
  const auto device = model_->parameters().front().device();
  std::vector<Prediction> predictions;
  for (const auto& input : inputs) {
    const MappedFile file(input);
    const auto image = image_to_tensor(decode_image(file.bytes(), input), data_);
    const auto logits = model_->classify(image.unsqueeze(0).to(device)).logits;
    const auto [probability, label] =
        logits.to(at::kCPU, at::kDouble).softmax(1)[0].topk(std::min(kTopK, data_.classes));
    Prediction prediction;
    prediction.json = {{"file", input}, {"top", Json::array()}};
    prediction.text = input;
    for (std::int64_t i = 0; i < label.size(0); ++i) {
      const auto& name = class_names_[static_cast<std::size_t>(label[i].item<std::int64_t>())];
      const double share = probability[i].item<double>();
      prediction.json["top"].push_back(
          {{"class", name}, {"label", label[i].item<std::int64_t>()}, {"probability", share}});
      prediction.text += format("\n  {:6.2f} %  {}", 100 * share, name);
    }
    predictions.push_back(std::move(prediction));
  }
  return predictions;
}

void ImageClassification::save_examples(const std::filesystem::path& folder, std::int64_t count) {
  std::filesystem::create_directories(folder);
  for (std::int64_t i = 0; i < std::min(count, data(test_).size()); ++i) {
    const auto example = test_->get(i);
    const auto png = encode_png(example.image);
    auto label = class_names_[static_cast<std::size_t>(example.label)];
    std::replace_if(
        label.begin(), label.end(), [](unsigned char c) { return std::isalnum(c) == 0; }, '-');
    write_file_atomically(folder / format("{:05}-{}.png", i, label),
                          std::string_view(reinterpret_cast<const char*>(png.data()), png.size()));
  }
}

}  // namespace

void ImageClassificationOptions::visit(FieldVisitor& v) {
  v.field("label_smoothing", label_smoothing, "share of each target spread evenly over all classes");
  v.field("class_names", class_names, "names of the classes by label, for data that carries none");
}

void ImageClassificationOptions::validate(std::int64_t classes) const {
  check_label_smoothing(label_smoothing);
  if (!class_names.empty() && std::ssize(class_names) != classes)
    throw ConfigError(
        format("`task.class_names` has {} names but `data.classes` is {}; give one name a class or none",
               class_names.size(), classes));
}

ImageClassificationRecipe::ImageClassificationRecipe(
    VisitFields visit_model, std::function<void(const ImageClassifierInput&)> validate_model,
    MakeImageClassifier make)
    : visit_model_(std::move(visit_model)),
      validate_model_(std::move(validate_model)),
      make_(std::move(make)) {}

ImageClassifierInput ImageClassificationRecipe::input() const {
  return {data_.channels, data_.image_size, data_.classes};
}

void ImageClassificationRecipe::visit(FieldVisitor& v) {
  v.group("task", options_, "what is learned");
  v.group("data", data_, "the images");
  v.enter("model", "the model");
  visit_model_(v);
  v.leave();
}

void ImageClassificationRecipe::validate() const {
  data_.validate();
  options_.validate(data_.classes);
  validate_model_(input());
}

std::unique_ptr<Task> ImageClassificationRecipe::build(const BuildContext& context) {
  return std::make_unique<ImageClassification>(options_, data_, make_(input()), context);
}

}  // namespace stoa
