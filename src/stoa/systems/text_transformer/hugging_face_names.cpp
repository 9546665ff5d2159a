#include "stoa/systems/text_transformer/hugging_face_names.h"

#include <algorithm>

#include "stoa/base/format.h"

namespace stoa::text_transformer {
namespace {

/// A list of names that grows by weight and bias at once.
class Names {
 public:
  void tensor(const std::string& ours, const std::string& theirs, bool head = false) {
    all.push_back({ours, {theirs}, false, head});
  }
  void both(const std::string& ours, const std::string& theirs, bool head = false) {
    tensor(ours + ".weight", theirs + ".weight", head);
    tensor(ours + ".bias", theirs + ".bias", head);
  }
  /// A dense layer whose weight is stored [in, out].
  void turned(const std::string& weight, const std::string& bias, const std::string& theirs) {
    all.push_back({weight, {theirs + ".weight"}, true, false});
    tensor(bias, theirs + ".bias");
  }
  void attention(const std::string& ours, const std::string& query, const std::string& key,
                 const std::string& value, const std::string& out) {
    all.push_back({ours + ".qkv_weight", {query + ".weight", key + ".weight", value + ".weight"}});
    all.push_back({ours + ".qkv_bias", {query + ".bias", key + ".bias", value + ".bias"}});
    both(ours + ".out", out);
  }
  std::vector<TensorName> all;
};

void add_embeddings(Names& names, const TextTransformerOptions& o) {
  names.tensor("word", "embeddings.word_embeddings.weight");
  names.tensor("position", "embeddings.position_embeddings.weight");
  if (o.segments > 0) names.tensor("segment", "embeddings.token_type_embeddings.weight");
  names.both("embedding_norm", "embeddings.LayerNorm");
}

Names bert(const TextTransformerOptions& o) {
  Names names;
  add_embeddings(names, o);
  for (std::int64_t i = 0; i < o.depth; ++i) {
    const auto theirs = format("encoder.layer.{}.", i), self = theirs + "attention.self.";
    names.attention(format("attention.{}", i), self + "query", self + "key", self + "value",
                    theirs + "attention.output.dense");
    names.both(format("norm1.{}", i), theirs + "attention.output.LayerNorm");
    names.both(format("mlp.{}.in", i), theirs + "intermediate.dense");
    names.both(format("mlp.{}.out", i), theirs + "output.dense");
    names.both(format("norm2.{}", i), theirs + "output.LayerNorm");
  }
  names.both("pooler", "pooler.dense", /*head=*/true);
  names.both("mask_dense", "cls.predictions.transform.dense", true);
  names.both("mask_norm", "cls.predictions.transform.LayerNorm", true);
  names.tensor("mask_bias", "cls.predictions.bias", true);
  names.both("pair_head", "cls.seq_relationship", true);
  return names;
}

Names albert(const TextTransformerOptions& o) {
  Names names;
  add_embeddings(names, o);
  names.both("projection", "encoder.embedding_hidden_mapping_in");
  const std::string theirs = "encoder.albert_layer_groups.0.albert_layers.0.", self = theirs + "attention.";
  names.attention("attention.0", self + "query", self + "key", self + "value", self + "dense");
  names.both("norm1.0", self + "LayerNorm");
  names.both("mlp.0.in", theirs + "ffn");
  names.both("mlp.0.out", theirs + "ffn_output");
  names.both("norm2.0", theirs + "full_layer_layer_norm");
  names.both("pooler", "pooler", /*head=*/true);
  names.both("mask_dense", "predictions.dense", true);
  names.both("mask_norm", "predictions.LayerNorm", true);
  names.tensor("mask_bias", "predictions.bias", true);
  names.both("pair_head", "sop_classifier.classifier", true);
  return names;
}

Names distilbert(const TextTransformerOptions& o) {
  Names names;
  add_embeddings(names, o);
  for (std::int64_t i = 0; i < o.depth; ++i) {
    const auto theirs = format("transformer.layer.{}.", i), self = theirs + "attention.";
    names.attention(format("attention.{}", i), self + "q_lin", self + "k_lin", self + "v_lin",
                    self + "out_lin");
    names.both(format("norm1.{}", i), theirs + "sa_layer_norm");
    names.both(format("mlp.{}.in", i), theirs + "ffn.lin1");
    names.both(format("mlp.{}.out", i), theirs + "ffn.lin2");
    names.both(format("norm2.{}", i), theirs + "output_layer_norm");
  }
  names.both("pooler", "pre_classifier", /*head=*/true);
  names.both("mask_dense", "vocab_transform", true);
  names.both("mask_norm", "vocab_layer_norm", true);
  names.tensor("mask_bias", "vocab_projector.bias", true);
  return names;
}

Names gpt2(const TextTransformerOptions& o) {
  Names names;
  names.tensor("word", "wte.weight");
  names.tensor("position", "wpe.weight");
  for (std::int64_t i = 0; i < o.depth; ++i) {
    const auto theirs = format("h.{}.", i), attention = format("attention.{}.", i),
               mlp = format("mlp.{}.", i);
    names.both(format("norm1.{}", i), theirs + "ln_1");
    names.turned(attention + "qkv_weight", attention + "qkv_bias", theirs + "attn.c_attn");
    names.turned(attention + "out.weight", attention + "out.bias", theirs + "attn.c_proj");
    names.both(format("norm2.{}", i), theirs + "ln_2");
    names.turned(mlp + "in.weight", mlp + "in.bias", theirs + "mlp.c_fc");
    names.turned(mlp + "out.weight", mlp + "out.bias", theirs + "mlp.c_proj");
  }
  names.both("final_norm", "ln_f");
  names.tensor("score", "score.weight", /*head=*/true);
  return names;
}

Names names_of(Preset family, const TextTransformerOptions& o) {
  switch (family) {
    case Preset::kAlbert:
      return albert(o);
    case Preset::kDistilBert:
      return distilbert(o);
    case Preset::kGpt2:
      return gpt2(o);
    default:
      return bert(o);
  }
}

}  // namespace

std::vector<TensorName> tensor_names(Preset family, const TextTransformerOptions& options) {
  auto names = names_of(family, options);
  names.both("class_head", "classifier", /*head=*/true);
  names.both("span_head", "qa_outputs", true);
  return names.all;
}

std::string name_prefix(Preset family) {
  return family == Preset::kGpt2 ? "transformer." : format("{}.", family_name(family));
}

bool is_skipped(Preset family, const std::string& name) {
  if (name.ends_with("position_ids")) return true;
  if (family == Preset::kGpt2)  // masks of attention
    return name == "lm_head.weight" || name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias");
  constexpr const char* kHeads[] = {"cls.",         "pooler.",         "classifier.",     "qa_outputs.",
                                    "predictions.", "sop_classifier.", "pre_classifier.", "vocab_"};
  return std::ranges::any_of(kHeads, [&](const char* head) { return name.starts_with(head); });
}

}  // namespace stoa::text_transformer
