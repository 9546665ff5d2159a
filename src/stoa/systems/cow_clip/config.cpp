#include "stoa/systems/cow_clip/config.h"

#include <cmath>
#include <string>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"

namespace stoa::cow_clip {

void CowClipOptions::visit(FieldVisitor& v) {
  v.choice(
      "network", network,
      {{"wide_deep", Network::kWideDeep},
       {"deepfm", Network::kDeepFm},
       {"dcn", Network::kDcn},
       {"dcn_v2_mix", Network::kDcnV2Mix},
       {"dcn_v2", Network::kDcnV2},
       {"final_mlp", Network::kFinalMlp}},
      "what stands beside the perceptron: nothing, pairs of embeddings, cross layers of vectors, of low-rank "
      "experts or of full matrices; or a second perceptron");
  v.field("hidden", hidden, "widths of the perceptron's layers");
  v.field("dropout", dropout, "dropout behind each layer of a perceptron");
  v.when(has_cross(), "network = \"dcn\", \"dcn_v2_mix\" or \"dcn_v2\"", [&] {
    v.field("cross_layers", cross_layers, "layers of the cross network");
    v.field("cross_l2", cross_l2,
            "weight of the cross kernels' square sum in the loss; not scaled with the batch");
  });
  v.when(network == Network::kDcnV2Mix, "network = \"dcn_v2_mix\"", [&] {
    v.field("experts", experts, "experts of each cross layer");
    v.field("rank", rank, "rank of an expert");
  });
  v.when(network == Network::kFinalMlp, "network = \"final_mlp\"", [&] {
    v.field("hidden_2", hidden_2, "widths of the second perceptron's layers; empty: as the first's");
    v.field("gate_hidden", gate_hidden, "hidden width of the feature gates");
    v.field("fusion_heads", fusion_heads, "blocks of the bilinear form between the two perceptrons");
  });
}

namespace {

void check(bool good, const std::string& message) {
  if (!good) throw ConfigError(message);
}

void check_positive(std::int64_t value, const char* name) {
  check(value >= 1, format("`{}` is {}; it must be at least 1", name, value));
}

void check_widths(const std::vector<std::int64_t>& widths, const char* name) {
  check(!widths.empty(),
        format("`model.{}` is empty; at least one layer is needed, e.g. [400, 400, 400]", name));
  for (const auto width : widths)
    check(width >= 1, format("`model.{}` has a layer of {}; each must be at least 1", name, width));
}

void check_heads(std::int64_t heads, std::int64_t width, const char* name) {
  check(width % heads == 0,
        format(
            "`model.fusion_heads` is {} but must divide the last layer of `model.{}`, {}; change one of them",
            heads, name, width));
}

}  // namespace

void CowClipOptions::validate(const ClickModelInput& input) const {
  check_positive(input.fields, "data.fields");
  check(input.numerics >= 0, format("`data.numerics` is {}; it must be at least 0", input.numerics));
  check_positive(input.dim, "embedding.dim");
  check_widths(hidden, "hidden");
  check(dropout >= 0 && dropout < 1,
        format("`model.dropout` is {}; it must be at least 0 and below 1", dropout));
  if (has_cross()) {
    check_positive(cross_layers, "model.cross_layers");
    check(std::isfinite(cross_l2) && cross_l2 >= 0,
          format("`model.cross_l2` is {}; it must be 0 or more", cross_l2));
  }
  if (network == Network::kDcnV2Mix) {
    check_positive(experts, "model.experts");
    check_positive(rank, "model.rank");
  }
  if (network == Network::kFinalMlp) {
    check_positive(gate_hidden, "model.gate_hidden");
    check_positive(fusion_heads, "model.fusion_heads");
    check_widths(second_hidden(), "hidden_2");
    check_heads(fusion_heads, hidden.back(), "hidden");
    check_heads(fusion_heads, second_hidden().back(), hidden_2.empty() ? "hidden" : "hidden_2");
  }
}

}  // namespace stoa::cow_clip
