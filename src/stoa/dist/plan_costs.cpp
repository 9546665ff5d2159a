#include "stoa/dist/plan_costs.h"

#include <algorithm>
#include <cmath>

namespace stoa::dist {
namespace {

double size_of_heads(const BlockShape& s) {
  return s.heads * s.head_dim;
}

/// Forward 2 (n - 1), backward as much again and 2 n; where there are two, gradients of the own block stay.
double ring_traffic(double blocks) {
  if (blocks == 1) return 0;
  return blocks == 2 ? 6 : 6 * blocks - 4;
}

}  // namespace

double all_gather_seconds(double bytes, std::int64_t ranks, const Link& link) {
  const auto p = static_cast<double>(ranks);
  return (p - 1) * link.latency_s + (p - 1) / p * bytes / link.bytes_per_s;
}

double all_reduce_seconds(double bytes, std::int64_t ranks, const Link& link) {
  return 2 * all_gather_seconds(bytes, ranks, link);
}

double all_to_all_seconds(double bytes, std::int64_t ranks, const Link& link) {
  return all_gather_seconds(bytes, ranks, link);  // as many messages, of as many bytes
}

double pipeline_idle(std::int64_t stages, std::int64_t micro_batches) {
  return static_cast<double>(stages - 1) / static_cast<double>(micro_batches + stages - 1);
}

double zero_bytes(double parameters, const ParameterBytes& bytes, std::int64_t stage, std::int64_t ranks) {
  const auto share = [&](std::int64_t from) { return stage >= from ? 1 / static_cast<double>(ranks) : 1.0; };
  return parameters * (bytes.weight * share(3) + bytes.gradient * share(2) + bytes.optimizer * share(1));
}

double sequence_traffic(SequenceMethod method, std::int64_t ranks, std::int64_t ulysses) {
  const auto n = static_cast<double>(ranks), u = static_cast<double>(ulysses);
  if (ranks == 1) return 0;
  switch (method) {
    case SequenceMethod::kUlysses:
      return 8 * (n - 1) / n;
    case SequenceMethod::kHybrid:
      return 8 * (u - 1) / u + ring_traffic(n / u);
    case SequenceMethod::kRsa:
    case SequenceMethod::kGatherKv:
      return 6 * (n - 1);
    default:
      return ring_traffic(n);
  }
}

double expert_traffic(double tokens, double choices, double width, std::int64_t ranks) {
  const auto n = static_cast<double>(ranks);
  return 4 * tokens * choices * width * (n - 1) / n;
}

double mlp_by_tensor(const BlockShape& s) {
  const double h = s.width, bl = s.batch * s.length;
  return 32 * h * h / s.ranks + 4 * bl * h / s.ranks + bl * h;
}

double mlp_by_sequence(const BlockShape& s) {
  return 32 * s.width * s.width + 5 * s.batch * s.length * s.width / s.ranks;
}

double attention_by_tensor(const BlockShape& s) {
  const double za = size_of_heads(s), bl = s.batch * s.length;
  return 16 * za * s.width / s.ranks + 4 * bl * za / s.ranks + bl * s.heads * s.length / s.ranks +
         bl * s.width;
}

double attention_by_rsa(const BlockShape& s) {
  const double za = size_of_heads(s), bl = s.batch * s.length;
  return 16 * za * s.width + 4 * bl * za / s.ranks + bl * s.heads * s.length / s.ranks +
         bl * s.width / s.ranks;
}

double linformer_by_sequence(const BlockShape& s) {
  const double za = size_of_heads(s), bl = s.batch * s.length;
  return 2 * za * s.width + 2 * bl * za / s.ranks + bl * s.heads * s.projected / s.ranks +
         bl * s.width / s.ranks + 2 * s.batch * za * s.projected;
}

double attention_by_ring(const BlockShape& s) {
  const double za = size_of_heads(s), bl = s.batch * s.length;
  return 16 * za * s.width + (8 * za + s.heads + s.width) * bl / s.ranks;
}

const char* name_of(BlockMethod method) {
  switch (method) {
    case BlockMethod::kTensorScores:
      return "tensor, scores kept";
    case BlockMethod::kTensorTiled:
      return "tensor, tiled";
    case BlockMethod::kRsa:
      return "RSA";
    default:
      return "ring";
  }
}

double block_peak_bytes(BlockMethod method, const BlockShape& s) {
  const bool by_heads = method == BlockMethod::kTensorScores || method == BlockMethod::kTensorTiled;
  const double share = by_heads ? s.ranks : 1;
  const double za = size_of_heads(s) / share, h = s.width;
  const double tokens = s.batch * s.length / (by_heads ? 1 : s.ranks);
  const double pairs = s.batch * s.heads * s.length * s.length / s.ranks;
  // in the middle of attention's backward pass there are the block's input, result and its gradient; queries,
  // keys and values; and the weights with the gradient of W_out
  const double always = 5 * za * h + tokens * (3 * h + 3 * za);
  // then mixed values and their gradient, three gradients, sums and products of rows
  const double tiled = tokens * (5 * za + 2 * s.heads / share);
  switch (method) {
    case BlockMethod::kTensorScores:  // probabilities, their gradient, the product of both
      return 4 * (always + 3 * pairs + tokens * za);
    case BlockMethod::kTensorTiled:  // with few heads a rank, the gradient of the input comes to more
      return 4 * std::max(always + tiled, 8 * za * h + tokens * (4 * h + 3 * za));
    case BlockMethod::kRsa:  // gradients of the keys and values of all ranks
      return 4 * (always + 3 * pairs + tokens * (2 + 2 * s.ranks) * za);
    default:  // two more blocks of gradients and two of keys and values are under way
      return 4 * (always + tiled + (s.ranks > 1 ? 8 * tokens * za : 0));
  }
}

double longest_sequence(BlockMethod method, BlockShape s, double bytes, double step) {
  const auto fits = [&](double steps) {
    s.length = steps * step;
    return block_peak_bytes(method, s) <= bytes;
  };
  double most = 1;
  while (fits(most) && most < 1e12) most *= 2;
  double least = 0;  // fits, but for 0; `most` does not
  while (most - least > 1) {
    const double middle = std::floor((least + most) / 2);
    (fits(middle) ? least : most) = middle;
  }
  return least * step;
}

}  // namespace stoa::dist
