#pragma once

#include <string>

namespace stoa::cli {

/// Throws ConfigError where `stoa COMMAND`, which knows nothing of other processes, was started as several of
/// them: each would do all of it. A batch script of Slurm, which has the variables of its first task, is one.
void require_one_process(const std::string& command);

/// True in a process that was started beside another one of this machine, and has not met it yet, which says
/// the same: what is wrong with a command line or a recipe is wrong for all of them.
bool another_says_it();

}  // namespace stoa::cli
