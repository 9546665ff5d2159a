#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>

// Short measurements of this machine for `stoa doctor`; each takes about two seconds at most.
namespace stoa::cli {

/// A square matrix product: the fastest of several runs.
struct GemmSpeed {
  std::int64_t size = 0;
  double gflops = 0;
};
/// The best of sizes 512, 1024 and 2048 in `type`; larger sizes are left out where a smaller one is slow
/// already.
GemmSpeed measure_gemm(c10::ScalarType type);

/// Bytes read and written a second, in GB/s, of copying a large tensor with all threads.
double measure_copy();

/// The same of c = a + b where c is newly allocated at each use, as operators do.
double measure_add();

/// measure_add() under glibc's own thresholds, which hand large blocks back to the kernel at each free.
/// Stoa's are set again afterwards. 0 where the C library is not glibc.
double measure_add_with_default_allocator();

/// True if a large block is given from memory the process keeps, which is what configure_allocator() asks
/// for.
bool allocator_keeps_memory();

/// Number of threads that took part in an at::parallel_for over many pieces.
int count_parallel_threads();

}  // namespace stoa::cli
