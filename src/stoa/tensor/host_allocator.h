#pragma once

#include <cstdint>

namespace stoa {

/// What CPU tensors of a mebibyte and more hold.
struct LargeTensorMemory {
  std::int64_t live = 0;  ///< bytes in tensors
  std::int64_t kept = 0;  ///< bytes freed and kept for the next tensor of that size
  std::int64_t most = 0;  ///< the largest `live` so far; `live + kept` never exceeds it
};

/// Sets up the memory of CPU tensors. Call before the first tensor; main() does.
///
/// Large tensors are given back to the kernel at each free by glibc's own settings and faulted in anew at
/// each use, 1.1 to 1.35x the time of a whole training step; kept in its heap instead, they leave holes
/// between what lives longer, a quarter of the peak of a training step. So a tensor of a mebibyte or more is
/// mapped by itself, in huge pages where it is large enough for them, and once freed kept for the next of its
/// size, as long as all that is mapped stays within the largest sum of live tensors there has been: the peak
/// is that of the tensors. Smaller ones stay in glibc's heap, which is told to keep what is freed.
void configure_allocator();

/// Gives freed memory back to the kernel.
void release_kept_memory();

/// All zero before configure_allocator() and where the system is not Linux.
LargeTensorMemory large_tensor_memory();

}  // namespace stoa
