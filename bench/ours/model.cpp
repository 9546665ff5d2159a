// A recipe's model: a training step, the update as the trainer makes it, or one inference.
//   {"recipe": "bench/recipes/vit_ti.toml", "set": ["train.batch_size=32"], "mode": "train" or "infer",
//   "int8": false}
// The timed step: gradients to none, forward, loss and accuracy, backward, norm and clipping of the
// gradients, finite check, update; loss and accuracy are brought to the host. The batch lies ready: reading
// data is not timed.
#include <ATen/ATen.h>

#include <cmath>

#include "bench/support/worker.h"
#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/nn/moe/mixture.h"
#include "stoa/nn/parameters.h"
#include "stoa/ops/keep_packed.h"
#include "stoa/optim/clip.h"
#include "stoa/systems/catalog.h"
#include "stoa/tasks/image_classification.h"
#include "stoa/train/recipe.h"
#include "stoa/train/training_step.h"

namespace {

using namespace stoa;

constexpr int kReferenceSteps = 3;

Recipe open(const Json& spec) {
  Config config = Config::from_file(spec.at("recipe").get<std::string>());
  for (const auto& assignment : spec.value("set", Json::array())) config.set(assignment.get<std::string>());
  config.set(format("runtime.device=\"{}\"", spec.value("device", "cpu")));
  return read_recipe(config, catalog());
}

class ModelWork : public bench::Work {
 public:
  explicit ModelWork(const Json& spec)
      : recipe_(open(spec)),
        runtime_(configure_runtime(recipe_.runtime)),
        task_(recipe_.task->build({false, {}})) {
    task_->model().to(runtime_.device);
  }

  Json describe() override {
    const auto model = task_->describe();
    return {{"parameters", nn::count_parameters(task_->model())},
            {"flops", 2.0 * passes() * static_cast<double>(model.macs() * recipe_.train.batch_size)},
            {"precision", runtime_.bf16 ? "bf16" : "fp32"},
            {"recipe", recipe_.resolved()}};
  }

 protected:
  /// Forward passes that one repetition costs: a backward pass has twice the products.
  virtual int passes() const = 0;

  Recipe recipe_;
  Runtime runtime_;
  std::unique_ptr<Task> task_;
};

class TrainingStep final : public ModelWork {
 public:
  explicit TrainingStep(const Json& spec)
      : ModelWork(spec),
        optimizer_(optim::make_optimizer(nn::distinct_parameters(task_->model()), recipe_.optimizer)),
        batch_(task_->example(recipe_.train.batch_size)) {
    task_->model().train();
    batch_.tensors["images"].normal_();
    const auto data = recipe_.resolved().at("data");
    batch_.tensors["labels"] =
        at::randint(data.at("classes").get<std::int64_t>(), {batch_.samples}, at::kLong);
    batch_ = batch_.to(runtime_.device);
  }

  void run() override { step(); }

  TensorFile reference() override {
    TensorFile file;
    for (const auto& [name, tensor] : nn::module_state(task_->model()))
      file.tensors["model." + name] = tensor.clone();
    file.tensors["images"] = batch_["images"];
    file.tensors["labels"] = batch_["labels"];
    std::vector<double> losses, norms;
    for (int i = 0; i < kReferenceSteps; ++i) {
      const auto [loss, norm] = step();
      losses.push_back(loss);
      norms.push_back(norm);
    }
    file.tensors["losses"] = at::tensor(losses, at::kDouble);
    file.tensors["norms"] = at::tensor(norms, at::kDouble);
    return file;
  }

 private:
  int passes() const override { return 3; }

  /// Loss (side losses included) and norm of the gradients.
  std::pair<double, double> step() {
    optimizer_->zero_grad();
    const auto outcome = accumulate_gradients(*task_, batch_, {done_++, 1000}, recipe_.train.micro_batch_size,
                                              runtime_, false);
    const double norm = optim::clip_global_norm(optimizer_->parameters(), recipe_.train.clip_norm);
    double sum = 0;
    for (const auto& [name, loss] : outcome.losses) sum += loss;
    if (!std::isfinite(sum) || !std::isfinite(norm))
      throw NumericError("the loss or a gradient is not finite");
    optimizer_->step(recipe_.optimizer.lr);
    return {sum, norm};
  }

  std::unique_ptr<optim::Optimizer> optimizer_;
  Batch batch_;
  std::int64_t done_ = 0;
};

class Inference final : public ModelWork {
 public:
  explicit Inference(const Json& spec) : ModelWork(spec), batch_(task_->example(recipe_.train.batch_size)) {
    task_->model().eval();
    if (spec.value("int8", false)) nn::round_experts_to_int8(task_->model());
    batch_.tensors["images"].normal_();
    batch_ = batch_.to(runtime_.device);
  }

  void run() override {
    const at::NoGradGuard no_gradients;
    const AutocastScope autocast(runtime_);
    task_->infer(batch_);
  }

  TensorFile reference() override {
    const at::NoGradGuard no_gradients;
    TensorFile file;
    for (const auto& [name, tensor] : nn::module_state(task_->model()))
      file.tensors["model." + name] = tensor;
    file.tensors["images"] = batch_["images"];
    file.tensors["logits"] = dynamic_cast<ImageClassifier&>(task_->model()).classify(batch_["images"]).logits;
    return file;
  }

 private:
  int passes() const override { return 1; }

  Batch batch_;
  ops::KeepPacked keep_packed_;
};

}  // namespace

int main(int argc, char** argv) {
  return bench::serve(argc, argv, [](const Json& spec) -> std::unique_ptr<bench::Work> {
    if (spec.at("mode") == "infer") return std::make_unique<Inference>(spec);
    return std::make_unique<TrainingStep>(spec);
  });
}
