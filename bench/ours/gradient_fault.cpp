// Trains a recipe in one process with the gradients of the first published program of Ring Self-Attention,
// which divides those of queries, keys and values by the number of processes, and says how far they are from
// the true ones. The product is not touched: the gradients are scaled in the graph that it has recorded. Not
// a worker of bench/run.sh; experiments/ring_attention.sh calls it:
//   build/release/bench/bench_gradient_fault RECIPE PARTS RUN [KEY=VALUE...]
// leaves a run folder as `stoa train` does and prints the errors of the gradients in the first step as a
// table.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/function_hook.h>

#include <cstdio>
#include <cstdlib>
#include <unordered_set>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/random.h"
#include "stoa/nn/parameters.h"
#include "stoa/systems/catalog.h"
#include "stoa/tensor/host_allocator.h"
#include "stoa/train/recipe.h"
#include "stoa/train/trainer.h"
#include "stoa/train/training_step.h"

namespace {

using namespace stoa;
using torch::autograd::Node;
using torch::autograd::variable_list;

/// Behind an attention: its gradients of queries, keys and values, divided.
class Divide final : public torch::autograd::FunctionPostHook {
 public:
  explicit Divide(double by) : by_(by) {}
  variable_list operator()(const variable_list& outputs, const variable_list&) override {
    variable_list divided;
    for (const auto& gradient : outputs) divided.push_back(gradient.defined() ? gradient / by_ : gradient);
    return divided;
  }

 private:
  double by_;
};

/// Puts it behind every attention that a loss is made of. Returns how many there were.
std::int64_t divide_attention_gradients(const at::Tensor& loss, double by) {
  std::int64_t found = 0;
  std::unordered_set<Node*> seen;
  std::vector<Node*> waiting = {loss.grad_fn().get()};
  while (!waiting.empty()) {
    auto* const node = waiting.back();
    waiting.pop_back();
    if (node == nullptr || !seen.insert(node).second) continue;
    if (node->name().find("AttentionFunction") != std::string::npos) {
      node->add_post_hook(std::make_unique<Divide>(by));
      ++found;
    }
    for (const auto& edge : node->next_edges()) waiting.push_back(edge.function.get());
  }
  return found;
}

/// A task whose losses have the fault in their backward pass.
class FaultyTask final : public Task {
 public:
  FaultyTask(std::unique_ptr<Task> task, double by) : task_(std::move(task)), by_(by) {}

  LossResult loss(const Batch& batch, const StepContext& context) override {
    auto result = task_->loss(batch, context);
    if (result.loss.requires_grad() && divide_attention_gradients(result.loss, by_) == 0)
      throw Error("this recipe's graph has no fused attention; fp32 on a CPU is needed");
    return result;
  }

  torch::nn::Module& model() override { return task_->model(); }
  nn::ModelDescription describe() override { return task_->describe(); }
  void load_pretrained() override { task_->load_pretrained(); }
  std::int64_t train_samples() const override { return task_->train_samples(); }
  std::unique_ptr<BatchSource> train_batches(const BatchPlan& plan) override {
    return task_->train_batches(plan);
  }
  double weight(const Batch& batch) const override { return task_->weight(batch); }
  double side_weight(const Batch& batch) const override { return task_->side_weight(batch); }
  Evaluation evaluate(const EvaluateOptions& options) override { return task_->evaluate(options); }
  std::string primary_metric() const override { return task_->primary_metric(); }
  bool higher_is_better() const override { return task_->higher_is_better(); }
  std::vector<Prediction> predict(std::span<const std::string> inputs) override {
    return task_->predict(inputs);
  }
  Batch example(std::int64_t samples) override { return task_->example(samples); }
  void infer(const Batch& batch) override { task_->infer(batch); }
  void save_examples(const std::filesystem::path& folder, std::int64_t count) override {
    task_->save_examples(folder, count);
  }
  Json metadata() const override { return task_->metadata(); }
  void save_files(const std::filesystem::path& folder) override { task_->save_files(folder); }

 private:
  std::unique_ptr<Task> task_;
  double by_;
};

class FaultyRecipe final : public TaskRecipe {
 public:
  FaultyRecipe(std::unique_ptr<TaskRecipe> recipe, double by) : recipe_(std::move(recipe)), by_(by) {}
  void visit(FieldVisitor& v) override { recipe_->visit(v); }
  void validate() const override { recipe_->validate(); }
  std::unique_ptr<Task> build(const BuildContext& context) override {
    return std::make_unique<FaultyTask>(recipe_->build(context), by_);
  }

 private:
  std::unique_ptr<TaskRecipe> recipe_;
  double by_;
};

/// The catalog, each task with the fault.
Catalog faulty(const Catalog& right, double by) {
  Catalog wrong = right;
  for (auto& entry : wrong)
    entry.make = [make = entry.make, by]() -> std::unique_ptr<TaskRecipe> {
      return std::make_unique<FaultyRecipe>(make(), by);
    };
  return wrong;
}

/// Gradients of the first step of the recipe.
std::vector<std::pair<std::string, at::Tensor>> first_gradients(const Config& config,
                                                                const Catalog& catalog) {
  Recipe recipe = read_recipe(config, catalog);
  const Runtime runtime = configure_runtime(recipe.runtime);
  const auto seed = static_cast<std::uint64_t>(recipe.train.seed);
  at::manual_seed(mix_seed({seed, kInitialise}));
  const auto task = recipe.task->build({true, nullptr});
  task->model().train();
  BatchPlan plan;
  plan.batch_size = recipe.train.batch_size;
  plan.seed = seed;
  const auto batch = task->train_batches(plan)->next();
  StepShare share;
  share.seed = mix_seed({seed, kStep, 0});
  accumulate_gradients(*task, batch, {0, recipe.train.steps}, 0, runtime, false, share);
  std::vector<std::pair<std::string, at::Tensor>> gradients;
  for (const auto& parameter : nn::distinct_parameters(task->model()))
    gradients.emplace_back(parameter.name, parameter.tensor.grad());
  return gradients;
}

void print_errors(const Config& config, double by) {
  const auto right = first_gradients(config, catalog());
  const auto wrong = first_gradients(config, faulty(catalog(), by));
  std::printf("| parameter | error of its gradient over the gradient |\n|---|---:|\n");
  for (std::size_t i = 0; i < right.size(); ++i) {
    if (!right[i].second.defined() || right[i].second.dim() < 2) continue;
    const double norm = right[i].second.norm().item<double>();
    const double error = (wrong[i].second - right[i].second).norm().item<double>() / norm;
    std::printf("%s\n", format("| `{}` | {:.2f} |", right[i].first, error).c_str());
  }
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 4) throw ConfigError("RECIPE PARTS RUN [KEY=VALUE...] are needed");
  const double parts = std::atof(argv[2]);
  if (!(parts >= 1)) throw ConfigError(format("PARTS is `{}`; it must be 1 or more", argv[2]));
  configure_allocator();
  Config config = Config::from_file(argv[1]);
  for (int i = 4; i < argc; ++i) config.set(argv[i]);
  print_errors(config, parts);
  TrainRequest request;
  request.recipe = config;
  request.out = argv[3];
  run_training(request, faulty(catalog(), parts));
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "bench_gradient_fault: %s\n", error.what());
  return 1;
}
