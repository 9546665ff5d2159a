#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "stoa/ops/simd.h"

// What the tests of the fused operators share.
namespace stoa::ops::test {

/// Widths below, at and between whole vectors; counts of rows below, at and above one block of 64.
constexpr std::int64_t kWidths[] = {1, 3, 31, 65, 768, 1000};
constexpr std::int64_t kRows[] = {0, 1, 70};

/// Runs `work` with every SIMD level of this machine in turn.
inline void every_simd_level(const std::function<void()>& work) {
  const auto before = simd_level();
  for (const auto& level : simd_levels()) {
    SCOPED_TRACE(level);
    limit_simd(level);
    work();
  }
  limit_simd(before);
}

/// Runs `work` on so many threads.
template <class Work>
auto on_threads(int threads, const Work& work) {
  const int before = at::get_num_threads();
  at::set_num_threads(threads);
  auto result = work();
  at::set_num_threads(before);
  return result;
}

/// The same values in a tensor whose first element lies one element behind an aligned address.
inline at::Tensor unaligned(const at::Tensor& tensor) {
  return at::empty({tensor.numel() + 1}, tensor.options())
      .narrow(0, 1, tensor.numel())
      .view(tensor.sizes())
      .copy_(tensor);
}

/// The same values, the last dimension with a stride of 2.
inline at::Tensor strided(const at::Tensor& tensor) {
  return at::stack({tensor, tensor}, -1).select(-1, 0);
}

/// Results, and the gradients in `leaves` of the sum of all results times fixed random numbers.
inline std::vector<at::Tensor> results_and_gradients(const std::vector<at::Tensor>& results,
                                                     const std::vector<at::Tensor>& leaves) {
  at::manual_seed(23);
  auto loss = at::zeros({}, at::kDouble);
  for (const auto& result : results) {
    const auto direction = at::randn(result.sizes(), at::kDouble).to(result.scalar_type());
    loss = loss + (result * direction).to(at::kDouble).sum();
  }
  auto all = torch::autograd::grad({loss}, leaves, {}, {}, false, /*allow_unused=*/true);
  for (const auto& result : results) all.push_back(result.detach());
  return all;
}

/// Same types and shapes, and values within `tolerance` times the largest magnitude or 1; NaN only where NaN
/// is expected.
inline void expect_close(const std::vector<at::Tensor>& found, const std::vector<at::Tensor>& expected,
                         double tolerance) {
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    ASSERT_EQ(found[i].defined(), expected[i].defined()) << "tensor " << i;
    if (!found[i].defined()) continue;
    ASSERT_EQ(found[i].sizes(), expected[i].sizes()) << "tensor " << i;
    EXPECT_EQ(found[i].scalar_type(), expected[i].scalar_type()) << "tensor " << i;
    const auto f = found[i].to(at::kDouble);
    const auto e = expected[i].to(at::kDouble);
    const auto finite = e.masked_select(e.isfinite());
    const double scale = finite.numel() == 0 ? 1 : std::max(1.0, finite.abs().max().item<double>());
    EXPECT_TRUE(at::allclose(f, e, 0, tolerance * scale, /*equal_nan=*/true))
        << "tensor " << i << " of shape " << found[i].sizes() << " is off by "
        << (f - e).abs().nan_to_num().max().item<double>() << ", scale " << scale;
  }
}

inline void expect_equal(const std::vector<at::Tensor>& found, const std::vector<at::Tensor>& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t i = 0; i < found.size(); ++i)
    EXPECT_TRUE(at::equal(found[i], expected[i])) << "tensor " << i;
}

}  // namespace stoa::ops::test
