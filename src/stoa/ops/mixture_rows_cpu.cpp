// The CPU kernels of mixture_rows.h: parallel over rows or tokens, so results do not depend on the number of
// threads.
#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "stoa/ops/mixture_rows.h"

namespace stoa::ops {

namespace {

// rows of `width` numbers that are worth a thread
std::int64_t grain(std::int64_t width) {
  return std::max<std::int64_t>(1, 32768 / std::max<std::int64_t>(1, width));
}

std::int64_t at_index(const std::vector<std::int64_t>& values, std::int64_t i) {
  return values[static_cast<std::size_t>(i)];
}

at::Tensor gather(const at::Tensor& values, const std::vector<std::int64_t>& index) {
  const auto source = values.contiguous();
  const auto width = source.size(1);
  const auto rows = static_cast<std::int64_t>(index.size());
  const auto out = at::empty({rows, width}, source.options());
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, source.scalar_type(), "mixture gather", [&] {
    const auto* from = source.const_data_ptr<scalar_t>();
    auto* to = out.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, rows, grain(width), [&](std::int64_t begin, std::int64_t end) {
      for (auto r = begin; r < end; ++r) {
        const auto i = at_index(index, r);
        if (i < 0)
          std::fill_n(to + r * width, width, scalar_t(0));
        else
          std::copy_n(from + i * width, width, to + r * width);
      }
    });
  });
  return out;
}

template <class T, class Math>
void combine_tokens(const T* values, const Math* gate, const RowLayout& layout, std::int64_t width, T* out,
                    std::int64_t begin, std::int64_t end) {
  std::vector<Math> sum(static_cast<std::size_t>(width));
  Math* const total = sum.data();
  for (auto n = begin; n < end; ++n) {
    std::ranges::fill(sum, Math(0));
    for (auto i = at_index(layout.token_start, n); i < at_index(layout.token_start, n + 1); ++i) {
      const auto r = at_index(layout.token_rows, i);
      const T* const term = values + r * width;
      const Math weight = gate == nullptr ? Math(1) : gate[at_index(layout.source, r)];
#pragma omp simd
      for (std::int64_t d = 0; d < width; ++d) total[d] += weight * static_cast<Math>(term[d]);
    }
    std::transform(sum.begin(), sum.end(), out + n * width, [](Math v) { return static_cast<T>(v); });
  }
}

template <class T, class Math>
void backward_rows(const T* grad, const T* values, const Math* gate, const RowLayout& layout,
                   std::int64_t width, T* grad_values, Math* grad_gate, std::int64_t begin,
                   std::int64_t end) {
  for (auto r = begin; r < end; ++r) {
    T* const to = grad_values + r * width;
    const auto a = at_index(layout.source, r);
    if (a < 0) {
      std::fill_n(to, width, T(0));
      continue;
    }
    const T* const from = grad + at_index(layout.row_token, r) * width;
    const T* const value = values + r * width;
    const Math weight = gate[a];
    Math dot = 0;
#pragma omp simd reduction(+ : dot)
    for (std::int64_t d = 0; d < width; ++d) {
      const auto g = static_cast<Math>(from[d]);
      dot += g * static_cast<Math>(value[d]);
      to[d] = static_cast<T>(weight * g);
    }
    grad_gate[a] = dot;
  }
}

}  // namespace

at::Tensor gather_tokens(const at::Tensor& values, const RowLayout& layout) {
  if (!values.is_cpu()) return rows_on_device::gather_tokens(values, layout);
  return gather(values, layout.row_token);
}

at::Tensor gather_assignments(const at::Tensor& values, const RowLayout& layout) {
  if (!values.is_cpu()) return rows_on_device::gather_assignments(values, layout);
  return gather(values, layout.source);
}

at::Tensor combine_rows(const at::Tensor& values, const at::Tensor& gate, const RowLayout& layout) {
  if (!values.is_cpu()) return rows_on_device::combine_rows(values, gate, layout);
  const auto width = values.size(1);
  const auto out = at::empty({layout.tokens, width}, values.options());
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, values.scalar_type(), "mixture combine", [&] {
    using Math = at::opmath_type<scalar_t>;
    const auto* from = values.const_data_ptr<scalar_t>();
    const auto* weights = gate.defined() ? gate.const_data_ptr<Math>() : nullptr;
    auto* to = out.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, layout.tokens, grain(width), [&](std::int64_t begin, std::int64_t end) {
      combine_tokens(from, weights, layout, width, to, begin, end);
    });
  });
  return out;
}

std::pair<at::Tensor, at::Tensor> combine_rows_backward(const at::Tensor& grad, const at::Tensor& values,
                                                        const at::Tensor& gate, const RowLayout& layout) {
  if (!grad.is_cpu()) return rows_on_device::combine_rows_backward(grad, values, gate, layout);
  const auto width = values.size(1);
  const auto grad_values = at::empty_like(values);
  const auto grad_gate = at::empty_like(gate);
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kBFloat16, at::kHalf, values.scalar_type(), "mixture combine backward", [&] {
        using Math = at::opmath_type<scalar_t>;
        const auto* g = grad.const_data_ptr<scalar_t>();
        const auto* y = values.const_data_ptr<scalar_t>();
        const auto* weights = gate.const_data_ptr<Math>();
        auto* to = grad_values.mutable_data_ptr<scalar_t>();
        auto* to_gate = grad_gate.mutable_data_ptr<Math>();
        at::parallel_for(0, layout.rows, grain(width), [&](std::int64_t begin, std::int64_t end) {
          backward_rows(g, y, weights, layout, width, to, to_gate, begin, end);
        });
      });
  return {grad_values, grad_gate};
}

}  // namespace stoa::ops
