#include "stoa/systems/text_transformer/config.h"

#include <filesystem>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/systems/text_transformer/hugging_face.h"

namespace stoa::text_transformer {
namespace {

void check(bool good, const std::string& message) {
  if (!good) throw ConfigError(message);
}

void check_positive(std::int64_t value, const char* name) {
  check(value >= 1, format("`model.{}` is {}; it must be at least 1", name, value));
}

void check_rate(double value, const char* name) {
  check(value >= 0 && value < 1, format("`model.{}` is {}; it must be at least 0 and below 1", name, value));
}

}  // namespace

void TextTransformerOptions::apply_preset() {
  // a run's recipe has every key, so that the run lives on where its first weights are gone
  const bool stored = !weights.empty() && std::filesystem::exists(weights);
  if (stored) preset = read_family(weights);
  switch (preset) {
    case Preset::kBert:
      break;  // the defaults
    case Preset::kMegatron:
      norm = NormPlace::kPre;
      embedding_norm = false;
      norm_eps = 1e-5;
      scaled_init = true;
      break;
    case Preset::kWideNet:
      mixture_layers = -1;
      [[fallthrough]];
    case Preset::kAlbert:
      embedding_dim = 128;
      share_attention = share_mlp = true;
      share_norms = preset == Preset::kAlbert;
      activation = ops::Activation::kGeluTanh;
      dropout = attention_dropout = 0;
      break;
    case Preset::kDistilBert:
      depth = 6;
      segments = 0;
      pooler = ops::Activation::kRelu;
      classifier_dropout = 0.2;
      break;
    case Preset::kGpt2:
      norm = NormPlace::kPre;
      positions = 1024;
      segments = 0;
      embedding_norm = false;
      norm_eps = 1e-5;
      activation = ops::Activation::kGeluTanh;
      classifier_dropout = 0;
      scaled_init = true;
      break;
  }
  if (stored) read_shape(weights, *this);
}

void TextTransformerOptions::visit(FieldVisitor& v) {
  v.field("weights", weights,
          "folder of pre-trained weights in Hugging Face's form (config.json, safetensors); sets preset and "
          "sizes");
  v.preset("preset", preset,
           {{"bert", Preset::kBert},
            {"megatron", Preset::kMegatron},
            {"albert", Preset::kAlbert},
            {"distilbert", Preset::kDistilBert},
            {"gpt2", Preset::kGpt2},
            {"wide_net", Preset::kWideNet}},
           "defaults of a published family", [&] { apply_preset(); });
  v.field("vocabulary", vocabulary, "rows of the token embedding; 0 takes the tokenizer's size");
  v.field("dim", dim, "width of the tokens");
  v.field("depth", depth, "number of blocks");
  v.field("heads", heads, "attention heads");
  v.field("mlp_dim", mlp_dim, "hidden width of dense perceptrons");
  v.field("embedding_dim", embedding_dim, "width of the embeddings, brought to dim by a product; 0 is dim");
  v.field("positions", positions, "position embeddings: the longest sequence");
  v.field("segments", segments, "segment embeddings; 0 has none");
  v.choice("norm", norm, {{"post", NormPlace::kPost}, {"pre", NormPlace::kPre}},
           "layer norm behind each residual sum, or in front of each branch and at the end");
  v.field("embedding_norm", embedding_norm, "layer norm of the embeddings' sum");
  v.field("norm_eps", norm_eps, "added to variances in layer norms");
  const std::vector<std::pair<const char*, ops::Activation>> activations = {
      {"gelu", ops::Activation::kGeluTanh},
      {"gelu_erf", ops::Activation::kGeluErf},
      {"relu", ops::Activation::kRelu}};
  v.choice("activation", activation, activations, "between the two layers of perceptrons, experts and heads");
  v.field(
      "linformer", linformer,
      "attend to so many rows that keys and values are projected to (Linformer; not for causal models); 0 "
      "is full attention. Where sequences are split, one sum takes the place of parallel.attention");
  v.choice(
      "linformer_sharing", linformer_sharing,
      {{"heads", LinformerSharing::kHeads},
       {"keys_values", LinformerSharing::kKeysValues},
       {"layers", LinformerSharing::kLayers}},
      "what shares Linformer's projections: the heads of a layer, its keys and values too, or all layers");
  v.field("share_attention", share_attention, "one attention for all layers");
  v.field("share_mlp", share_mlp, "one perceptron or mixture for all layers");
  v.field("share_norms", share_norms, "one pair of layer norms for all layers");
  v.field("mixture_layers", mixture_layers,
          "how many of the last layers have a mixture of experts; -1 all, 0 none");
  v.field("expert_dim", expert_dim, "hidden width of each expert; 0 takes mlp_dim");
  v.group("router", router, "how tokens find their experts");
  v.field("dropout", dropout, "dropout of embeddings and of what attention and perceptrons add");
  v.field("attention_dropout", attention_dropout, "dropout of attention weights");
  v.field("classifier_dropout", classifier_dropout, "dropout in front of the scores of classes");
  v.choice("pooler", pooler, {{"tanh", ops::Activation::kNone}, {"relu", ops::Activation::kRelu}},
           "function of the dense layer on the first token, in front of the scores of classes");
  v.field("init_std", init_std, "standard deviation of drawn weights, cut at two of it");
  v.field("scaled_init", scaled_init, "draw the last product of each branch at init_std / sqrt(2 depth)");
  v.field("recompute", recompute,
          "run each layer again in the backward pass instead of keeping what it needs: less memory, a third "
          "more time");
}

void TextTransformerOptions::check_linformer(TextHead head) const {
  check(linformer >= 0 && linformer <= positions,
        format("`model.linformer` is {}; it must be 0 (full attention) or a number of rows up to "
               "`model.positions` = {}, above which full attention is less work",
               linformer, positions));
  check(
      linformer == 0 || !causal(head),
      format("`model.linformer` is {}, but tokens of this model see only those before them, and a projected "
             "row is made of all tokens; set it to 0",
             linformer));
  check(linformer == 0 || weights.empty(),
        format("`model.linformer` is {}, but the published weights of `model.weights` have no projections; "
               "set it to 0 or leave the weights out",
               linformer));
}

void TextTransformerOptions::validate(const TextModelInput& input) const {
  check(weights.empty() || preset != Preset::kWideNet,
        "`model.weights` is set, but there are no published weights of preset wide_net; name another preset "
        "or use [initial]");
  check_positive(dim, "dim");
  check_positive(depth, "depth");
  check_positive(heads, "heads");
  check_positive(mlp_dim, "mlp_dim");
  check_positive(positions, "positions");
  check(dim % heads == 0,
        format("`model.heads` is {} but must divide `model.dim` = {}; change one of them", heads, dim));
  check(embedding_dim >= 0,
        format("`model.embedding_dim` is {}; it must be 0 (as dim) or more", embedding_dim));
  check(expert_dim >= 0, format("`model.expert_dim` is {}; it must be 0 (take mlp_dim) or more", expert_dim));
  check(segments == 0 || segments >= 2,
        format("`model.segments` is {}; it must be 0 (none) or at least 2", segments));
  check(
      vocabulary == 0 || vocabulary >= input.vocabulary,
      format("`model.vocabulary` is {} but the tokenizer has {} tokens; take a tokenizer that belongs to the "
             "model, or set 0",
             vocabulary, input.vocabulary));
  check(
      input.length <= positions,
      format(
          "`data.length` is {} but the model has {} positions (`model.positions`); shorten the sequences or, "
          "for a model that is trained anew, give it more positions",
          input.length, positions));
  check(mixture_layers >= -1 && mixture_layers <= depth,
        format("`model.mixture_layers` is {}; it must be -1 (all) or between 0 and `model.depth` = {}",
               mixture_layers, depth));
  check_linformer(input.head);
  check(norm_eps > 0, format("`model.norm_eps` is {}; it must be above 0", norm_eps));
  check(init_std > 0, format("`model.init_std` is {}; it must be above 0", init_std));
  check_rate(dropout, "dropout");
  check_rate(attention_dropout, "attention_dropout");
  check_rate(classifier_dropout, "classifier_dropout");
  const bool next_token = input.head == TextHead::kCausal;
  check(preset != Preset::kGpt2 || next_token || input.head == TextHead::kClasses,
        "`model.preset` is gpt2, whose tokens see only those before them; use it with tasks causal_text and "
        "text_classification, or take another preset");
  check(
      !next_token || embedding_width() == dim,
      format(
          "`model.embedding_dim` is {}; a causal model scores with the embedding itself, so it must be 0 or "
          "`model.dim` = {}",
          embedding_dim, dim));
  check(!(input.sentence_pairs && segments == 0),
        "`model.segments` is 0, but the sentences of a pair are told apart by their segments; set 2");
  if (mixture_layers != 0) router.validate("model.router");
}

}  // namespace stoa::text_transformer
