#include "stoa/ops/mixture_blocks.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <vector>

#include "stoa/ops/bias_activation_kernels.h"
#include "stoa/ops/gemm.h"
#include "stoa/ops/gemm_kernels.h"
#include "stoa/ops/keep_packed.h"

namespace stoa::ops {
namespace {

constexpr std::int64_t kRowsWorthPacking = 96;  // of an expert: fewer do not pay for copying its weights
constexpr std::int64_t kFewRows = 2048;
constexpr std::int64_t kColumns = 512;  // of a result that one piece of work makes

/// Neighbouring rows of one expert.
struct Block {
  std::int64_t expert, first, count;
};

std::vector<Block> cut(const RowLayout& layout, std::int64_t size) {
  std::vector<Block> blocks;
  for (std::int64_t e = 0; e < std::ssize(layout.start); ++e) {
    const auto i = static_cast<std::size_t>(e);
    for (std::int64_t done = 0; done < layout.count[i]; done += size)
      blocks.push_back({e, layout.start[i] + done, std::min(size, layout.count[i] - done)});
  }
  return blocks;
}

/// Calls work(number, block) for each block on all threads.
template <class Work>
void for_each(const std::vector<Block>& blocks, const Work& work) {
  std::vector<std::int64_t> costs;
  for (const auto& block : blocks) costs.push_back(block.count);
  share_out(costs, [&](std::int64_t i) { work(i, blocks[static_cast<std::size_t>(i)]); });
}

const float* pointer(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.const_data_ptr<float>() : nullptr;
}

/// Stacked weights [experts, k, n] as right-hand sides, or their transposes [experts, n, k].
class Stacked {
 public:
  Stacked(const at::Tensor& weights, bool transposed, Operands operands, std::int64_t rows)
      : data_(pointer(weights)), k_(weights.size(1)), n_(weights.size(2)) {
    const std::int64_t experts = weights.size(0);
    if (transposed)
      packed_ = pack(data_, experts, n_, k_, true, operands);
    else if (rows / experts >= kRowsWorthPacking || operands != Operands::kFloat || KeepPacked::active())
      packed_ = pack_for(data_, experts, k_, n_, false, operands, rows);
  }
  RightHandSide operator[](std::int64_t expert) const {
    return packed_.empty() ? RightHandSide::row_major(data_ + expert * k_ * n_, k_, n_) : packed_[expert];
  }

 private:
  const float* data_;
  std::int64_t k_, n_;
  PackedMatrices packed_;
};

void gather(const float* x, const RowLayout& layout, const Block& block, std::int64_t width, float* to) {
  for (std::int64_t r = 0; r < block.count; ++r)
    std::copy_n(x + layout.row_token[static_cast<std::size_t>(block.first + r)] * width, width,
                to + r * width);
}

void multiply(float* values, const float* mask, std::int64_t count) {
  if (mask == nullptr) return;
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) values[i] *= mask[i];
}

/// A part of `tensor` [rows, width], which is kept, or of `scratch`, which is not.
float* place(const at::Tensor& tensor, std::int64_t first, std::int64_t count, std::int64_t width,
             std::vector<float>& scratch) {
  if (tensor.defined()) return tensor.mutable_data_ptr<float>() + first * width;
  scratch.resize(static_cast<std::size_t>(count * width));
  return scratch.data();
}

/// Sums of the blocks' rows `partial` [blocks, width] by expert, in order of the blocks.
at::Tensor sum_by_expert(const at::Tensor& partial, const std::vector<Block>& blocks, std::int64_t experts) {
  const std::int64_t width = partial.size(1);
  const auto sums = at::zeros({experts, width}, partial.options());
  for (std::size_t i = 0; i < blocks.size(); ++i)
    add_columns(pointer(partial) + static_cast<std::int64_t>(i) * width,
                sums.mutable_data_ptr<float>() + blocks[i].expert * width, 1, width);
  return sums;
}

/// A row's share of the result's gradient, gate * grad[token], and the gate's own gradient.
void split_gradient(const float* grad, const float* behind, const float* gate, const RowLayout& layout,
                    const Block& block, std::int64_t width, float* rows, float* grad_gate) {
  for (std::int64_t r = 0; r < block.count; ++r) {
    const auto row = static_cast<std::size_t>(block.first + r);
    const float* const from = grad + layout.row_token[row] * width;
    const float* const value = behind + (block.first + r) * width;
    float* const to = rows + r * width;
    const float weight = gate[layout.source[row]];
    float dot = 0;
#pragma omp simd reduction(+ : dot)
    for (std::int64_t d = 0; d < width; ++d) {
      dot += from[d] * value[d];
      to[d] = weight * from[d];
    }
    grad_gate[layout.source[row]] = dot;
  }
}

/// One of the experts' two layers for rows that lie by expert, cut by columns too: for so few rows that
/// blocks of rows alone would leave threads without work.
void layer_of_few(const float* from, const Stacked& w, const at::Tensor& bias, Activation activation,
                  const RowLayout& layout, const at::Tensor& to) {
  constexpr std::int64_t kRows = 128;
  const std::int64_t k = w[0].k, n = w[0].n, across = (n + kColumns - 1) / kColumns;
  const auto blocks = cut(layout, kRows);
  std::vector<std::int64_t> costs;
  for (const auto& block : blocks) costs.insert(costs.end(), static_cast<std::size_t>(across), block.count);
  share_out(costs, [&](std::int64_t i) {
    const auto [expert, first, count] = blocks[static_cast<std::size_t>(i / across)];
    const std::int64_t column = i % across * kColumns, columns = std::min(kColumns, n - column);
    float* const out = to.mutable_data_ptr<float>() + first * n + column;
    gemm_rows(from + first * k, k, count, w[expert].columns(column, columns), out, n, false);
    for (std::int64_t r = 0; r < count; ++r)
      bias_activation_forward(out + r * n, pointer(bias) + expert * n + column, out + r * n, 1, columns,
                              static_cast<std::int64_t>(activation));
  });
}

}  // namespace

