// config.json, read and written.
#include <filesystem>
#include <utility>
#include <vector>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/systems/text_transformer/hugging_face.h"
#include "stoa/systems/text_transformer/hugging_face_names.h"

namespace stoa::text_transformer {

namespace fs = std::filesystem;

namespace {

constexpr std::pair<const char*, Preset> kFamilies[] = {{"bert", Preset::kBert},
                                                        {"distilbert", Preset::kDistilBert},
                                                        {"albert", Preset::kAlbert},
                                                        {"gpt2", Preset::kGpt2}};

/// One config.json, whose keys are asked for by type.
class Config {
 public:
  explicit Config(const fs::path& folder) : file_(folder / "config.json") {
    if (!fs::exists(file_))
      throw DataError(
          format("{}: config.json is missing; a folder of pre-trained weights has it beside its "
                 "safetensors files",
                 folder.string()));
    json_ = read_json(file_);
    if (!json_.is_object()) throw DataError(format("{}: a JSON object is needed", file_.string()));
  }

  [[noreturn]] void fail(const std::string& fault) const {
    throw DataError(format("{}: {}", file_.string(), fault));
  }
  bool has(const char* key) const { return json_.contains(key) && !json_.at(key).is_null(); }
  std::string text(const char* key) const {
    if (!has(key) || !json_.at(key).is_string()) fail(format("`{}` is missing or no text", key));
    return json_.at(key);
  }
  std::int64_t whole(const char* key) const {
    if (!has(key) || !json_.at(key).is_number_integer())
      fail(format("`{}` is missing or no whole number", key));
    const std::int64_t value = json_.at(key);
    if (value < 1 || value > (std::int64_t{1} << 40)) fail(format("`{}` is {}", key, value));
    return value;
  }
  void number(const char* key, double& value) const {
    if (!has(key)) return;
    if (!json_.at(key).is_number()) fail(format("`{}` is no number", key));
    value = json_.at(key);
  }
  /// Refuses a key that asks for what there is not.
  void require(const char* key, const Json& only) const {
    if (has(key) && json_.at(key) != only)
      fail(format("`{}` is {}; only {} can be read", key, json_.at(key).dump(), only.dump()));
  }
  ops::Activation activation(const char* key) const {
    const auto name = text(key);
    if (name == "gelu") return ops::Activation::kGeluErf;
    if (name == "gelu_new" || name == "gelu_pytorch_tanh") return ops::Activation::kGeluTanh;
    if (name == "relu") return ops::Activation::kRelu;
    fail(format("`{}` is \"{}\"; gelu, gelu_new, gelu_pytorch_tanh and relu can be read", key, name));
  }

