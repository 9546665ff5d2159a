#pragma once

#include <cstdint>

#include "stoa/ops/simd.h"

// The steps of mixture_rows.h on a GPU, over rows of `width` numbers that lie one behind the other; T is
// float, double or Bfloat16, indices are those of RowLayout, and every pointer is to device memory. Launchers
// return at once, with the CUDA error of the launch or 0; `stream` is a cudaStream_t.
namespace stoa::ops::cuda {

/// out [rows, width] = values[index[row]], or 0 where the index is negative: gather_tokens with row_token,
/// gather_assignments with source.
template <class T>
int gather_rows(const T* values, const std::int64_t* index, T* out, std::int64_t rows, std::int64_t width,
                void* stream);

/// out [tokens, width] = the sum of values [rows, width] over each token's rows, times gate [assignments]
/// unless that is null, in order of assignment.
template <class T>
int combine_rows(const T* values, const Math<T>* gate, const std::int64_t* source,
                 const std::int64_t* token_start, const std::int64_t* token_rows, T* out, std::int64_t tokens,
                 std::int64_t width, void* stream);

/// For grad [tokens, width] the gradients of values [rows, width] and of gate [assignments].
template <class T>
int combine_rows_backward(const T* grad, const T* values, const Math<T>* gate, const std::int64_t* source,
                          const std::int64_t* row_token, T* grad_values, Math<T>* grad_gate,
                          std::int64_t rows, std::int64_t width, void* stream);

}  // namespace stoa::ops::cuda