bool can_use_blocks(const at::Tensor& x, const ExpertWeights& weights) {
  return has_gemm_blocks() && x.is_cpu() && x.scalar_type() == at::kFloat &&
         weights.w_in.scalar_type() == at::kFloat && weights.w_in.numel() > 0 && weights.w_out.numel() > 0;
}

ExpertTrace blocks_forward(const at::Tensor& x, const ExpertWeights& weights, const RowLayout& layout,
                           const MixtureSettings& settings, const RowMasks& masks, bool keep) {
  const std::int64_t dim = weights.w_in.size(1), hidden = weights.w_in.size(2), out = weights.w_out.size(2);
  const auto operands = choose_operands(settings.bf16);
  const Stacked w_in(weights.w_in, false, operands, layout.rows),
      w_out(weights.w_out, false, operands, layout.rows);
  ExpertTrace trace;
  if (keep) {
    trace.hidden_before = at::empty({layout.rows, hidden}, x.options());
    trace.hidden_behind = at::empty({layout.rows, hidden}, x.options());
    if (settings.output != Activation::kNone)
      trace.output_before = at::empty({layout.rows, out}, x.options());
  }
  trace.output_behind = at::empty({layout.rows, out}, x.options());
  if (!keep && layout.rows <= kFewRows && !masks.hidden.defined() && !masks.output.defined()) {
    const auto rows = gather_tokens(x, layout), h = at::empty({layout.rows, hidden}, x.options());
    layer_of_few(pointer(rows), w_in, weights.b_in, settings.hidden, layout, h);
    layer_of_few(pointer(h), w_out, weights.b_out, settings.output, layout, trace.output_behind);
    return trace;
  }
  for_each(cut(layout, rows_at_once(dim + 2 * hidden + out)), [&](std::int64_t, const Block& block) {
    thread_local std::vector<float> input, before, behind, output_before;
    const auto [expert, first, count] = block;
    input.resize(static_cast<std::size_t>(count * dim));
    gather(pointer(x), layout, block, dim, input.data());
    float* const h = place(trace.hidden_before, first, count, hidden, before);
    float* const a = keep ? place(trace.hidden_behind, first, count, hidden, behind) : h;
    gemm_rows(input.data(), dim, count, w_in[expert], h, hidden, false);
    bias_activation_forward(h, pointer(weights.b_in) + expert * hidden, a, count, hidden,
                            static_cast<std::int64_t>(settings.hidden));
    if (masks.hidden.defined()) multiply(a, pointer(masks.hidden) + first * hidden, count * hidden);
    float* const y = trace.output_behind.mutable_data_ptr<float>() + first * out;
    float* const o =
        trace.output_before.defined() ? place(trace.output_before, first, count, out, output_before) : y;
    gemm_rows(a, hidden, count, w_out[expert], o, out, false);
    bias_activation_forward(o, pointer(weights.b_out) + expert * out, y, count, out,
                            static_cast<std::int64_t>(settings.output));
    if (masks.output.defined()) multiply(y, pointer(masks.output) + first * out, count * out);
  });
  return trace;
}

