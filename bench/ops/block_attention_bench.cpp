// Attention to a block of keys, forward and forward with backward, beside LibTorch's
// scaled_dot_product_attention on the same views of one product of queries, keys and values. Arguments:
// tokens, heads, head size, causal or not.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <benchmark/benchmark.h>

#include "stoa/ops/block_attention.h"

namespace stoa::ops {
namespace {

/// Queries, keys and values [1, tokens, heads, head_dim] as one product leaves them.
struct Inputs {
  explicit Inputs(const benchmark::State& state)
      : fused(at::randn({1, state.range(0), 3, state.range(1), state.range(2)}).requires_grad_()),
        grad(at::randn({1, state.range(0), state.range(1), state.range(2)})),
        causal(state.range(3) != 0) {}

  at::Tensor fused, grad;
  bool causal;
};

at::Tensor blocks(const Inputs& in) {
  const auto parts = in.fused.unbind(2);
  return block_attention(parts[0], parts[1], parts[2], {{in.causal, {}, {}, {}, {}, {}}, {}, 0}).out;
}

at::Tensor libtorch(const Inputs& in) {
  const auto parts = in.fused.permute({2, 0, 3, 1, 4}).unbind(0);
  return at::scaled_dot_product_attention(parts[0], parts[1], parts[2], {}, 0, in.causal).transpose(1, 2);
}

void count(benchmark::State& state, int products) {
  const auto pairs = static_cast<double>(state.range(0) * state.range(0)) / (state.range(3) != 0 ? 2 : 1);
  state.counters["GFLOP/s"] =
      benchmark::Counter(2e-9 * products * pairs * static_cast<double>(state.range(1) * state.range(2)),
                         benchmark::Counter::kIsIterationInvariantRate);
}

template <class Form>
void forward(benchmark::State& state, const Form& form) {
  const at::NoGradGuard no_grad;
  const Inputs in(state);
  for (auto unused : state) benchmark::DoNotOptimize(form(in));
  count(state, 2);
}

template <class Form>
void both(benchmark::State& state, const Form& form) {
  Inputs in(state);
  for (auto unused : state) {
    in.fused.mutable_grad() = at::Tensor();
    form(in).backward(in.grad);
  }
  count(state, 7);
}

void Forward(benchmark::State& state) {
  forward(state, blocks);
}
void ForwardLibTorch(benchmark::State& state) {
  forward(state, libtorch);
}
void Both(benchmark::State& state) {
  both(state, blocks);
}
void BothLibTorch(benchmark::State& state) {
  both(state, libtorch);
}

void shapes(benchmark::internal::Benchmark* bench) {
  for (const auto& shape : {std::vector<std::int64_t>{2048, 8, 64, 0},
                            {2048, 8, 64, 1},
                            {512, 12, 64, 0},
                            {4096, 8, 64, 0},
                            {2048, 8, 128, 0}})
    bench->Args(shape);
  bench->Unit(benchmark::kMillisecond)->UseRealTime();
}
BENCHMARK(Forward)->Apply(shapes);
BENCHMARK(ForwardLibTorch)->Apply(shapes);
BENCHMARK(Both)->Apply(shapes);
BENCHMARK(BothLibTorch)->Apply(shapes);

}  // namespace
}  // namespace stoa::ops
