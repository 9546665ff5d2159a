#pragma once

#include "stoa/cli/program.h"
#include "stoa/dist/group.h"
#include "stoa/dist/mesh.h"

namespace stoa::cli {

/// How fast a group exchanges tensors.
struct GroupSpeed {
  std::string name;
  int size = 1;
  double latency_us = 0, exchange = 0, all_reduce = 0;  ///< the latter in GB/s
};
/// Measures a group, by the slowest rank of the world. Every rank of the world calls it, with its group of
/// one kind: all groups of a kind are measured at once, as training uses them.
GroupSpeed measure_group(dist::Group& world, dist::Group& group);

/// `stoa doctor --distributed`: meets the other processes, prints ranks and groups, and measures each kind of
/// group. Throws ConfigError in a process that was started alone.
void examine_processes(const Program& program, const dist::ParallelOptions& options);

}  // namespace stoa::cli
