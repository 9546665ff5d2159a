// The steps of mixture_rows.h where tensors are not on a CPU: the kernels of mixture_rows_cuda.cu where they
// are built in and know the type, else ATen calls.
#include "stoa/ops/mixture_rows_cuda.h"

#include <ATen/ATen.h>

#include "stoa/ops/cuda_call.h"
#include "stoa/ops/mixture_rows.h"

namespace stoa::ops::rows_on_device {

#ifdef STOA_CUDA

namespace {

bool has_kernels(const at::Tensor& values, const RowLayout& layout) {
  const auto type = values.scalar_type();
  return values.is_cuda() && layout.index.defined() &&
         (type == at::kFloat || type == at::kDouble || type == at::kBFloat16);
}

// Starts start(stream, number of the kernel's type) on values' device.
template <class Start>
void launch_rows(const at::Tensor& values, const Start& start) {
  launch_on(values, "mixture", [&](void* stream) {
    if (values.scalar_type() == at::kDouble) return start(stream, double{});
    if (values.scalar_type() == at::kBFloat16) return start(stream, Bfloat16{});
    return start(stream, float{});
  });
}

template <class T>
const T* pointer(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<const T*>(tensor.const_data_ptr()) : nullptr;
}
template <class T>
T* target(const at::Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

// The parts of RowLayout::index
struct Index {
  explicit Index(const RowLayout& layout)
      : source(layout.index.const_data_ptr<std::int64_t>()),
        row_token(source + layout.rows),
        token_start(row_token + layout.rows),
        token_rows(token_start + layout.tokens + 1) {}
  const std::int64_t *source, *row_token, *token_start, *token_rows;
};

at::Tensor gather(const at::Tensor& values, const std::int64_t* index, std::int64_t rows) {
  const auto from = values.contiguous();
  const auto out = at::empty({rows, from.size(1)}, from.options());
  launch_rows(from, [&]<class T>(void* stream, T) {
    return cuda::gather_rows(pointer<T>(from), index, target<T>(out), rows, from.size(1), stream);
  });
  return out;
}

}  // namespace

at::Tensor gather_tokens(const at::Tensor& values, const RowLayout& layout) {
  if (!has_kernels(values, layout)) return rows_reference::gather_tokens(values, layout);
  return gather(values, Index(layout).row_token, layout.rows);
}

at::Tensor gather_assignments(const at::Tensor& values, const RowLayout& layout) {
  if (!has_kernels(values, layout)) return rows_reference::gather_assignments(values, layout);
  return gather(values, Index(layout).source, layout.rows);
}

at::Tensor combine_rows(const at::Tensor& values, const at::Tensor& gate, const RowLayout& layout) {
  if (!has_kernels(values, layout)) return rows_reference::combine_rows(values, gate, layout);
  const auto from = values.contiguous();
  const auto weights = gate.defined() ? gate.contiguous() : gate;
  const auto width = from.size(1);
  const auto out = at::empty({layout.tokens, width}, from.options());
  const Index index(layout);
  launch_rows(from, [&]<class T>(void* stream, T) {
    return cuda::combine_rows(pointer<T>(from), pointer<Math<T>>(weights), index.source, index.token_start,
                              index.token_rows, target<T>(out), layout.tokens, width, stream);
  });
  return out;
}

std::pair<at::Tensor, at::Tensor> combine_rows_backward(const at::Tensor& grad, const at::Tensor& values,
                                                        const at::Tensor& gate, const RowLayout& layout) {
  if (!has_kernels(values, layout)) return rows_reference::combine_rows_backward(grad, values, gate, layout);
  const auto from = grad.contiguous(), rows = values.contiguous(), weights = gate.contiguous();
  const auto grad_values = at::empty_like(rows), grad_gate = at::empty_like(weights);
  const Index index(layout);
  launch_rows(rows, [&]<class T>(void* stream, T) {
    return cuda::combine_rows_backward(pointer<T>(from), pointer<T>(rows), pointer<Math<T>>(weights),
                                       index.source, index.row_token, target<T>(grad_values),
                                       target<Math<T>>(grad_gate), layout.rows, rows.size(1), stream);
  });
  return {grad_values, grad_gate};
}

#else

at::Tensor gather_tokens(const at::Tensor& values, const RowLayout& layout) {
  return rows_reference::gather_tokens(values, layout);
}

at::Tensor gather_assignments(const at::Tensor& values, const RowLayout& layout) {
  return rows_reference::gather_assignments(values, layout);
}

at::Tensor combine_rows(const at::Tensor& values, const at::Tensor& gate, const RowLayout& layout) {
  return rows_reference::combine_rows(values, gate, layout);
}

std::pair<at::Tensor, at::Tensor> combine_rows_backward(const at::Tensor& grad, const at::Tensor& values,
                                                        const at::Tensor& gate, const RowLayout& layout) {
  return rows_reference::combine_rows_backward(grad, values, gate, layout);
}

#endif

}  // namespace stoa::ops::rows_on_device