BlockGradients blocks_backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& gate,
                               const ExpertTrace& trace, const ExpertWeights& weights,
                               const RowLayout& layout, const MixtureSettings& settings,
                               const RowMasks& masks, const ExpertNeeds& needs) {
  const std::int64_t experts = weights.w_in.size(0), dim = weights.w_in.size(1);
  const std::int64_t hidden = weights.w_in.size(2), out = weights.w_out.size(2);
  const auto rows_of = [&](bool kept, std::int64_t width) {
    return kept ? at::empty({layout.rows, width}, x.options()) : at::Tensor();
  };
  const auto blocks = cut(layout, rows_at_once(dim + 2 * hidden + out));
  const auto count_blocks = std::ssize(blocks);
  const auto operands = choose_operands(settings.bf16);
  const Stacked w_out_t(weights.w_out, true, operands, layout.rows),
      w_in_t(weights.w_in, true, operands, layout.rows);
  const auto input = rows_of(needs.w_in, dim), grad_hidden = rows_of(needs.w_in, hidden),
             grad_output = rows_of(needs.w_out, out);
  const auto sum_hidden = at::zeros({count_blocks, hidden}, x.options()),
             sum_output = at::zeros({count_blocks, out}, x.options());
  BlockGradients result;
  result.rows = rows_of(needs.rows, dim);
  result.gate = at::zeros_like(gate);
  for_each(blocks, [&](std::int64_t number, const Block& block) {
    thread_local std::vector<float> scratch_hidden, scratch_output;
    const auto [expert, first, count] = block;
    if (needs.w_in) gather(pointer(x), layout, block, dim, input.mutable_data_ptr<float>() + first * dim);
    float* const go = place(grad_output, first, count, out, scratch_output);
    split_gradient(pointer(grad), pointer(trace.output_behind), pointer(gate), layout, block, out, go,
                   result.gate.mutable_data_ptr<float>());
    if (masks.output.defined()) multiply(go, pointer(masks.output) + first * out, count * out);
    float* const sum_o = sum_output.mutable_data_ptr<float>() + number * out;
    if (settings.output == Activation::kNone)
      add_columns(go, sum_o, count, out);
    else
      bias_activation_backward(go, pointer(trace.output_before) + first * out,
                               pointer(weights.b_out) + expert * out, go, sum_o, count, out,
                               static_cast<std::int64_t>(settings.output));
    if (!needs.rows && !needs.w_in && !needs.b_in) return;
    float* const gh = place(grad_hidden, first, count, hidden, scratch_hidden);
    gemm_rows(go, out, count, w_out_t[expert], gh, hidden, false);
    if (masks.hidden.defined()) multiply(gh, pointer(masks.hidden) + first * hidden, count * hidden);
    bias_activation_backward(gh, pointer(trace.hidden_before) + first * hidden,
                             pointer(weights.b_in) + expert * hidden, gh,
                             sum_hidden.mutable_data_ptr<float>() + number * hidden, count, hidden,
                             static_cast<std::int64_t>(settings.hidden));
    if (needs.rows)
      gemm_rows(gh, hidden, count, w_in_t[expert], result.rows.mutable_data_ptr<float>() + first * dim, dim,
                false);
  });
  if (needs.b_in) result.weights.b_in = sum_by_expert(sum_hidden, blocks, experts);
  if (needs.b_out) result.weights.b_out = sum_by_expert(sum_output, blocks, experts);
  if (needs.w_in)
    result.weights.w_in = transposed_products(input, grad_hidden, layout.start, layout.count, operands);
  if (needs.w_out)
    result.weights.w_out =
        transposed_products(trace.hidden_behind, grad_output, layout.start, layout.count, operands);
  return result;
}

}  // namespace stoa::ops
