#pragma once

#include <ATen/core/Tensor.h>
#include <torch/custom_class.h>

#include <cstdint>
#include <utility>
#include <vector>

namespace stoa::ops {

/// The distinct ids of each field of a batch in rising order, field after field, and where they occur.
/// Occurrences are numbered row * fields + field.
struct DistinctIds : torch::CustomClassHolder {
  std::int64_t batch = 0, fields = 0;
  std::vector<std::int64_t> first;        ///< [fields + 1] where each field's ids begin
  std::vector<std::int64_t> ids;          ///< [distinct]
  std::vector<std::int64_t> start;        ///< [distinct + 1] where each id's occurrences begin
  std::vector<std::int32_t> occurrences;  ///< [batch * fields] by distinct id, in order of the batch
  std::vector<std::int32_t> place;        ///< [batch * fields] each occurrence's distinct id

  std::int64_t distinct() const { return static_cast<std::int64_t>(ids.size()); }
};

/// Checks ids [batch, fields], int32 or int64 on the CPU, against the tables' sizes. Throws ShapeError, or
/// DataError naming field and batch row of the first id out of range.
void check_ids(const at::Tensor& ids, const std::vector<std::int64_t>& sizes);

/// Sorts checked ids by field and id, O(batch * fields): the same for any number of threads.
c10::intrusive_ptr<DistinctIds> distinct_ids(const at::Tensor& ids, const std::vector<std::int64_t>& sizes);

/// rows [distinct, dim + 1] to where they occur: embeddings [batch, fields, dim] and linear weights [batch,
/// fields]. Differentiable once: the gradient of a row is the sum over its occurrences, in order of the
/// batch.
std::pair<at::Tensor, at::Tensor> spread_rows(const at::Tensor& rows,
                                              const c10::intrusive_ptr<DistinctIds>& where);

/// The same of plain LibTorch calls, differentiable as often as they are.
std::pair<at::Tensor, at::Tensor> spread_rows_reference(const at::Tensor& rows,
                                                        const c10::intrusive_ptr<DistinctIds>& where);

}  // namespace stoa::ops
