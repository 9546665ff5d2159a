#pragma once

#include <ATen/core/Tensor.h>

#ifdef STOA_CUDA
#include <c10/core/DeviceGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#endif

// How operators on tensors call the launchers of the NAME_cuda.cu files, which know no LibTorch.
namespace stoa::ops {

/// True where the kernels of the .cu files are built in and can read `tensor`.
inline bool has_cuda_kernels([[maybe_unused]] const at::Tensor& tensor) {
#ifdef STOA_CUDA
  return tensor.is_cuda();
#else
  return false;
#endif
}

#ifdef STOA_CUDA
/// Runs launch(stream) on the device of `tensor` and its current stream. Throws DeviceError if it returns a
/// CUDA error.
template <class Launch>
void launch_on(const at::Tensor& tensor, const char* what, const Launch& launch) {
  const c10::DeviceGuard device(tensor.device());
  const int status = launch(static_cast<void*>(c10::cuda::getCurrentCUDAStream().stream()));
  if (status == 0) return;
  throw DeviceError(
      format("{}: a kernel could not be started on {}: CUDA error {} ({}); was Stoa built for this GPU "
             "(CMAKE_CUDA_ARCHITECTURES), and is the GPU free of other errors?",
             what, tensor.device().str(), status, cudaGetErrorString(static_cast<cudaError_t>(status))));
}
#endif

}  // namespace stoa::ops
