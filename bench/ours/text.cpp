// Text: tokenizers, BERT's masked training step, sentence embeddings, GPT-2's generation.
//   {"mode": "tokenize", "path": FOLDER, "tokenizer": "vocab.txt"}     FOLDER/wikitext.txt line by line, one
//   thread
//   {"mode": "train", "shape": SHAPE, "small": SHAPE}     one update; --check compares the small one
//   {"mode": "embed", "path": FOLDER, "batch": 64, "lengths": [16, ...]}     every sentence once
//   {"mode": "sample", "prompt": 32, "tokens": 64, "bf16": false}     greedy, GPT-2 small with weights as
//   drawn
// SHAPE: {"batch", "length", "vocabulary", "dim", "depth", "heads", "mlp_dim"}. The training step: gradients
// to none, forward, loss over the masked places and accuracy, backward, clipping by the joint norm, finite
// check, AdamW; numbers are brought to the host. Batches lie ready.
#include <ATen/ATen.h>
#include <torch/types.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "bench/support/worker.h"
#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/data/text/masking.h"
#include "stoa/data/text/tokenizer.h"
#include "stoa/nn/packed_tokens.h"
#include "stoa/ops/keep_packed.h"
#include "stoa/ops/linear_cross_entropy.h"
#include "stoa/optim/optimizer.h"
#include "stoa/systems/text_transformer/model.h"
#include "stoa/tasks/generation.h"
#include "stoa/tensor/runtime.h"

namespace {

using namespace stoa;
using text_transformer::TextTransformer;
using text_transformer::TextTransformerOptions;
namespace fs = std::filesystem;

/// A model's tensors, or their gradients, by the names that Hugging Face gives them.
std::map<std::string, at::Tensor> in_hugging_faces_names(TextTransformer& model, bool gradients) {
  const at::NoGradGuard no_gradients;
  const fs::path folder = fs::temp_directory_path() / format("stoa_bench_text_{}", getpid());
  fs::create_directories(folder);
  const auto swap_with_gradients = [&] {
    for (auto& parameter : model->parameters()) {
      const auto value = parameter.detach().clone();
      parameter.copy_(parameter.grad());
      parameter.mutable_grad().copy_(value);
    }
  };
  if (gradients) swap_with_gradients();
  model->save_pretrained(folder);
  if (gradients) swap_with_gradients();
  std::map<std::string, at::Tensor> tensors;
  for (const auto& [name, tensor] : load_safetensors(folder / "model.safetensors").tensors)
    tensors[(gradients ? "grad." : "model.") + name] = tensor.clone();
  fs::remove_all(folder);
  return tensors;
}

TextTransformerOptions preset(const std::string& text) {
  TextTransformerOptions options;
  read_fields(Config::from_text(text, "bench"), [&](FieldVisitor& v) { options.visit(v); });
  return options;
}

/// One text, line by line, as in a loop over the lines of a corpus.
class Tokenize final : public bench::Work {
 public:
  explicit Tokenize(const Json& spec)
      : tokenizer_(load_tokenizer(fs::path(spec.at("path")) / spec.at("tokenizer").get<std::string>())),
        text_(read_file(fs::path(spec.at("path")) / "wikitext.txt")) {
    std::string_view rest = text_;
    while (!rest.empty()) {
      const auto size = std::min(rest.find('\n'), rest.size());
      lines_.push_back(rest.substr(0, size));
      rest.remove_prefix(std::min(size + 1, rest.size()));
    }
  }
  void run() override {
    ids_.clear();
    ends_.clear();
    for (const auto line : lines_) {
      tokenizer_->encode(line, ids_);
      ends_.push_back(std::ssize(ids_));
    }
  }
  Json describe() override { return {{"amount", static_cast<double>(text_.size()) / 1e6}}; }
  TensorFile reference() override {
    run();
    return {{{"ids", at::tensor(ids_, at::kInt)}, {"ends", at::tensor(ends_, at::kLong)}}, {}};
  }

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::string text_;
  std::vector<std::string_view> lines_;
  std::vector<std::int32_t> ids_;
  std::vector<std::int64_t> ends_;
};

/// BERT with its head for masked tokens, and a batch without padding of which 15 % is asked for.
struct Masked {
  Masked(const Json& shape, double dropout) {
    const auto get = [&](const char* key) { return bench::integer(shape, key); };
    const std::int64_t batch = get("batch"), length = get("length");
    auto options = preset(format("preset = \"bert\"\ndim = {}\ndepth = {}\nheads = {}\nmlp_dim = {}",
                                 get("dim"), get("depth"), get("heads"), get("mlp_dim")));
    options.dropout = options.attention_dropout = dropout;
    TextModelInput input;
    input.vocabulary = get("vocabulary");
    model = TextTransformer(options, input);
    model->train();
    ids = at::randint(input.vocabulary, {batch, length}, at::kLong);
    targets = at::randint(input.vocabulary, {batch, length}, at::kLong);
    targets.masked_fill_(at::rand({batch, length}).ge(0.15), kNoTarget);
    lengths = at::full({batch}, length, at::kLong);
  }

