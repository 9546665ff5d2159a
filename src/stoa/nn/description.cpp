#include "stoa/nn/description.h"

#include <numeric>

namespace stoa::nn {
namespace {

std::int64_t sum(const std::vector<ModelPart>& parts, std::int64_t ModelPart::*member) {
  return std::accumulate(parts.begin(), parts.end(), std::int64_t{0},
                         [&](std::int64_t total, const ModelPart& part) { return total + part.*member; });
}

}  // namespace

std::int64_t ModelDescription::parameters() const {
  return sum(parts, &ModelPart::parameters);
}
std::int64_t ModelDescription::macs() const {
  return sum(parts, &ModelPart::macs);
}
std::int64_t ModelDescription::activations() const {
  return sum(parts, &ModelPart::activations);
}

}  // namespace stoa::nn