 private:
  fs::path file_;
  Json json_;
};

void read_bert(const Config& config, TextTransformerOptions& o) {
  o.dim = config.whole("hidden_size");
  o.depth = config.whole("num_hidden_layers");
  o.heads = config.whole("num_attention_heads");
  o.mlp_dim = config.whole("intermediate_size");
  o.positions = config.whole("max_position_embeddings");
  o.segments = config.whole("type_vocab_size");
  o.activation = config.activation("hidden_act");
  config.number("layer_norm_eps", o.norm_eps);
  config.number("hidden_dropout_prob", o.dropout);
  config.number("attention_probs_dropout_prob", o.attention_dropout);
  o.classifier_dropout = o.dropout;
  config.number("classifier_dropout", o.classifier_dropout);
  config.require("position_embedding_type", "absolute");
  config.require("is_decoder", false);
  config.require("add_cross_attention", false);
}

void read_albert(const Config& config, TextTransformerOptions& o) {
  read_bert(config, o);
  o.embedding_dim = config.whole("embedding_size");
  o.classifier_dropout = 0.1;
  config.number("classifier_dropout_prob", o.classifier_dropout);
  config.require("num_hidden_groups", 1);
  config.require("inner_group_num", 1);
}

void read_distilbert(const Config& config, TextTransformerOptions& o) {
  o.dim = config.whole("dim");
  o.depth = config.whole("n_layers");
  o.heads = config.whole("n_heads");
  o.mlp_dim = config.whole("hidden_dim");
  o.positions = config.whole("max_position_embeddings");
  o.activation = config.activation("activation");
  config.number("dropout", o.dropout);
  config.number("attention_dropout", o.attention_dropout);
  config.number("seq_classif_dropout", o.classifier_dropout);
}

void read_gpt2(const Config& config, TextTransformerOptions& o) {
  o.dim = config.whole("n_embd");
  o.depth = config.whole("n_layer");
  o.heads = config.whole("n_head");
  o.mlp_dim = config.has("n_inner") ? config.whole("n_inner") : 4 * o.dim;
  o.positions = config.whole("n_positions");
  o.activation = config.activation("activation_function");
  config.number("layer_norm_epsilon", o.norm_eps);
  config.number("resid_pdrop", o.dropout);
  config.number("attn_pdrop", o.attention_dropout);
  config.require("scale_attn_weights", true);
  config.require("scale_attn_by_inverse_layer_idx", false);
  config.require("add_cross_attention", false);
}

const char* activation_name(ops::Activation activation) {
  switch (activation) {
    case ops::Activation::kGeluTanh:
      return "gelu_new";
    case ops::Activation::kRelu:
      return "relu";
    default:
      return "gelu";
  }
}

Json sizes_of(Preset family, const TextTransformerOptions& o) {
  if (family == Preset::kDistilBert)
    return {{"dim", o.dim},
            {"n_layers", o.depth},
            {"n_heads", o.heads},
            {"hidden_dim", o.mlp_dim},
            {"max_position_embeddings", o.positions},
            {"activation", activation_name(o.activation)},
            {"dropout", o.dropout},
            {"attention_dropout", o.attention_dropout},
            {"seq_classif_dropout", o.classifier_dropout},
            {"sinusoidal_pos_embds", false}};
  if (family == Preset::kGpt2)
    return {{"n_embd", o.dim},
            {"n_layer", o.depth},
            {"n_head", o.heads},
            {"n_inner", o.mlp_dim},
            {"n_positions", o.positions},
            {"activation_function", activation_name(o.activation)},
            {"layer_norm_epsilon", o.norm_eps},
            {"resid_pdrop", o.dropout},
            {"embd_pdrop", o.dropout},
            {"attn_pdrop", o.attention_dropout}};
  Json sizes = {{"hidden_size", o.dim},
                {"num_hidden_layers", o.depth},
                {"num_attention_heads", o.heads},
                {"intermediate_size", o.mlp_dim},
                {"max_position_embeddings", o.positions},
                {"type_vocab_size", o.segments},
                {"hidden_act", activation_name(o.activation)},
                {"layer_norm_eps", o.norm_eps},
                {"hidden_dropout_prob", o.dropout},
                {"attention_probs_dropout_prob", o.attention_dropout}};
  if (family == Preset::kAlbert) {
    sizes["embedding_size"] = o.embedding_width();
    sizes["num_hidden_groups"] = 1;
    sizes["inner_group_num"] = 1;
    sizes["classifier_dropout_prob"] = o.classifier_dropout;
  } else {
    sizes["classifier_dropout"] = o.classifier_dropout;
  }
  return sizes;
}

/// The class of Python's transformers that has these heads.
std::string architecture(Preset family, const TextModelInput& input) {
  const std::string name = family == Preset::kBert         ? "Bert"
                           : family == Preset::kDistilBert ? "DistilBert"
                           : family == Preset::kAlbert     ? "Albert"
                                                           : "GPT2";
  switch (input.head) {
    case TextHead::kMasked:
      return name + (input.sentence_pairs ? "ForPreTraining" : "ForMaskedLM");
    case TextHead::kCausal:
      return name + "LMHeadModel";
    case TextHead::kClasses:
      return name + "ForSequenceClassification";
    case TextHead::kSpans:
      return name + "ForQuestionAnswering";
  }
  return name + "Model";
}

}  // namespace

Preset read_family(const fs::path& folder) {
  const Config config(folder);
  const auto type = config.text("model_type");
  for (const auto& [name, family] : kFamilies)
    if (type == name) return family;
  config.fail(format("`model_type` is \"{}\"; bert, distilbert, albert and gpt2 can be read", type));
}

void read_shape(const fs::path& folder, TextTransformerOptions& options) {
  const Config config(folder);
  options.vocabulary = config.whole("vocab_size");
  config.number("initializer_range", options.init_std);
  config.require("tie_word_embeddings", true);
  switch (read_family(folder)) {
    case Preset::kDistilBert:
      return read_distilbert(config, options);
    case Preset::kAlbert:
      return read_albert(config, options);
    case Preset::kGpt2:
      return read_gpt2(config, options);
    default:
      return read_bert(config, options);
  }
}

std::string family_name(Preset family) {
  for (const auto& [name, known] : kFamilies)
    if (known == family) return name;
  return "bert";
}

void write_config(const fs::path& folder, Preset family, const TextTransformerOptions& options,
                  const TextModelInput& input) {
  Json config = {{"architectures", {architecture(family, input)}},
                 {"model_type", family_name(family)},
                 {"vocab_size", input.vocabulary},
                 {"initializer_range", options.init_std},
                 {"tie_word_embeddings", true}};
  config.update(sizes_of(family, options));
  if (input.head == TextHead::kClasses) {
    config["id2label"] = Json::object();
    config["label2id"] = Json::object();
    for (std::int64_t i = 0; i < input.classes; ++i) {
      config["id2label"][std::to_string(i)] = format("LABEL_{}", i);
      config["label2id"][format("LABEL_{}", i)] = i;
    }
    config["problem_type"] = input.classes == 1 ? "regression" : "single_label_classification";
  }
  config["dtype"] = "float32";
  write_file_atomically(folder / "config.json", config.dump(2) + "\n");
}

}  // namespace stoa::text_transformer
