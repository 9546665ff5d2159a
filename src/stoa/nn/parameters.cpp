#include "stoa/nn/parameters.h"

#include <torch/types.h>

#include <set>
#include <unordered_map>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/text.h"
#include "stoa/tensor/shape.h"

namespace stoa::nn {
namespace {

/// Walks the tree in order of registration; a module or tensor reached a second time is passed over.
void collect(const torch::nn::Module& module, const std::string& prefix, bool buffers,
             std::set<const void*>& seen_modules, std::set<const void*>& seen_tensors,
             std::vector<NamedParameter>& found) {
  if (!seen_modules.insert(&module).second) return;
  std::map<std::string, std::int64_t> slices;
  if (const auto* fused = dynamic_cast<const HasSlices*>(&module)) slices = fused->slices();
  const auto own =
      buffers ? module.named_buffers(/*recurse=*/false) : module.named_parameters(/*recurse=*/false);
  for (const auto& item : own) {
    if (!item.value().defined() || !seen_tensors.insert(item.value().unsafeGetTensorImpl()).second) continue;
    const auto count = slices.find(item.key());
    found.push_back({prefix + item.key(), item.value(), count == slices.end() ? 1 : count->second});
  }
  for (const auto& child : module.named_children())
    collect(*child.value(), prefix + child.key() + ".", buffers, seen_modules, seen_tensors, found);
}

std::vector<NamedParameter> collect_all(const torch::nn::Module& module, bool buffers) {
  std::set<const void*> modules, tensors;
  std::vector<NamedParameter> found;
  collect(module, "", buffers, modules, tensors, found);
  return found;
}

}  // namespace

std::vector<NamedParameter> distinct_parameters(const torch::nn::Module& module) {
  return collect_all(module, false);
}

std::vector<NamedParameter> distinct_buffers(const torch::nn::Module& module) {
  return collect_all(module, true);
}

std::int64_t count_parameters(const torch::nn::Module& module) {
  std::int64_t count = 0;
  for (const auto& parameter : distinct_parameters(module)) count += parameter.tensor.numel();
  return count;
}

std::map<std::string, at::Tensor> module_state(const torch::nn::Module& module) {
  std::map<std::string, at::Tensor> state;
  for (const auto& parameter : distinct_parameters(module)) state[parameter.name] = parameter.tensor.detach();
  for (const auto& buffer : distinct_buffers(module)) state[buffer.name] = buffer.tensor.detach();
  return state;
}

void load_module_state(torch::nn::Module& module, const std::map<std::string, at::Tensor>& state,
                       const std::string& source) {
  auto targets = module_state(module);
  for (auto& [name, target] : targets) {
    const auto found = state.find(name);
    if (found == state.end())
      throw DataError(
          format("{}: tensor `{}` of the model is missing; the file belongs to another model or recipe",
                 source, name));
    if (found->second.sizes() != target.sizes())
      throw DataError(format(
          "{}: tensor `{}` has shape {}, the model needs {}; the recipe's model differs from the file's",
          source, name, shape_text(found->second.sizes()), shape_text(target.sizes())));
  }
  for (const auto& [name, tensor] : state)
    if (targets.count(name) == 0)
      throw DataError(
          format("{}: tensor `{}` is not one of the model's; the file belongs to another model or recipe",
                 source, name));
  torch::NoGradGuard no_grad;
  for (auto& [name, target] : targets) target.copy_(state.at(name));
}

}  // namespace stoa::nn
