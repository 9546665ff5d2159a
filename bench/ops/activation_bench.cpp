// Bias and activation, forward and with the backward pass: the fused form beside the same of plain ATen
// calls. Arguments: rows, dim. `bytes_per_second` counts what the fused form must read and write at least.
#include <ATen/ATen.h>
#include <benchmark/benchmark.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/variable.h>

#include "stoa/ops/bias_activation.h"
#include "stoa/ops/mixture_experts.h"

namespace {

using stoa::ops::Activation;

void bias_activation(benchmark::State& state, at::ScalarType type, Activation activation, bool fused,
                     bool backward) {
  at::manual_seed(1);
  const auto rows = state.range(0), dim = state.range(1);
  const auto x = at::randn({rows, dim}).to(type).requires_grad_();
  const auto bias = at::randn({dim}).to(type).requires_grad_();
  const auto grad = at::randn({rows, dim}).to(type);
  const at::AutoGradMode gradients(backward);
  for (auto _ : state) {
    const auto y =
        fused ? stoa::ops::bias_activation(x, bias, activation) : stoa::ops::activate(x + bias, activation);
    if (backward) torch::autograd::grad({y}, {x, bias}, {grad});
  }
  state.SetBytesProcessed(state.iterations() * (backward ? 2 + 3 : 2) * x.numel() * x.element_size());
}

void sizes(benchmark::internal::Benchmark* bench) {
  for (const std::int64_t dim : {192, 384, 768, 3072}) bench->Args({6304, dim});
  bench->Unit(benchmark::kMicrosecond)->UseRealTime();
}

BENCHMARK_CAPTURE(bias_activation, gelu_tanh_forward_fused, at::kFloat, Activation::kGeluTanh, true, false)
    ->Apply(sizes);
BENCHMARK_CAPTURE(bias_activation, gelu_tanh_forward_plain, at::kFloat, Activation::kGeluTanh, false, false)
    ->Apply(sizes);
BENCHMARK_CAPTURE(bias_activation, gelu_tanh_both_fused, at::kFloat, Activation::kGeluTanh, true, true)
    ->Apply(sizes);
BENCHMARK_CAPTURE(bias_activation, gelu_tanh_both_plain, at::kFloat, Activation::kGeluTanh, false, true)
    ->Apply(sizes);
BENCHMARK_CAPTURE(bias_activation, gelu_erf_both_fused, at::kFloat, Activation::kGeluErf, true, true)
    ->Apply(sizes);
BENCHMARK_CAPTURE(bias_activation, gelu_erf_both_plain, at::kFloat, Activation::kGeluErf, false, true)
    ->Apply(sizes);
BENCHMARK_CAPTURE(bias_activation, relu_both_fused, at::kFloat, Activation::kRelu, true, true)->Apply(sizes);
BENCHMARK_CAPTURE(bias_activation, relu_both_plain, at::kFloat, Activation::kRelu, false, true)->Apply(sizes);
BENCHMARK_CAPTURE(bias_activation, bfloat16_gelu_tanh_both_fused, at::kBFloat16, Activation::kGeluTanh, true,
                  true)
    ->Apply(sizes);
BENCHMARK_CAPTURE(bias_activation, bfloat16_gelu_tanh_both_plain, at::kBFloat16, Activation::kGeluTanh, false,
                  true)
    ->Apply(sizes);

}  // namespace
