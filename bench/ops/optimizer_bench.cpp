// One step of the update rules, over the tensors of a small and a base ViT and over 2000 small ones, the
// clipped step among them; the loops alone beside the plain ones; and a copy of memory, which is the roof.
// bytes/s counts what each has to move if nothing stays in the cache between passes. Compare in one run:
// --benchmark_enable_random_interleaving=true --benchmark_repetitions=5
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <benchmark/benchmark.h>

#include <cstring>
#include <functional>

#include "stoa/base/format.h"
#include "stoa/ops/optimizer_kernels.h"
#include "stoa/optim/average.h"
#include "stoa/optim/optimizer.h"

namespace {

using namespace stoa;

/// Shapes of a ViT's tensors.
std::vector<std::vector<std::int64_t>> vit(std::int64_t dim, std::int64_t depth) {
  std::vector<std::vector<std::int64_t>> shapes = {{dim, 3, 16, 16}, {197, dim}, {1000, dim}, {1000}};
  for (std::int64_t block = 0; block < depth; ++block)
    for (const auto& shape : std::vector<std::vector<std::int64_t>>{{dim},
                                                                    {dim},
                                                                    {3 * dim, dim},
                                                                    {3 * dim},
                                                                    {dim, dim},
                                                                    {dim},
                                                                    {dim},
                                                                    {dim},
                                                                    {4 * dim, dim},
                                                                    {4 * dim},
                                                                    {dim, 4 * dim},
                                                                    {dim}})
      shapes.push_back(shape);
  return shapes;
}

/// 2000 matrices of 64 to 4096 elements.
std::vector<std::vector<std::int64_t>> small() {
  std::vector<std::vector<std::int64_t>> shapes;
  for (std::int64_t i = 0; i < 2000; ++i) shapes.push_back({2, 32 + i * 37 % 2017});
  return shapes;
}

/// Leaves with gradients, whose first step is done.
struct Model {
  Model(const std::vector<std::vector<std::int64_t>>& shapes, const optim::OptimizerOptions& options) {
    std::vector<nn::NamedParameter> parameters;
    for (const auto& shape : shapes) {
      const auto tensor = at::randn(shape).mul_(0.02).requires_grad_();
      tensor.mutable_grad() = at::randn(shape).mul_(0.01);
      elements += tensor.numel();
      parameters.push_back({format("{}", parameters.size()), tensor, 1});
    }
    optimizer = optim::make_optimizer(std::move(parameters), options);
    optimizer->step(1e-4);
  }
  std::unique_ptr<optim::Optimizer> optimizer;
  std::int64_t elements = 0;
};

void count_bytes(benchmark::State& state, double bytes) {
  state.counters["bytes/s"] = benchmark::Counter(bytes, benchmark::Counter::kIsIterationInvariantRate);
}

/// A step without clipping, or the norms and the step with factors, which reads the gradients twice.
void step(benchmark::State& state, const std::vector<std::vector<std::int64_t>>& shapes,
          optim::OptimizerKind kind, int passes, bool clip) {
  optim::OptimizerOptions options;
  options.kind = kind;
  options.weight_decay = 0.05;
  Model model(shapes, options);
  for (auto _ : state) {
    if (clip)
      model.optimizer->step(1e-4, model.optimizer->clipping(1, false));
    else
      model.optimizer->step(1e-4);
  }
  count_bytes(state, 4.0 * static_cast<double>(model.elements) * (passes + (clip ? 1 : 0)));
}

/// A loop over arrays of 8M elements that lie in fresh memory.
using Loop =
    std::function<void(const ops::OptimizerKernels<float>&, const std::vector<float*>&, std::int64_t)>;

void loop(benchmark::State& state, bool fast, int passes, const Loop& run) {
  constexpr std::int64_t kSize = 8 << 20;
  std::vector<at::Tensor> tensors;
  std::vector<float*> arrays;
  for (int i = 0; i < 4; ++i) {
    tensors.push_back(at::rand({kSize}).mul_(0.01));
    arrays.push_back(tensors.back().mutable_data_ptr<float>());
  }
  const auto& kernels = fast ? ops::optimizer_kernels<float>() : ops::optimizer_kernels_reference<float>();
  for (auto _ : state) run(kernels, arrays, kSize);
  count_bytes(state, 4.0 * kSize * passes);
}

void copy(benchmark::State& state) {
  constexpr std::int64_t kBytes = std::int64_t{256} << 20;
  const auto from = at::ones({kBytes}, at::kByte), to = at::zeros({kBytes}, at::kByte);
  for (auto _ : state)
    at::parallel_for(0, kBytes, 1 << 20, [&](std::int64_t begin, std::int64_t end) {
      std::memcpy(to.mutable_data_ptr<std::uint8_t>() + begin, from.const_data_ptr<std::uint8_t>() + begin,
                  static_cast<std::size_t>(end - begin));
    });
  count_bytes(state, 2.0 * static_cast<double>(kBytes));
}

void run_as(const std::string& name, const std::function<void(benchmark::State&)>& f) {
  benchmark::RegisterBenchmark(name.c_str(), f)->Unit(benchmark::kMillisecond)->UseRealTime();
}

const bool registered = [] {
  run_as("copy", copy);
  struct Rule {
    const char* name;
    optim::OptimizerKind kind;
    int passes;  // LAMB's second pass reads w, m, v and writes w
  };
  for (const auto& rule :
       {Rule{"adamw", optim::OptimizerKind::kAdamW, 7}, Rule{"lamb", optim::OptimizerKind::kLamb, 10},
        Rule{"sgd", optim::OptimizerKind::kSgd, 5}})
    for (const auto& [name, shapes] :
         {std::pair{"8M", vit(192, 18)}, {"86M", vit(768, 12)}, {"2000_small", small()}})
      for (const bool clip : {false, true})
        run_as(format("{}{}/{}", rule.name, clip ? "_clipped" : "", name),
               [rule, clip, shapes = shapes](benchmark::State& state) {
                 step(state, shapes, rule.kind, rule.passes, clip);
               });
  const std::tuple<const char*, int, Loop> loops[] = {
      {"adamw", 7,
       [](const auto& k, const auto& a, auto n) {
         k.adamw(a[0], a[1], a[2], a[3], n, {.step = 1e-4, .eps = 1e-8});
       }},
      {"lamb_moments", 6,
       [](const auto& k, const auto& a, auto n) {
         benchmark::DoNotOptimize(k.lamb_moments(a[0], a[1], a[2], a[3], n, {.eps = 1e-6}));
       }},
      {"lamb_weights", 4,
       [](const auto& k, const auto& a, auto n) {
         k.lamb_weights(a[0], a[2], a[3], n, 1e-4, {.eps = 1e-6});
       }},
      {"sgd", 5,
       [](const auto& k, const auto& a, auto n) {
         k.sgd(a[0], a[1], a[2], n, {.lr = 1e-4, .momentum = 0.9});
       }},
      {"average", 3, [](const auto& k, const auto& a, auto n) { k.average(a[0], a[1], n, 1e-3); }},
      {"square_sum", 1,
       [](const auto& k, const auto& a, auto n) { benchmark::DoNotOptimize(k.square_sum(a[1], n)); }}};
  for (const auto& [name, passes, run] : loops)
    for (const bool fast : {true, false})
      run_as(format("loop_{}/{}", name, fast ? "fast" : "plain"),
             [fast, passes = passes, run = run](benchmark::State& state) { loop(state, fast, passes, run); });
  return true;
}();

}  // namespace
