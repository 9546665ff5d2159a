#include "stoa/dist/sequence/token_order.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"

namespace stoa::dist {
namespace {

std::int64_t unit_of(TokenOrder order, int ranks) {
  return order == TokenOrder::kZigzag ? 2 * std::int64_t{ranks} : ranks;
}

at::Tensor places(const at::Tensor& t, std::int64_t dim, TokenOrder order, int ranks) {
  return token_positions(order, t.size(dim), ranks, 0, ranks);
}

}  // namespace

const char* name_of(TokenOrder order) {
  switch (order) {
    case TokenOrder::kZigzag:
      return "zigzag";
    case TokenOrder::kStriped:
      return "striped";
    default:
      return "contiguous";
  }
}

std::int64_t padded_length(std::int64_t length, TokenOrder order, int ranks) {
  const std::int64_t unit = unit_of(order, ranks);
  return (length + unit - 1) / unit * unit;
}

void check_length(std::int64_t length, TokenOrder order, int ranks) {
  if (length < 1 || length % unit_of(order, ranks) != 0)
    throw ConfigError(format(
        "a sequence of {} tokens cannot be split over {} ranks in {} order; a multiple of {} is needed: "
        "pad it to {}",
        length, ranks, name_of(order), unit_of(order, ranks),
        padded_length(std::max<std::int64_t>(length, 1), order, ranks)));
}

at::Tensor token_positions(TokenOrder order, std::int64_t length, int ranks, int first, int count) {
  check_length(length, order, ranks);
  const std::int64_t chunk = length / ranks, half = chunk / 2;
  std::vector<at::Tensor> parts;
  for (int rank = first; rank < first + count; ++rank) {
    if (order == TokenOrder::kContiguous) {
      parts.push_back(at::arange(rank * chunk, (rank + 1) * chunk, at::kLong));
    } else if (order == TokenOrder::kStriped) {
      parts.push_back(at::arange(rank, length, ranks, at::kLong));
    } else {
      const std::int64_t mirrored = 2 * std::int64_t{ranks} - 1 - rank;
      parts.push_back(at::arange(rank * half, (rank + 1) * half, at::kLong));
      parts.push_back(at::arange(mirrored * half, (mirrored + 1) * half, at::kLong));
    }
  }
  return at::cat(parts);
}

at::Tensor to_order(const at::Tensor& whole, std::int64_t dim, TokenOrder order, int ranks) {
  return whole.index_select(dim, places(whole, dim, order, ranks).to(whole.device()));
}

at::Tensor from_order(const at::Tensor& ordered, std::int64_t dim, TokenOrder order, int ranks) {
  return ordered.index_select(dim, places(ordered, dim, order, ranks).argsort().to(ordered.device()));
}

at::Tensor chunk_of(const at::Tensor& whole, std::int64_t dim, TokenOrder order, int ranks, int rank) {
  return whole.index_select(dim, token_positions(order, whole.size(dim), ranks, rank).to(whole.device()));
}

at::Tensor gather_tokens(const at::Tensor& chunk, std::int64_t dim, TokenOrder order, Group& group) {
  const auto chunks = group.all_gather(chunk.detach().contiguous()).unbind(0);
  return from_order(at::cat(chunks, dim), dim, order, group.size());
}

}  // namespace stoa::dist
