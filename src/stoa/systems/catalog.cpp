#include "stoa/systems/catalog.h"

#include "stoa/systems/wide_net/model.h"

namespace stoa {

const Catalog& catalog() {
  static const Catalog entries = {
      image_classification<wide_net::WideNetImpl, wide_net::WideNetOptions>(
          "wide_net", "WideNet: one shared mixture of experts, own layer norms; with ViT, ViT-MoE and shared-dense baselines"),
  };
  return entries;
}

}  // namespace stoa
