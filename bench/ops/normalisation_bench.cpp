// Layer norm, alone and behind a residual sum, forward and with its backward pass: the fused form beside the
// same of plain ATen calls. Arguments: rows, dim. `bytes_per_second` counts what the fused form must read and
// write at least.
#include <ATen/ATen.h>
#include <benchmark/benchmark.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/variable.h>

#include <vector>

#include "stoa/ops/residual_norm.h"

namespace {

using stoa::ops::ResidualNorm;

constexpr double kEps = 1e-6;

struct Problem {
  Problem(const benchmark::State& state, at::ScalarType type) : rows(state.range(0)), dim(state.range(1)) {
    at::manual_seed(1);
    const auto leaf = [](at::IntArrayRef shape, at::ScalarType of) {
      return at::randn(shape).to(of).requires_grad_();
    };
    x = leaf({rows, dim}, type);
    y = leaf({rows, dim}, type);
    bias = leaf({dim}, at::kFloat);
    gamma = leaf({dim}, at::kFloat);
    beta = leaf({dim}, at::kFloat);
    grad = at::randn({rows, dim}).to(type);
  }

  std::int64_t rows, dim;
  at::Tensor x, y, bias, gamma, beta, grad;
};

void count(benchmark::State& state, const Problem& p, std::int64_t passes) {
  state.SetBytesProcessed(state.iterations() * passes * p.x.numel() * p.x.element_size());
}

at::Tensor plain_norm(const at::Tensor& x, const Problem& p) {
  return at::layer_norm(x, {p.dim}, p.gamma, p.beta, kEps);
}

void layer_norm(benchmark::State& state, at::ScalarType type, bool fused, bool backward) {
  const Problem p(state, type);
  const at::AutoGradMode gradients(backward);
  for (auto _ : state) {
    const auto y = fused ? stoa::ops::layer_norm(p.x, p.gamma, p.beta, kEps) : plain_norm(p.x, p);
    if (backward) torch::autograd::grad({y}, {p.x, p.gamma, p.beta}, {p.grad});
  }
  count(state, p, backward ? 2 + 3 : 2);
}

void residual_norm(benchmark::State& state, at::ScalarType type, bool fused, bool bias, bool backward) {
  const Problem p(state, type);
  const at::AutoGradMode gradients(backward);
  std::vector<at::Tensor> leaves = {p.x, p.y, p.gamma, p.beta};
  if (bias) leaves.push_back(p.bias);
  for (auto _ : state) {
    ResidualNorm out;
    if (fused) {
      out = stoa::ops::residual_norm(p.x, p.y, bias ? p.bias : at::Tensor(), p.gamma, p.beta, kEps);
    } else {
      out.sum = p.x + (bias ? p.y + p.bias : p.y);
      out.normed = plain_norm(out.sum, p);
    }
    if (backward) torch::autograd::grad({out.sum, out.normed}, leaves, {p.grad, p.grad});
  }
  count(state, p, backward ? 4 + 4 : 4);
}

void sizes(benchmark::internal::Benchmark* bench) {
  for (const std::int64_t dim : {192, 384, 768}) bench->Args({6304, dim});
  bench->Unit(benchmark::kMicrosecond)->UseRealTime();
}

BENCHMARK_CAPTURE(layer_norm, forward_fused, at::kFloat, true, false)->Apply(sizes);
BENCHMARK_CAPTURE(layer_norm, forward_plain, at::kFloat, false, false)->Apply(sizes);
BENCHMARK_CAPTURE(layer_norm, both_fused, at::kFloat, true, true)->Apply(sizes);
BENCHMARK_CAPTURE(layer_norm, both_plain, at::kFloat, false, true)->Apply(sizes);
BENCHMARK_CAPTURE(residual_norm, forward_fused, at::kFloat, true, false, false)->Apply(sizes);
BENCHMARK_CAPTURE(residual_norm, forward_plain, at::kFloat, false, false, false)->Apply(sizes);
BENCHMARK_CAPTURE(residual_norm, both_fused, at::kFloat, true, false, true)->Apply(sizes);
BENCHMARK_CAPTURE(residual_norm, both_plain, at::kFloat, false, false, true)->Apply(sizes);
BENCHMARK_CAPTURE(residual_norm, bias_both_fused, at::kFloat, true, true, true)->Apply(sizes);
BENCHMARK_CAPTURE(residual_norm, bias_both_plain, at::kFloat, false, true, true)->Apply(sizes);
BENCHMARK_CAPTURE(residual_norm, bfloat16_both_fused, at::kBFloat16, true, false, true)->Apply(sizes);
BENCHMARK_CAPTURE(residual_norm, bfloat16_both_plain, at::kBFloat16, false, false, true)->Apply(sizes);

}  // namespace
