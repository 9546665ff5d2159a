#include "stoa/optim/state.h"

#include <ATen/ATen.h>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/tensor/shape.h"

namespace stoa::optim {

void copy_state(const std::map<std::string, at::Tensor>& stored,
                const std::map<std::string, at::Tensor>& targets, const std::string& source) {
  const auto fail = [&](const std::string& name, const std::string& fault) {
    throw DataError(format("{}: tensor `{}` {}; the file belongs to another optimiser, model or recipe",
                           source, name, fault));
  };
  for (const auto& [name, target] : targets) {
    const auto found = stored.find(name);
    if (found == stored.end()) fail(name, "is missing");
    const auto sizes = found->second.sizes();
    if (sizes != target.sizes())
      fail(name, format("has shape {}, {} is needed", shape_text(sizes), shape_text(target.sizes())));
  }
  for (const auto& item : stored)
    if (targets.count(item.first) == 0) fail(item.first, "has no place here");
  at::NoGradGuard no_grad;
  for (const auto& [name, target] : targets) target.copy_(stored.at(name));
}

}  // namespace stoa::optim
