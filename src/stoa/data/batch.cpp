#include "stoa/data/batch.h"

#include <ATen/ATen.h>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/text.h"

namespace stoa {
namespace {

/// The batch with `change` applied to each tensor.
template <class Change>
Batch changed(const Batch& batch, std::int64_t samples, const Change& change) {
  Batch result;
  result.samples = samples;
  for (const auto& [name, tensor] : batch.tensors) result.tensors.emplace(name, change(tensor));
  return result;
}

}  // namespace

const at::Tensor& Batch::operator[](const std::string& name) const {
  const auto found = tensors.find(name);
  if (found != tensors.end()) return found->second;
  std::vector<std::string> names;
  for (const auto& entry : tensors) names.push_back(entry.first);
  throw Error(format("the batch has no tensor `{}`, it has: {}; check that the task fits its data", name,
                     names.empty() ? "none" : join(names, ", ")));
}

Batch Batch::slice(std::int64_t begin, std::int64_t end) const {
  if (begin < 0 || begin > end || end > samples)
    throw Error(format("samples {} to {} of a batch of {}: not within it", begin, end, samples));
  return changed(*this, end - begin, [&](const at::Tensor& t) { return t.narrow(0, begin, end - begin); });
}

Batch Batch::to(at::Device device) const {
  return changed(*this, samples, [&](const at::Tensor& t) { return t.to(device); });
}

}  // namespace stoa
