#include "stoa/optim/clip.h"

#include <ATen/ATen.h>

#include <cmath>
#include <numeric>
#include <unordered_set>

#include "stoa/optim/rules.h"

namespace stoa::optim {
namespace {

/// The gradients there are, each distinct parameter's once.
std::vector<SlicedTensor> gradients_of(const std::vector<nn::NamedParameter>& parameters) {
  std::vector<SlicedTensor> gradients;
  std::unordered_set<const void*> seen;
  for (const auto& parameter : parameters) {
    if (!seen.insert(parameter.tensor.unsafeGetTensorImpl()).second) continue;
    if (const auto gradient = dense_gradient(parameter); gradient.defined())
      gradients.push_back({gradient, parameter.slices});
  }
  return gradients;
}

/// Sum of squares of each slice of each gradient in turn.
std::vector<double> square_sums(const std::vector<SlicedTensor>& gradients) {
  const auto chunks = make_chunks(gradients);
  std::vector<Elements> elements;
  std::vector<UnchunkedTensor> others;
  for (std::size_t i = 0; i < gradients.size(); ++i) {
    const auto& tensor = gradients[i].tensor;
    const bool loops = is_loopable(tensor);
    elements.push_back({loops ? tensor.const_data_ptr() : nullptr, tensor.scalar_type() == at::kDouble});
    if (!loops) others.push_back({gradients[i], chunks.first_slice[i]});
  }
  auto sums = square_sums(chunks, elements);
  add_square_sums(others, sums);
  return sums;
}

double joint_norm(const std::vector<double>& squares) {
  return std::sqrt(std::accumulate(squares.begin(), squares.end(), 0.0));
}

bool exceeds(double norm, double limit) {
  return norm > limit && std::isfinite(norm);
}

}  // namespace

double gradient_norm(const std::vector<nn::NamedParameter>& parameters) {
  return joint_norm(square_sums(gradients_of(parameters)));
}

double clip_global_norm(const std::vector<nn::NamedParameter>& parameters, double limit) {
  at::NoGradGuard no_grad;
  const auto gradients = gradients_of(parameters);
  const double norm = joint_norm(square_sums(gradients));
  if (exceeds(norm, limit))
    for (const auto& gradient : gradients) gradient.tensor.mul_(limit / norm);
  return norm;
}

double clip_each_norm(const std::vector<nn::NamedParameter>& parameters, double limit) {
  at::NoGradGuard no_grad;
  const auto gradients = gradients_of(parameters);
  const auto squares = square_sums(gradients);
  auto square = squares.begin();
  for (const auto& gradient : gradients) {
    const auto& tensor = gradient.tensor;
    const auto slices = gradient.slices;
    for (std::int64_t slice = 0; slice < slices; ++slice) {
      const double norm = std::sqrt(*square++);
      if (!exceeds(norm, limit)) continue;
      const auto part =
          slices == 1 ? tensor : tensor.narrow(0, slice * (tensor.size(0) / slices), tensor.size(0) / slices);
      part.mul_(limit / norm);
    }
  }
  return joint_norm(squares);
}

}  // namespace stoa::optim
