#pragma once

#include <c10/util/intrusive_ptr.h>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "stoa/dist/environment.h"

namespace gloo::transport {
class Device;
}

// What groups stand on. Only the .cpp files of this folder include it: c10d's headers are large.
namespace stoa::dist {

/// How the members of one group reach one another.
struct Connection {
  c10::intrusive_ptr<c10d::Backend> cpu;                         ///< Gloo
  std::function<c10::intrusive_ptr<c10d::Backend>()> open_cuda;  ///< empty where has_nccl() is false
  c10::intrusive_ptr<c10d::Backend> cuda;                        ///< NCCL, once a tensor of a GPU was sent
  double timeout_s = 0;
  std::shared_ptr<bool> failed;  ///< set by any group of the world whose operation failed
};

/// What a process sends through, for all its groups.
using GlooDevice = std::shared_ptr<gloo::transport::Device>;

/// `interface` as in WorldOptions. Throws what Gloo throws.
GlooDevice open_gloo_device(const ProcessPlace& place, const std::string& interface);

/// Connects this process, number `rank` of `size`, with all others that call this with the same store.
/// Throws what Gloo throws.
c10::intrusive_ptr<c10d::Backend> connect_gloo(const c10::intrusive_ptr<c10d::Store>& store, int rank,
                                               int size, double timeout_s, const GlooDevice& device);

/// The same for GPUs, where has_nccl(). Connects at the first operation.
c10::intrusive_ptr<c10d::Backend> connect_nccl(const c10::intrusive_ptr<c10d::Store>& store, int rank,
                                               int size, double timeout_s);

/// True if LibTorch has NCCL, this build found its header, and there is a GPU.
bool has_nccl();

/// Seconds as c10d takes them.
std::chrono::milliseconds milliseconds(double seconds);

}  // namespace stoa::dist
