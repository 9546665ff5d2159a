#pragma once

#include <filesystem>
#include <vector>

namespace stoa {

/// Writes one self-contained HTML page about one or several runs: side-by-side table, loss and metric curves, the exhibits
/// of each run's evaluation, statistics of the model by depth and step. No scripts, fonts or pictures from elsewhere; reads
/// well on a phone, in the dark and on paper. Throws ConfigError where a folder is not a run.
void write_report(const std::vector<std::filesystem::path>& runs, const std::filesystem::path& html);

}  // namespace stoa
