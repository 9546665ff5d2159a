// The loss of a linear classifier of very many classes, forward and backward: in blocks without its scores in
// memory, by ATen's products on chunks of rows, and the plain form. Arguments: rows, dim, classes. The peak
// is of tensors made meanwhile, the gradients of the arguments included.
#include <ATen/ATen.h>
#include <benchmark/benchmark.h>
#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <algorithm>
#include <memory>

#include "stoa/ops/gemm.h"
#include "stoa/ops/linear_cross_entropy.h"

namespace stoa::ops {
namespace {

/// Bytes in tensors made by this thread.
class TensorBytes : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, std::int64_t bytes, std::size_t, std::size_t, c10::Device) override {
    now_ += bytes;
    peak_ = std::max(peak_, now_);
  }
  bool memoryProfilingEnabled() const override { return true; }
  double peak() const { return static_cast<double>(peak_); }

 private:
  std::int64_t now_ = 0, peak_ = 0;
};

at::Tensor fused(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& target) {
  return linear_cross_entropy(x, weight, {}, target).loss;
}
at::Tensor bf16(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& target) {
  return linear_cross_entropy(x, weight, {}, target, 0, -100, /*bf16=*/true).loss;
}
at::Tensor plain(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& target) {
  return at::cross_entropy_loss(at::linear(x, weight), target);
}

template <class Form>
void forward_and_backward(benchmark::State& state, const Form& form) {
  const std::int64_t rows = state.range(0), dim = state.range(1), classes = state.range(2);
  const auto x = at::randn({rows, dim}).requires_grad_();
  const auto weight = at::randn({classes, dim}).mul_(0.05).requires_grad_();
  const auto target = at::randint(classes, {rows}, at::kLong);
  const auto bytes = std::make_shared<TensorBytes>();
  const c10::DebugInfoGuard counted(c10::DebugInfoKind::PROFILER_STATE, bytes);
  for (auto unused : state) {
    x.mutable_grad() = weight.mutable_grad() = at::Tensor();
    form(x, weight, target).backward();
  }
  state.counters["GFLOP/s"] = benchmark::Counter(6e-9 * static_cast<double>(rows * dim * classes),
                                                 benchmark::Counter::kIsIterationInvariantRate);
  state.counters["peak MB"] = bytes->peak() / 1e6;
}

void Blocks(benchmark::State& state) {
  forward_and_backward(state, fused);
}
void Bf16Blocks(benchmark::State& state) {
  forward_and_backward(state, bf16);
}
void Chunks(benchmark::State& state) {
  forbid_gemm_blocks(true);
  forward_and_backward(state, fused);
  forbid_gemm_blocks(false);
}
void Plain(benchmark::State& state) {
  forward_and_backward(state, plain);
}

void shapes(benchmark::internal::Benchmark* bench) {
  bench->Args({4096, 768, 30522})->Args({1024, 768, 50257})->Args({1024, 384, 5000});
  bench->ArgNames({"rows", "dim", "classes"})->Unit(benchmark::kMillisecond)->UseRealTime();
}
BENCHMARK(Blocks)->Apply(shapes);
BENCHMARK(Bf16Blocks)->Apply(shapes);
BENCHMARK(Chunks)->Apply(shapes);
BENCHMARK(Plain)->Apply(shapes);

}  // namespace
}  // namespace stoa::ops