  /// As the masked task makes them (tasks/corpus_task.cpp).
  ops::LinearCrossEntropy loss() {
    const auto tokens = nn::pack_tokens(ids, lengths);
    const auto hidden = model->forward(tokens).hidden;
    const auto packed = tokens.pack(targets);
    const auto asked = packed.ne(kNoTarget).nonzero().squeeze(1);
    const auto scores = model->language_scores(hidden.index_select(0, asked));
    return ops::linear_cross_entropy(scores.rows, scores.weight, scores.bias, packed.index_select(0, asked),
                                     0, kNoTarget);
  }

  TextTransformer model{nullptr};
  at::Tensor ids, targets, lengths;
};

class TrainingStep final : public bench::Work {
 public:
  explicit TrainingStep(const Json& spec) : spec_(spec), masked_(spec.at("shape"), 0.1) {
    optim::OptimizerOptions options;
    options.lr = 1e-4;
    options.weight_decay = 0.01;
    optimizer_ = optim::make_optimizer(nn::distinct_parameters(*masked_.model), options);
  }

  void run() override {
    optimizer_->zero_grad();
    const auto found = masked_.loss();
    found.loss.backward();
    const auto scale = optimizer_->clipping(1.0, false);
    const double loss = found.loss.item<double>();
    found.correct.to(at::kFloat).mean().item<double>();
    if (!std::isfinite(loss) || !std::isfinite(scale.norm))
      throw NumericError("the loss or a gradient is not finite");
    optimizer_->step(1e-4, scale);
  }

  Json describe() override {
    const auto tokens = masked_.ids.numel();
    const double asked = masked_.targets.ne(kNoTarget).sum().item<double>();
    const auto& o = masked_.model->options();
    // the head is computed where it is asked for, so the model's own count of products does not hold
    const double layer = static_cast<double>(o.dim * (4 * o.dim + 2 * o.mlp_dim + 2 * masked_.ids.size(1)));
    const double head = static_cast<double>(o.dim * (o.dim + masked_.model->input().vocabulary));
    return {{"parameters", nn::count_parameters(*masked_.model)},
            {"flops", 6 * (static_cast<double>(tokens * o.depth) * layer + asked * head)}};
  }

  TensorFile reference() override {
    Masked small(spec_.at("small"), 0.0);
    for (auto& parameter :
         small.model->parameters())  // norms and biases too must not be what they are drawn as
      if (parameter.dim() < 2) parameter.data().add_(at::randn_like(parameter), 0.1);
    TensorFile file;
    file.tensors = in_hugging_faces_names(small.model, false);
    const auto loss = small.loss().loss;
    loss.backward();
    file.tensors.merge(in_hugging_faces_names(small.model, true));
    file.tensors["ids"] = small.ids;
    file.tensors["targets"] = small.targets;
    file.tensors["loss"] = loss.detach();
    return file;
  }

 private:
  Json spec_;
  Masked masked_;
  std::unique_ptr<optim::Optimizer> optimizer_;
};

/// Sentences of several lengths to normalised means of a pre-trained encoder's last hidden states.
class Embed final : public bench::Work {
 public:
  explicit Embed(const Json& spec) : batch_(bench::integer(spec, "batch")) {
    const auto lengths = spec.at("lengths").get<std::vector<std::int64_t>>();
    lengths_ = at::tensor(lengths, at::kLong);
    const auto longest = lengths_.max().item<std::int64_t>();
    ids_ = at::randint(1000, 30000, {lengths_.numel(), longest}, at::kLong);
    TextModelInput input;
    input.head = TextHead::kSpans;  // the smallest head; it is not asked
    const auto options = preset(format("weights = \"{}\"", spec.at("path").get<std::string>()));
    options.validate(input);
    model_ = TextTransformer(options, input);
    model_->load_pretrained();
    model_->eval();
  }

