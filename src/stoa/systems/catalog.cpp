#include "stoa/systems/catalog.h"

#include "stoa/systems/cow_clip/model.h"
#include "stoa/systems/text_transformer/model.h"
#include "stoa/systems/wide_net/model.h"
#include "stoa/systems/wide_net/text.h"
#include "stoa/tasks/causal_text.h"
#include "stoa/tasks/masked_text.h"
#include "stoa/tasks/question_answering.h"
#include "stoa/tasks/text_classification.h"

namespace stoa {
namespace {

/// A text model under every task for text.
template <class Options>
void add_text_model(Catalog& entries, const std::string& name, const std::string& summary) {
  using text_transformer::TextTransformerImpl;
  entries.push_back(masked_text<TextTransformerImpl, Options>(name, summary));
  entries.push_back(causal_text<TextTransformerImpl, Options>(name, summary));
  entries.push_back(text_classification<TextTransformerImpl, Options>(name, summary));
  entries.push_back(question_answering<TextTransformerImpl, Options>(name, summary));
}

Catalog make_catalog() {
  Catalog entries = {
      image_classification<wide_net::WideNetImpl, wide_net::WideNetOptions>(
          "wide_net",
          "WideNet: one shared mixture of experts, own layer norms; with ViT, ViT-MoE and shared-dense "
          "baselines"),
      click_through<cow_clip::CowClipImpl, cow_clip::CowClipOptions>(
          "cow_clip",
          "CowClip: large-batch click-through training of DeepFM, Wide&Deep, DCN, DCN v2 and a two-stream "
          "model"),
  };
  add_text_model<text_transformer::TextTransformerOptions>(
      entries, "text_transformer", "BERT, Megatron's BERT, ALBERT, DistilBERT and GPT-2 from one builder");
  add_text_model<wide_net::WideNetTextOptions>(
      entries, "wide_net", "WideNet on text: one attention and one mixture of experts for all layers");
  return entries;
}

}  // namespace

const Catalog& catalog() {
  static const Catalog entries = make_catalog();
  return entries;
}

}  // namespace stoa
