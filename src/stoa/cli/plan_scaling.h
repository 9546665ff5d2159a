#pragma once

#include "stoa/cli/plan_text.h"
#include "stoa/train/plan_scaling.h"

namespace stoa::cli {

/// Time, efficiency and memory on 1 to 1024 devices: one table for each way the work may grow with them, one
/// column for each way to share it out. `speeds` says, in words, what the machine is.
BlockTable scaling_table(const PlanModel& model, const PlanMachine& machine, const std::string& speeds);

}  // namespace stoa::cli
