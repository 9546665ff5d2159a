#pragma once

#include <barrier>
#include <cstdint>
#include <thread>
#include <vector>

// As much of CUDA as the .cu files of ops/ use, on the CPU: a test that includes this header and then a .cu
// file runs its kernels without a GPU and without nvcc. The blocks of a launch run one after the other; each
// thread of a block is a thread of the CPU, so a barrier that not all of them reach hangs, as on a GPU it
// may.
#define __global__
#define __device__
#define __shared__ static  // of one block at a time

struct dim3 {
  dim3() = default;
  explicit dim3(unsigned size) : x(size) {}
  unsigned x = 1;
};
using cudaStream_t = void*;
enum cudaError_t { cudaSuccess, cudaErrorInvalidConfiguration = 9 };
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  cudaStream_t stream = nullptr;
};

inline thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

inline std::barrier<>* block_barrier = nullptr;
/// Launches get no more blocks than this, so that kernels have to loop over what is left.
inline unsigned most_blocks = ~0U;

}  // namespace emulation

inline cudaError_t cudaGetLastError() {
  return cudaSuccess;
}

inline void __syncthreads() {
  emulation::block_barrier->arrive_and_wait();
}

template <class M>
M __shfl_xor_sync(unsigned, M value, int mask) {
  static M lanes[2][1024];  // in turns, so that one barrier a call is enough
  static thread_local unsigned turn = 0;
  auto& now = lanes[turn++ % 2];
  now[threadIdx.x] = value;
  __syncthreads();
  return now[threadIdx.x ^ static_cast<unsigned>(mask)];
}

template <class... Parameters>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Parameters... arguments) {
  if (config->gridDim.x == 0 || config->blockDim.x == 0 || config->blockDim.x > 1024)
    return cudaErrorInvalidConfiguration;
  const dim3 blocks(config->gridDim.x < emulation::most_blocks ? config->gridDim.x : emulation::most_blocks);
  std::barrier<> barrier(config->blockDim.x);
  emulation::block_barrier = &barrier;
  std::vector<std::jthread> threads;
  for (unsigned thread = 0; thread < config->blockDim.x; ++thread)
    threads.emplace_back([&, thread] {
      threadIdx.x = thread;
      blockDim = config->blockDim;
      gridDim = blocks;
      for (blockIdx.x = 0; blockIdx.x < blocks.x; ++blockIdx.x) {
        kernel(arguments...);
        barrier.arrive_and_wait();
      }
    });
  return cudaSuccess;
}
