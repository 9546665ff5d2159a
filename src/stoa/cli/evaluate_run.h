#pragma once

#include "stoa/train/trainer.h"

namespace stoa::cli {

/// Measures a loaded run on its evaluation data, showing progress. Throws Interrupted on Ctrl-C.
Evaluation evaluate_run(LoadedRun& loaded);

}  // namespace stoa::cli
