#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/variable.h>

#include <string>
#include <vector>

#include "stoa/ops/mixture.h"

namespace stoa::ops::test {

constexpr MixtureBackend kBackends[] = {MixtureBackend::kNaive, MixtureBackend::kPadded,
                                        MixtureBackend::kSorted};

/// Random inputs of a mixture; all leaves require gradients.
struct Problem {
  std::string name;
  at::Tensor x;
  Assignments assignments;
  ExpertWeights weights;
  at::Tensor hidden_mask;
  at::Tensor output_mask;
  at::Tensor direction;  ///< the loss is sum(direction * y)

  std::vector<at::Tensor> leaves() const {
    return {x, assignments.gate, weights.w_in, weights.b_in, weights.w_out, weights.b_out};
  }
  at::Tensor run(const MixtureSettings& settings) const {
    return mixture(x, assignments, weights, settings, hidden_mask, output_mask);
  }
};

inline Problem make_problem(std::string name, std::int64_t tokens, std::int64_t experts,
                            const std::vector<std::int64_t>& token, const std::vector<std::int64_t>& expert,
                            at::ScalarType type = at::kDouble, std::int64_t dim = 5, std::int64_t hidden = 7,
                            std::int64_t dim_out = 4) {
  at::manual_seed(11);
  const auto count = static_cast<std::int64_t>(token.size());
  const auto random = [&](at::IntArrayRef shape) { return at::randn(shape, at::kDouble).to(type); };
  Problem problem{std::move(name),
                  random({tokens, dim}),
                  {at::tensor(token, at::kLong), at::tensor(expert, at::kLong), random({count})},
                  {random({experts, dim, hidden}), random({experts, hidden}),
                   random({experts, hidden, dim_out}), random({experts, dim_out})},
                  {},
                  {},
                  random({tokens, dim_out})};
  for (auto& leaf : problem.leaves()) leaf.requires_grad_(true);
  return problem;
}

/// The same problem with dropout masks behind both activations.
inline Problem with_masks(Problem problem) {
  const auto count = problem.assignments.token.size(0);
  const auto mask = [&](std::int64_t width) {
    return at::empty({count, width}, problem.x.options().requires_grad(false)).bernoulli_(0.7).div_(0.7);
  };
  problem.hidden_mask = mask(problem.weights.b_in.size(1));
  problem.output_mask = mask(problem.weights.b_out.size(1));
  problem.name += ", masked";
  return problem;
}

inline std::vector<Problem> make_problems(at::ScalarType type) {
  std::vector<Problem> problems = {
      make_problem("two choices each", 4, 3, {0, 0, 1, 1, 2, 2, 3, 3}, {0, 1, 1, 2, 2, 0, 1, 0}, type),
      make_problem("dropped, missing and repeated tokens", 6, 3, {5, 0, 0, 3, 0, 3}, {1, 2, 2, 0, 1, 0},
                   type),
      make_problem("an expert without tokens", 3, 4, {0, 1, 2, 0}, {3, 0, 3, 0}, type),
      make_problem("one expert", 3, 1, {0, 1, 2}, {0, 0, 0}, type),
      make_problem("no assignment", 3, 2, {}, {}, type),
      make_problem("no token", 0, 2, {}, {}, type),
  };
  const auto unmasked = problems.size();
  for (std::size_t i = 0; i < unmasked; ++i) problems.push_back(with_masks(problems[i]));
  return problems;
}

}  // namespace stoa::ops::test