  void run() override {
    for (std::int64_t i = 0; i < lengths_.numel(); i += batch_) embed(i, nullptr);
  }
  Json describe() override { return {{"amount", lengths_.numel()}}; }

  TensorFile reference() override {
    TensorFile file{{{"ids", ids_}, {"lengths", lengths_}}, {}};
    std::vector<at::Tensor> embeddings;
    std::vector<std::vector<at::Tensor>> layers(static_cast<std::size_t>(model_->options().depth) + 1);
    for (std::int64_t i = 0; i < lengths_.numel(); i += batch_) {
      std::vector<at::Tensor> here;
      embeddings.push_back(embed(i, &here));
      for (std::size_t layer = 0; layer < here.size(); ++layer) layers.at(layer).push_back(here[layer]);
    }
    file.tensors["embeddings"] = at::cat(embeddings);
    for (std::size_t layer = 0; layer < layers.size(); ++layer)
      file.tensors[format("hidden.{}", layer)] = at::cat(layers[layer]);
    return file;
  }

 private:
  at::Tensor embed(std::int64_t first, std::vector<at::Tensor>* layers) {
    const at::NoGradGuard no_gradients;
    const auto lengths = lengths_.slice(0, first, first + batch_);
    const auto ids = ids_.slice(0, first, first + batch_).slice(1, 0, lengths.max().item<std::int64_t>());
    const auto tokens = nn::pack_tokens(ids, lengths);
    const auto means = tokens.mean(model_->forward(tokens, layers).hidden);
    return means / means.norm(2, 1, true);
  }

  std::int64_t batch_;
  at::Tensor ids_, lengths_;
  TextTransformer model_{nullptr};
  ops::KeepPacked keep_packed_;
};

class Sample final : public bench::Work {
 public:
  explicit Sample(const Json& spec) {
    TextModelInput input;
    input.head = TextHead::kCausal;
    input.vocabulary = kVocabulary;
    input.length = kContext;
    const auto options = preset("preset = \"gpt2\"");
    model_ = TextTransformer(options, input);
    model_->eval();
    Runtime runtime;
    runtime.bf16 = spec.value("bf16", false);
    autocast_.emplace(runtime);
    options_.tokens = bench::integer(spec, "tokens");
    options_.temperature = 0;
    const auto ids = at::randint(kVocabulary, {bench::integer(spec, "prompt")}, at::kInt);
    prompt_.assign(ids.const_data_ptr<std::int32_t>(), ids.const_data_ptr<std::int32_t>() + ids.numel());
  }

  void run() override {
    const at::NoGradGuard no_gradients;
    RandomStream random(1);
    answer_ = continue_tokens(*model_, prompt_, kContext, /*end=*/-1, options_, random);
  }
  Json describe() override {
    return {{"parameters", nn::count_parameters(*model_)}, {"amount", options_.tokens}};
  }
  TensorFile reference() override {
    run();
    TensorFile file;
    file.tensors = in_hugging_faces_names(model_, false);
    file.tensors["prompt"] = at::tensor(prompt_, at::kInt).to(at::kLong);
    file.tensors["answer"] = at::tensor(answer_, at::kInt).to(at::kLong);
    return file;
  }

 private:
  static constexpr std::int64_t kVocabulary = 50257, kContext = 1024;
  TextTransformer model_{nullptr};
  std::optional<AutocastScope> autocast_;  // for all runs, as `stoa predict` has it: weights are rounded once
  GenerationOptions options_;
  std::vector<std::int32_t> prompt_, answer_;
};

}  // namespace

int main(int argc, char** argv) {
  return bench::serve(argc, argv, [](const Json& spec) -> std::unique_ptr<bench::Work> {
    const auto mode = spec.at("mode").get<std::string>();
    if (mode == "tokenize") return std::make_unique<Tokenize>(spec);
    if (mode == "embed") return std::make_unique<Embed>(spec);
    if (mode == "sample") return std::make_unique<Sample>(spec);
    return std::make_unique<TrainingStep>(spec);
  });
}
