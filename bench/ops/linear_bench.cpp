// A perceptron's layer, forward and backward: products in blocks with bias and activation applied in the
// cache, with operands in fp32 and rounded to bf16, beside ATen's linear and gelu. Arguments: rows, in, out.
#include <ATen/ATen.h>
#include <benchmark/benchmark.h>

#include "stoa/ops/linear.h"

namespace stoa::ops {
namespace {

template <class Form>
void forward_and_backward(benchmark::State& state, const Form& form, Activation activation) {
  const std::int64_t rows = state.range(0), in = state.range(1), out = state.range(2);
  auto x = at::randn({rows, in}).requires_grad_(), weight = at::randn({out, in}).requires_grad_(),
       bias = at::randn({out}).requires_grad_();
  const auto grad = at::randn({rows, out});
  for (auto unused : state) {
    x.mutable_grad() = weight.mutable_grad() = bias.mutable_grad() = at::Tensor();
    form(x, weight, bias, activation).backward(grad);
  }
  state.counters["GFLOP/s"] = benchmark::Counter(6e-9 * static_cast<double>(rows * in * out),
                                                 benchmark::Counter::kIsIterationInvariantRate);
}

at::Tensor blocks(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                  Activation activation) {
  return linear(x, weight, bias, activation);
}
at::Tensor bf16_blocks(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                       Activation activation) {
  return linear(x, weight, bias, activation, /*bf16=*/true);
}

void Blocks(benchmark::State& state) {
  forward_and_backward(state, blocks, Activation::kGeluTanh);
}
void Bf16Blocks(benchmark::State& state) {
  forward_and_backward(state, bf16_blocks, Activation::kGeluTanh);
}
void Reference(benchmark::State& state) {
  forward_and_backward(state, linear_reference, Activation::kGeluTanh);
}
void PlainBlocks(benchmark::State& state) {
  forward_and_backward(state, blocks, Activation::kNone);
}
void PlainReference(benchmark::State& state) {
  forward_and_backward(state, linear_reference, Activation::kNone);
}

void shapes(benchmark::internal::Benchmark* bench) {
  for (const auto& shape : {std::vector<std::int64_t>{6304, 192, 768},
                            {6304, 384, 1536},
                            {1568, 768, 3072},
                            {6304, 768, 192},
                            {64, 192, 768}})
    bench->Args(shape);
  bench->Unit(benchmark::kMillisecond)->UseRealTime();
}
BENCHMARK(Blocks)->Apply(shapes);
BENCHMARK(Bf16Blocks)->Apply(shapes);
BENCHMARK(Reference)->Apply(shapes);
BENCHMARK(PlainBlocks)->Apply(shapes);
BENCHMARK(PlainReference)->Apply(shapes);

}  // namespace
}  // namespace stoa::ops
