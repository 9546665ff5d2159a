#pragma once

#include <filesystem>

#include "stoa/base/json.h"

namespace stoa::cli {

/// Trains what the [comparison] of a finished run's recipe asks for: the recipe at `factors` times its batch,
/// its settings scaled by each of `rules` (optim/scaling.h). n2_lambda and cowclip come with what they were
/// published with: rows drawn with deviation 0.01, a warm-up of the dense rate over the first epoch, and
/// (cowclip) rows clipped. Runs lie in RUN/comparison; those that are there go on or stand as they are.
/// Returns a row each, the run's own first: {batch, factor, rule, metrics}; an empty list where the recipe
/// compares nothing, and, with a warning, in one of several processes. Throws Interrupted that says how to go
/// on.
Json compare_rules(const std::filesystem::path& run);

/// The rows as a table for people.
std::string comparison_text(const Json& rows);

}  // namespace stoa::cli
