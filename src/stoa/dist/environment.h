#pragma once

#include <functional>
#include <string>

namespace stoa::dist {

/// This process among those that were started together.
struct ProcessPlace {
  int rank = 0, world = 1;              ///< among all processes
  int local_rank = 0, local_world = 1;  ///< among those of this machine
  std::string address = "127.0.0.1";    ///< where rank 0 is reached
  int port = 29500;
  bool store_is_served = false;  ///< the launcher listens at address and port itself (torchrun)
  int attempt = 0;               ///< how often the launcher has started the processes anew
  std::string launcher{};        ///< whose variables were found, e.g. "torchrun"; empty for a single process
};

/// The value of a variable, or null.
using Environment = std::function<const char*(const char*)>;

/// Reads the variables of `stoa launch` and torchrun, Open MPI, MPICH and other PMI launchers, or Slurm, in
/// this order; without any of them this is the only process. Throws ConfigError that names variable, value
/// and need where they are incomplete or out of range.
ProcessPlace read_place(const Environment& environment);
/// The same from this process's environment.
ProcessPlace read_place();

}  // namespace stoa::dist
