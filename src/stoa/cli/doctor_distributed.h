#pragma once

#include "stoa/cli/program.h"
#include "stoa/dist/mesh.h"

namespace stoa::cli {

/// `stoa doctor --distributed`: meets the other processes, prints ranks and groups, and measures each kind of
/// group. Throws ConfigError in a process that was started alone.
void examine_processes(const Program& program, const dist::ParallelOptions& options);

}  // namespace stoa::cli
