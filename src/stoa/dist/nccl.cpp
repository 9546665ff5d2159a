#include "stoa/dist/connection.h"

#if defined(USE_C10D_NCCL) && __has_include(<nccl.h>)
#include <ATen/Context.h>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#define STOA_HAS_NCCL
#endif

namespace stoa::dist {

#ifdef STOA_HAS_NCCL

bool has_nccl() {
  return at::hasCUDA();
}

c10::intrusive_ptr<c10d::Backend> connect_nccl(const c10::intrusive_ptr<c10d::Store>& store, int rank,
                                               int size, double timeout_s) {
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = milliseconds(timeout_s);
  return c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, size, options);
}

#else

bool has_nccl() {
  return false;
}

c10::intrusive_ptr<c10d::Backend> connect_nccl(const c10::intrusive_ptr<c10d::Store>&, int, int, double) {
  return nullptr;
}

#endif

}  // namespace stoa::dist
