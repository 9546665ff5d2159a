#pragma once

#include <ATen/core/Tensor.h>
#include <torch/custom_class.h>

#include <cstdint>
#include <utility>
#include <vector>

// How a mixture's rows lie in memory, and the steps around the experts' products: gather, combine, and their
// gradients. Internal to ops/mixture*.cpp and its tests.
namespace stoa::ops {

/// One block of rows an expert, in order of experts. The sorted layout has one row an assignment; the padded
/// layout has as many rows for each expert as the busiest one needs. Lives on the host but for `row` and
/// `token`.
struct RowLayout : torch::CustomClassHolder {
  std::int64_t tokens = 0;
  std::int64_t rows = 0;
  std::vector<std::int64_t> start;        ///< [experts] first row of an expert
  std::vector<std::int64_t> count;        ///< [experts] rows an expert really has
  std::vector<std::int64_t> source;       ///< [rows] assignment of a row, -1 for padding
  std::vector<std::int64_t> row_token;    ///< [rows] token of a row, -1 for padding
  std::vector<std::int64_t> token_start;  ///< [tokens + 1] where a token's rows begin in token_rows
  std::vector<std::int64_t> token_rows;   ///< [assignments] rows of each token, in order of assignment
  at::Tensor row;                         ///< [assignments] row of an assignment, on the assignments' device
  at::Tensor token;                       ///< [assignments] token of an assignment, likewise
  at::Tensor index;                       ///< source to token_rows on a GPU, for its kernels; else undefined
};

/// Counting sort of assignments by expert and by token, O(assignments + tokens + experts).
/// Throws Error for a token outside [0, tokens) or an expert outside [0, experts).
c10::intrusive_ptr<RowLayout> lay_out_rows(const at::Tensor& token, const at::Tensor& expert,
                                           std::int64_t tokens, std::int64_t experts, bool padded);

/// values [tokens, n] -> [rows, n]: every row's token; padding is 0.
at::Tensor gather_tokens(const at::Tensor& values, const RowLayout& layout);

/// values [assignments, n] -> [rows, n]: every row's assignment; padding is 0.
at::Tensor gather_assignments(const at::Tensor& values, const RowLayout& layout);

/// values [rows, n] -> [tokens, n]: the sum over each token's rows, times gate [assignments] where that is
/// defined. Each token's terms are added in order of assignment, in fp32 for shorter types.
at::Tensor combine_rows(const at::Tensor& values, const at::Tensor& gate, const RowLayout& layout);

/// Gradient of combine_rows: for grad [tokens, n] the gradients of values [rows, n] and of gate
/// [assignments].
std::pair<at::Tensor, at::Tensor> combine_rows_backward(const at::Tensor& grad, const at::Tensor& values,
                                                        const at::Tensor& gate, const RowLayout& layout);

/// The same four steps for tensors that are not on a CPU: by the CUDA kernels in a build with STOA_CUDA, else
/// rows_reference.
namespace rows_on_device {
at::Tensor gather_tokens(const at::Tensor& values, const RowLayout& layout);
at::Tensor gather_assignments(const at::Tensor& values, const RowLayout& layout);
at::Tensor combine_rows(const at::Tensor& values, const at::Tensor& gate, const RowLayout& layout);
std::pair<at::Tensor, at::Tensor> combine_rows_backward(const at::Tensor& grad, const at::Tensor& values,
                                                        const at::Tensor& gate, const RowLayout& layout);
}  // namespace rows_on_device

/// The same four steps as ATen calls, which the kernels are tested against.
namespace rows_reference {
at::Tensor gather_tokens(const at::Tensor& values, const RowLayout& layout);
at::Tensor gather_assignments(const at::Tensor& values, const RowLayout& layout);
at::Tensor combine_rows(const at::Tensor& values, const at::Tensor& gate, const RowLayout& layout);
std::pair<at::Tensor, at::Tensor> combine_rows_backward(const at::Tensor& grad, const at::Tensor& values,
                                                        const at::Tensor& gate, const RowLayout& layout);
}  // namespace rows_reference

}  // namespace stoa::ops
