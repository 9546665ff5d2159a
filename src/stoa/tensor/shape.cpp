#include "stoa/tensor/shape.h"

#include <algorithm>
#include <string>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"

namespace stoa {

namespace {

template <class Sizes>
std::string sizes_text(const Sizes& sizes) {
  std::string text;
  for (const std::int64_t size : sizes)
    text += (text.empty() ? "" : ", ") + (size < 0 ? "*" : std::to_string(size));
  return "[" + text + "]";
}

}  // namespace

std::string shape_text(at::IntArrayRef shape) {
  return sizes_text(shape);
}

void check_shape(const at::Tensor& tensor, std::initializer_list<std::int64_t> shape,
                 const std::string& what) {
  if (!tensor.defined())
    throw ShapeError(format("{} is an undefined tensor; {} is needed", what, sizes_text(shape)));
  const auto fits = [](std::int64_t needed, std::int64_t found) { return needed < 0 || needed == found; };
  const auto found = tensor.sizes();
  if (!std::equal(shape.begin(), shape.end(), found.begin(), found.end(), fits))
    throw ShapeError(format("{} has shape {}; {} is needed", what, shape_text(found), sizes_text(shape)));
}

}  // namespace stoa
