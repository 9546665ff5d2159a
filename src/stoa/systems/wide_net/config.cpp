#include "stoa/systems/wide_net/config.h"

#include "stoa/base/errors.h"
#include "stoa/base/format.h"

namespace stoa::wide_net {

void WideNetOptions::apply_preset() {
  if (preset == Preset::kModern) return;  // the defaults
  class_slot = ClassSlot::kZero;
  representation = true;
  dropout = 0.1;
  if (preset == Preset::kPaper) return;
  ffn_output_activation = ops::Activation::kGeluTanh;
  attention_init = nn::AttentionInit::kCode;
  router.fill = nn::FillOrder::kToken;
  router.reserve_first_slot = true;
  router.eval_capacity_factor = -1;  // whatever factor the recipe sets for training
}

void WideNetOptions::visit(FieldVisitor& v) {
  v.preset("preset", preset,
           {{"modern", Preset::kModern}, {"paper", Preset::kPaper}, {"code", Preset::kCode}},
           "defaults: today's form, the published model, or the original program to the last switch",
           [&] { apply_preset(); });
  v.field("patch", patch, "pixels along a patch's side");
  v.field("dim", dim, "width of the tokens");
  v.field("depth", depth, "number of blocks");
  v.field("heads", heads, "attention heads");
  v.field("mlp_dim", mlp_dim, "hidden width of dense perceptrons");
  v.field("expert_dim", expert_dim, "hidden width of each expert; 0 takes mlp_dim");
  v.field("mixture_layers", mixture_layers, "how many of the last layers have a mixture; -1 all, 0 none");
  v.field("share_attention", share_attention, "one attention for all layers (of a group)");
  v.field("share_mlp", share_mlp, "one perceptron or mixture for all layers (of a group)");
  v.field("share_norms", share_norms, "one pair of layer norms for all layers; WideNet keeps them apart");
  v.field("groups", groups, "with sharing: groups of layers, each with attention and perceptron of its own");
  v.choice("group_order", group_order, {{"blocks", GroupOrder::kBlocks}, {"cycle", GroupOrder::kCycle}},
           "layers of a group: consecutive (AABB) or in turn (ABAB)");
  v.choice("class_slot", class_slot, {{"none", ClassSlot::kNone}, {"zero", ClassSlot::kZero}},
           "zero: a zero vector in front whose position embedding is the class token");
  v.choice("pooling", pooling, {{"mean", Pooling::kMean}, {"token", Pooling::kToken}, {"map", Pooling::kMap}},
           "mean of all tokens, the class slot, or attention from it");
  v.field("representation", representation, "a dense layer with tanh before the head");
  v.field("dropout", dropout, "dropout after positions, attention and both perceptron layers");
  v.field("attention_dropout", attention_dropout, "dropout of attention weights");
  v.field("drop_path", drop_path, "stochastic depth of the last layer, rising linearly from 0");
  v.field("layer_scale", layer_scale, "initial per-layer scale of both branches; 0 has none");
  v.field("recompute", recompute,
          "run each layer again in the backward pass instead of keeping what it needs: less memory, a third "
          "more time");
  v.choice("attention_init", attention_init,
           {{"glorot", nn::AttentionInit::kGlorot},
            {"fused", nn::AttentionInit::kFused},
            {"code", nn::AttentionInit::kCode}},
           "Glorot-uniform by matrix, with q, k, v as one matrix, or as the original program's three-axis "
           "kernels");
  const std::vector<std::pair<const char*, ops::Activation>> activations = {
      {"gelu", ops::Activation::kGeluTanh},
      {"gelu_erf", ops::Activation::kGeluErf},
      {"relu", ops::Activation::kRelu}};
  v.choice("activation", activation, activations, "between the two layers of perceptrons and experts");
  auto outputs = activations;
  outputs.insert(outputs.begin(), {"none", ops::Activation::kNone});
  v.choice("ffn_output_activation", ffn_output_activation, outputs,
           "behind the second layer; the original program has gelu");
  v.choice("backend", backend,
           {{"sorted", ops::MixtureBackend::kSorted},
            {"padded", ops::MixtureBackend::kPadded},
            {"naive", ops::MixtureBackend::kNaive}},
           "how mixtures are computed; all give the same numbers");
  v.group("router", router, "how tokens find their experts");
}

namespace {

void check(bool good, const std::string& message) {
  if (!good) throw ConfigError(message);
}

void check_rate(double value, const char* name) {
  check(value >= 0 && value < 1, format("`model.{}` is {}; it must be at least 0 and below 1", name, value));
}

void check_positive(std::int64_t value, const char* name) {
  check(value >= 1, format("`model.{}` is {}; it must be at least 1", name, value));
}

}  // namespace

void WideNetOptions::validate(const ImageClassifierInput& input) const {
  check_positive(patch, "patch");
  check_positive(dim, "dim");
  check_positive(depth, "depth");
  check_positive(heads, "heads");
  check_positive(mlp_dim, "mlp_dim");
  check_positive(groups, "groups");
  check(expert_dim >= 0, format("`model.expert_dim` is {}; it must be 0 (take mlp_dim) or more", expert_dim));
  check(input.image_size % patch == 0,
        format("`model.patch` is {} but must divide `data.image_size` = {}; change one of them", patch,
               input.image_size));
  check(dim % heads == 0,
        format("`model.heads` is {} but must divide `model.dim` = {}; change one of them", heads, dim));
  check(depth % groups == 0,
        format("`model.groups` is {} but must divide `model.depth` = {}; change one of them", groups, depth));
  check(groups == 1 || share_attention || share_mlp,
        format("`model.groups` is {} but nothing is shared; set share_attention or share_mlp, or groups = 1",
               groups));
  check(mixture_layers >= -1 && mixture_layers <= depth,
        format("`model.mixture_layers` is {}; it must be -1 (all) or between 0 and `model.depth` = {}",
               mixture_layers, depth));
  check(class_slot == ClassSlot::kZero || pooling == Pooling::kMean,
        "`model.pooling` needs a class slot unless it is \"mean\"; set model.class_slot = \"zero\"");
  check_rate(dropout, "dropout");
  check_rate(attention_dropout, "attention_dropout");
  check_rate(drop_path, "drop_path");
  check(layer_scale >= 0, format("`model.layer_scale` is {}; it must be 0 (none) or more", layer_scale));
  if (mixture_layers != 0) router.validate("model.router");
}

}  // namespace stoa::wide_net
