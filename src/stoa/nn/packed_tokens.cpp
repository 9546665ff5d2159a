#include "stoa/nn/packed_tokens.h"

#include <ATen/ATen.h>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/ops/dropout.h"
#include "stoa/tensor/shape.h"

namespace stoa::nn {

PackedTokens pack_tokens(const at::Tensor& ids, const at::Tensor& lengths, const at::Tensor& segments) {
  check_shape(ids, {-1, -1}, "pack_tokens: ids");
  const std::int64_t sequences = ids.size(0), padded = ids.size(1);
  if (segments.defined()) check_shape(segments, {sequences, padded}, "pack_tokens: segments");
  PackedTokens packed;
  packed.padded = padded;
  const auto within = at::arange(padded, ids.options()).expand({sequences, padded});
  auto counts = at::full({sequences}, padded, at::kLong);
  if (lengths.defined()) {
    check_shape(lengths, {sequences}, "pack_tokens: lengths");
    counts = lengths.to(at::kCPU, at::kLong);
    if (sequences > 0 &&
        (counts.min().item<std::int64_t>() < 1 || counts.max().item<std::int64_t>() > padded))
      throw ShapeError(format("pack_tokens: lengths run from {} to {}, they must be from 1 to {}",
                              counts.min().item<std::int64_t>(), counts.max().item<std::int64_t>(), padded));
    if (!counts.eq(padded).all().item<bool>())
      packed.places = within.lt(counts.to(ids.device()).unsqueeze(1)).flatten().nonzero().squeeze(1);
  } else if (padded == 0) {
    throw ShapeError("pack_tokens: sequences without tokens");
  }
  packed.longest = sequences > 0 ? counts.max().item<std::int64_t>() : 0;
  packed.offsets = at::cat({at::zeros({1}, at::kLong), counts.cumsum(0)});
  packed.ids = packed.pack(ids);
  if (segments.defined()) packed.segments = packed.pack(segments);
  packed.positions = packed.pack(within);
  return packed;
}

at::Tensor PackedTokens::keys() const {
  constexpr std::int64_t kLongest = std::int64_t{1} << 32;
  const auto owner = at::arange(sequences(), at::kLong).repeat_interleave(offsets.diff());
  return (owner + ops::batch_part().first_sample) * kLongest + positions.to(at::kCPU);
}

at::Tensor PackedTokens::pack(const at::Tensor& values) const {
  const auto flat = values.flatten(0, 1);
  return places.defined() ? flat.index_select(0, places) : flat;
}

at::Tensor PackedTokens::unpack(const at::Tensor& values, double fill) const {
  auto shape = values.sizes().vec();
  shape[0] = padded;
  shape.insert(shape.begin(), sequences());
  if (!places.defined()) return values.reshape(shape);
  auto flat = values.sizes().vec();
  flat[0] = sequences() * padded;
  return at::full(flat, fill, values.options()).index_copy(0, places, values).view(shape);
}

at::Tensor PackedTokens::first(const at::Tensor& values) const {
  return values.index_select(0, offsets.slice(0, 0, -1).to(values.device()));
}

at::Tensor PackedTokens::mean(const at::Tensor& values) const {
  const auto lengths = offsets.diff().to(values.device());
  const auto owner = at::arange(sequences(), lengths.options()).repeat_interleave(lengths);
  const auto sums = at::zeros({sequences(), values.size(1)}, values.options()).index_add(0, owner, values);
  return sums / lengths.unsqueeze(1).to(values.scalar_type());
}

}  // namespace stoa::nn
