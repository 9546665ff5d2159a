#include "stoa/ops/mixture_rows.h"

#include <ATen/ATen.h>
#include <ATen/OpMathType.h>

#include <algorithm>
#include <span>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/ops/cuda_call.h"

namespace stoa::ops {

namespace {

// Turns counts per key into the place of each key's first item; returns the sum.
std::int64_t exclusive_sum(std::vector<std::int64_t>& counts) {
  std::int64_t total = 0;
  for (auto& count : counts) total += std::exchange(count, total);
  return total;
}

std::vector<std::int64_t> count_keys(std::span<const std::int64_t> keys, std::int64_t limit,
                                     const char* what) {
  std::vector<std::int64_t> counts(static_cast<std::size_t>(limit), 0);
  for (const auto key : keys) {
    if (key < 0 || key >= limit)
      throw Error(
          format("mixture: an assignment names {} {}; there are {} (0 to {})", what, key, limit, limit - 1));
    ++counts[static_cast<std::size_t>(key)];
  }
  return counts;
}

std::span<const std::int64_t> host_span(const at::Tensor& tensor) {
  return {tensor.const_data_ptr<std::int64_t>(), static_cast<std::size_t>(tensor.numel())};
}

// The layout's host vectors one behind the other, in one copy to the GPU
at::Tensor pack_index(const RowLayout& layout, const at::Device& device) {
  const auto parts = {&layout.source, &layout.row_token, &layout.token_start, &layout.token_rows};
  std::size_t size = 0;
  for (const auto* part : parts) size += part->size();
  const auto packed = at::empty({static_cast<std::int64_t>(size)}, at::kLong);
  auto* to = packed.mutable_data_ptr<std::int64_t>();
  for (const auto* part : parts) to = std::ranges::copy(*part, to).out;
  return packed.to(device);
}

}  // namespace

c10::intrusive_ptr<RowLayout> lay_out_rows(const at::Tensor& token, const at::Tensor& expert,
                                           std::int64_t tokens, std::int64_t experts, bool padded) {
  const auto token_host = token.cpu().contiguous();
  const auto expert_host = expert.cpu().contiguous();
  const auto token_of = host_span(token_host);
  const auto expert_of = host_span(expert_host);

  auto layout = c10::make_intrusive<RowLayout>();
  layout->tokens = tokens;
  layout->count = count_keys(expert_of, experts, "expert");
  layout->start = layout->count;
  if (padded) std::ranges::fill(layout->start, std::ranges::max(layout->count));
  layout->rows = exclusive_sum(layout->start);

  const auto row = at::empty(token_host.sizes(), token_host.options());
  auto* row_of = row.mutable_data_ptr<std::int64_t>();
  layout->source.assign(static_cast<std::size_t>(layout->rows), -1);
  layout->row_token = layout->source;
  layout->token_start = count_keys(token_of, tokens, "token");
  layout->token_start.push_back(0);
  exclusive_sum(layout->token_start);
  layout->token_rows.resize(token_of.size());

  auto next_row = layout->start;
  auto next_place = layout->token_start;
  for (std::size_t a = 0; a < token_of.size(); ++a) {
    const auto r = next_row[static_cast<std::size_t>(expert_of[a])]++;
    row_of[a] = r;
    layout->source[static_cast<std::size_t>(r)] = static_cast<std::int64_t>(a);
    layout->row_token[static_cast<std::size_t>(r)] = token_of[a];
    layout->token_rows[static_cast<std::size_t>(next_place[static_cast<std::size_t>(token_of[a])]++)] = r;
  }
  layout->row = row.to(token.device());
  layout->token = token;
  if (has_cuda_kernels(token)) layout->index = pack_index(*layout, token.device());
  return layout;
}

namespace rows_reference {

namespace {

at::Tensor spread(const at::Tensor& values, const RowLayout& layout) {
  const auto shape = {layout.rows, values.size(1)};
  return values.new_zeros(shape).index_copy_(0, layout.row, values);
}

}  // namespace

at::Tensor gather_tokens(const at::Tensor& values, const RowLayout& layout) {
  return spread(values.index_select(0, layout.token), layout);
}

at::Tensor gather_assignments(const at::Tensor& values, const RowLayout& layout) {
  return spread(values, layout);
}

at::Tensor combine_rows(const at::Tensor& values, const at::Tensor& gate, const RowLayout& layout) {
  const auto type = at::toOpMathType(values.scalar_type());
  auto terms = values.index_select(0, layout.row).to(type);
  if (gate.defined()) terms.mul_(gate.unsqueeze(1));
  return at::zeros({layout.tokens, values.size(1)}, terms.options())
      .index_add_(0, layout.token, terms)
      .to(values.scalar_type());
}

std::pair<at::Tensor, at::Tensor> combine_rows_backward(const at::Tensor& grad, const at::Tensor& values,
                                                        const at::Tensor& gate, const RowLayout& layout) {
  const auto type = at::toOpMathType(values.scalar_type());
  const auto by_assignment = grad.index_select(0, layout.token).to(type);
  const auto grad_gate = (by_assignment * values.index_select(0, layout.row)).sum(1);
  return {spread((by_assignment * gate.unsqueeze(1)).to(values.scalar_type()), layout), grad_gate};
}

}  // namespace rows_reference

}  // namespace stoa::ops
