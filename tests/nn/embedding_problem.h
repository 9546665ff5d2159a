#pragma once

// Small tables and steps with given gradients.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "stoa/nn/embedding_tables.h"

namespace stoa::nn {

inline const std::vector<std::int64_t> kSizes = {7, 400, 30};

inline EmbeddingOptions small(AbsentRows absent = AbsentRows::kReplay) {
  EmbeddingOptions options;
  options.lr = 1e-3;
  options.l2 = 1e-4;
  options.absent = absent;
  return options;
}

/// Ids [batch, 3] with a long tail: most rows are rare.
inline at::Tensor some_ids(std::int64_t batch, int seed) {
  at::manual_seed(static_cast<std::uint64_t>(seed));
  std::vector<at::Tensor> columns;
  for (const auto size : kSizes)
    columns.push_back((at::rand({batch}).pow(3) * static_cast<double>(size)).floor().to(at::kLong));
  return at::stack(columns, 1);
}

/// Gathers the gradient of a loss with fixed random slopes, those of `seed`.
inline void backward(EmbeddingTables& tables, const at::Tensor& ids, int seed, double scale = 1) {
  at::manual_seed(static_cast<std::uint64_t>(1000 + seed));
  const auto rows = tables.lookup(ids);
  const auto slopes = at::randn(rows.embeddings.sizes()) * 0.01,
             linear_slopes = at::randn(rows.linear.sizes()) * 0.01;
  (((rows.embeddings * slopes).sum() + (rows.linear * linear_slopes).sum()) * scale).backward();
}

inline std::vector<std::pair<std::string, double>> train(EmbeddingTables& tables, int first, int steps) {
  std::vector<std::pair<std::string, double>> numbers;
  for (int t = first; t < first + steps; ++t) {
    tables.zero_grad();
    backward(tables, some_ids(16, t), t);
    numbers = tables.step();
  }
  return numbers;
}

/// All weights and moments, every update done.
inline at::Tensor everything(EmbeddingTables& tables) {
  tables.flush();
  std::vector<at::Tensor> parts;
  const auto state = tables.state();
  for (const auto& [name, tensor] : state)
    if (name.starts_with("tables.rows.")) parts.push_back(tensor.narrow(1, 0, tensor.size(1) - 1).flatten());
  return at::cat(parts);
}

inline double number(const std::vector<std::pair<std::string, double>>& numbers, const std::string& name) {
  for (const auto& [key, value] : numbers)
    if (key == name) return value;
  ADD_FAILURE() << name << " is missing";
  return 0;
}

inline double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

inline std::map<std::string, at::Tensor> copy_of(const std::map<std::string, at::Tensor>& state) {
  std::map<std::string, at::Tensor> copy;
  for (const auto& [name, tensor] : state) copy[name] = tensor.clone();
  return copy;
}

}  // namespace stoa::nn
