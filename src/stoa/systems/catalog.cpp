#include "stoa/systems/catalog.h"

#include "stoa/systems/cow_clip/model.h"
#include "stoa/systems/wide_net/model.h"

namespace stoa {

const Catalog& catalog() {
  static const Catalog entries = {
      image_classification<wide_net::WideNetImpl, wide_net::WideNetOptions>(
          "wide_net",
          "WideNet: one shared mixture of experts, own layer norms; with ViT, ViT-MoE and shared-dense "
          "baselines"),
      click_through<cow_clip::CowClipImpl, cow_clip::CowClipOptions>(
          "cow_clip",
          "CowClip: large-batch click-through training of DeepFM, Wide&Deep, DCN, DCN v2 and a two-stream "
          "model"),
  };
  return entries;
}

}  // namespace stoa
