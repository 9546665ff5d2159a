#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cstdint>
#include <limits>
#include <ostream>
#include <string>
#include <vector>

#include "ops/fused_cases.h"
#include "stoa/ops/block_attention.h"

namespace stoa::ops::test {

/// Inputs of block attention, the same numbers in every type.
struct AttentionProblem {
  std::int64_t batch, queries, keys, heads, kv_heads, head_dim;
  std::string mask;  ///< words of: causal, shuffled, documents, padding
  double dropout = 0;
  double spread = 1.5;  ///< standard deviation of queries and keys

  bool has(const char* word) const { return mask.find(word) != std::string::npos; }

  BlockAttentionOptions options() const {
    at::manual_seed(5);
    BlockAttentionOptions options;
    auto& m = options.mask;
    m.causal = has("causal");
    if (has("shuffled")) {
      m.query_positions = at::randperm(queries + 20, at::kLong).slice(0, 0, queries);
      m.key_positions = at::randperm(keys + 20, at::kLong).slice(0, 0, keys);
    }
    if (has("documents")) {
      const auto documents = [&](std::int64_t count) {
        return std::get<0>(at::randint(-1, 3, {batch, count}, at::kLong).sort(1)).mul_(1000);
      };
      m.query_documents = documents(queries);
      m.key_documents = documents(keys);
    }
    if (has("padding")) m.key_valid = at::rand({batch, keys}).lt(0.7);
    options.dropout = {dropout, /*seed=*/77, /*first_batch=*/3, /*first_head=*/5};
    return options;
  }

  /// q, k, v and a gradient of the output.
  std::vector<at::Tensor> tensors(at::ScalarType type) const {
    at::manual_seed(11);
    std::vector<at::Tensor> made;
    for (const auto& [rows, count, factor] : {std::tuple{queries, heads, spread},
                                              {keys, kv_heads, spread},
                                              {keys, kv_heads, 1.0},
                                              {queries, heads, 1.0}})
      made.push_back((at::randn({batch, rows, count, head_dim}, at::kDouble) * factor).to(type));
    return made;
  }

  /// Output, log_sum and gradients of q, k, v by `form`, of both results.
  template <class Form>
  std::vector<at::Tensor> run(const Form& form, at::ScalarType type) const {
    const auto given = tensors(type);
    std::vector<at::Tensor> leaves;
    for (int i = 0; i < 3; ++i)
      leaves.push_back(given[static_cast<std::size_t>(i)].detach().requires_grad_());
    const auto block = form(leaves[0], leaves[1], leaves[2], options());
    return results_and_gradients({block.out, block.log_sum}, leaves);
  }
};

inline void PrintTo(const AttentionProblem& p, std::ostream* to) {
  *to << p.batch << " x " << p.queries << " queries, " << p.keys << " keys, " << p.heads << " heads on "
      << p.kv_heads << " of " << p.head_dim << ", " << p.mask << ", dropout " << p.dropout;
}

inline std::vector<at::Tensor> in_double(std::vector<at::Tensor> tensors) {
  for (auto& tensor : tensors) tensor = tensor.to(at::kDouble);
  return tensors;
}

}  // namespace stoa::ops::test
