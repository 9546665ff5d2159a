#pragma once

#include <cstdint>

#include "stoa/ops/optimizer_kernels.h"

// The update rules of optimizer_kernels.h on a GPU, over all parameters in a launch or a few: parameters are
// cut into parts, and a block of threads works on a part. T is float or double. Launchers return at once,
// with the CUDA error of the launch or 0; `stream` is a cudaStream_t, all pointers are of device memory.
namespace stoa::ops::cuda {

/// Neighbouring elements of one slice of a parameter: kPartSize at most.
template <class T>
struct Part {
  T* w;
  const T* g;    ///< null counts as 0
  T* states[2];  ///< those that the rule does not have are null
  std::int64_t size, slice;
  double gradient_scale, decay;  ///< take the place of those in the rule's constants
};
constexpr std::int64_t kPartSize = 8192;

/// Parts [first_part, end_part) make up a slice; `adapts` says if LAMB scales its rate.
struct Slice {
  std::int64_t first_part, end_part;
  bool adapts;
};

/// The decay of a part shrinks weights where it is decoupled, else it is added to their gradient.
template <class T>
int adamw(const Part<T>* parts, std::int64_t count, const AdamWConstants& constants, double lr,
          bool decoupled, void* stream);

template <class T>
int sgd(const Part<T>* parts, std::int64_t count, const SgdConstants& constants, void* stream);

/// LAMB in three launches. rate(slice) = lr min(|w| / |u|, largest_ratio), lr where it does not adapt or a
/// norm is 0. Squares are summed in fp64, in an order that depends on the sizes alone. `squares` [count] and
/// `rates` [slices] are scratch.
template <class T>
int lamb(const Part<T>* parts, std::int64_t count, const Slice* slices, std::int64_t slice_count,
         const LambConstants& constants, double lr, double largest_ratio, LambSquares* squares, double* rates,
         void* stream);

}  // namespace stoa::ops::cuda
