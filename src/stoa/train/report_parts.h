#pragma once

#include <span>
#include <string>
#include <vector>

#include "stoa/train/run_record.h"

/// The sections of a report, as HTML.
namespace stoa::report {

/// "gradient_norm" -> "Gradient norm", "router.load" -> "Router load".
std::string spoken(const std::string& name);

/// Recipes, sizes, results and speeds: one column a run.
std::string runs_table(std::span<const RunRecord> runs);

/// The same as rows of plain text: headings, then one row a value; a row of one cell heads those below it.
std::vector<std::vector<std::string>> runs_rows(std::span<const RunRecord> runs);

/// Parameters, multiply-accumulates and activations of a run's model by part; empty where run.json does not
/// say.
std::string parts_table(const RunRecord& run);

/// Training loss and evaluation metrics over the steps, all runs in each chart; the rest of the training log,
/// folded.
std::string curves(std::span<const RunRecord> runs);

/// What the model reported of itself while training: scalars over steps, vectors by depth, matrices as maps.
std::string statistics(const RunRecord& run);

std::string exhibit(const Exhibit& exhibit);

}  // namespace stoa::report
