// The mixture operator, forward and backward: the sorted form, the older padded one (batched products over
// the busiest expert's count), the plain loop that all are held to, and the sorted form's matrix products
// alone, which is its roof. Arguments: dim (f = 4 dim), experts, K, tokens.
#include <ATen/ATen.h>
#include <benchmark/benchmark.h>

#include <tuple>

#include "stoa/ops/mixture.h"

namespace {

using stoa::ops::MixtureBackend;

/// A layer whose tokens choose K different experts at random, as a balanced router has them do.
struct Problem {
  explicit Problem(const benchmark::State& state)
      : dim(state.range(0)), experts(state.range(1)), k(state.range(2)), tokens(state.range(3)) {
    at::manual_seed(1);
    const auto leaf = [](at::IntArrayRef shape) { return at::randn(shape).mul_(0.05).requires_grad_(); };
    x = leaf({tokens, dim});
    weights = {leaf({experts, dim, 4 * dim}), leaf({experts, 4 * dim}), leaf({experts, 4 * dim, dim}),
               leaf({experts, dim})};
    const auto chosen = std::get<1>(at::rand({tokens, experts}).topk(k, 1));
    assignments = {at::arange(tokens).repeat_interleave(k), chosen.flatten(),
                   at::rand({tokens * k}).requires_grad_()};
    grad = at::randn({tokens, dim});
  }

  std::int64_t dim, experts, k, tokens;
  at::Tensor x, grad;
  stoa::ops::ExpertWeights weights;
  stoa::ops::Assignments assignments;
};

void count_products(benchmark::State& state, const Problem& p) {
  const double flops = 6.0 * 2 * 4 * static_cast<double>(p.tokens * p.k * p.dim * p.dim);
  state.counters["FLOP/s"] = benchmark::Counter(flops, benchmark::Counter::kIsIterationInvariantRate);
}

void mixture(benchmark::State& state, MixtureBackend backend, bool bf16 = false) {
  const Problem p(state);
  for (auto _ : state) {
    const auto y = stoa::ops::mixture(p.x, p.assignments, p.weights, {.backend = backend, .bf16 = bf16});
    y.backward(p.grad);
    for (const auto& leaf :
         {p.x, p.assignments.gate, p.weights.w_in, p.weights.b_in, p.weights.w_out, p.weights.b_out})
      leaf.mutable_grad().reset();
  }
  count_products(state, p);
}

/// The six products of every expert on rows that lie ready, and nothing else.
void products(benchmark::State& state) {
  const Problem p(state);
  const at::NoGradGuard no_gradients;
  const auto counts = at::bincount(p.assignments.expert, {}, p.experts);
  const auto rows = p.tokens * p.k;
  const auto narrow = at::randn({rows, p.dim}), wide = at::randn({rows, 4 * p.dim});
  for (auto _ : state) {
    std::int64_t begin = 0;
    for (std::int64_t e = 0; e < p.experts; ++e) {
      const auto count = counts[e].item<std::int64_t>();
      const auto x = narrow.narrow(0, begin, count), h = wide.narrow(0, begin, count);
      const auto w_in = p.weights.w_in[e], w_out = p.weights.w_out[e];
      for (const auto& [a, b] :
           {std::pair{x, w_in}, {h, w_out}, {x, w_out.t()}, {h, w_in.t()}, {h.t(), x}, {x.t(), h}})
        benchmark::DoNotOptimize(at::mm(a, b));
      begin += count;
    }
  }
  count_products(state, p);
}

void sizes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"dim", "experts", "k", "tokens"})->Unit(benchmark::kMillisecond)->UseRealTime();
  for (const int tokens : {392, 1568, 6304})
    for (const int experts : {4, 32}) b->Args({192, experts, 2, tokens});
}

BENCHMARK_CAPTURE(mixture, sorted, MixtureBackend::kSorted)->Apply(sizes);
BENCHMARK_CAPTURE(mixture, sorted_bf16, MixtureBackend::kSorted, true)->Apply(sizes);
BENCHMARK_CAPTURE(mixture, padded, MixtureBackend::kPadded)->Apply(sizes);
BENCHMARK_CAPTURE(mixture, naive, MixtureBackend::kNaive)->Apply(sizes);
BENCHMARK(products)->Apply(sizes);

}  // namespace
