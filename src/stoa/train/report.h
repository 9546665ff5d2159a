#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace stoa {

/// Writes one self-contained HTML page about one or several runs: side-by-side table, loss and metric curves,
/// the exhibits of each run's evaluation, statistics of the model by depth and step. No scripts, fonts or
/// pictures from elsewhere; reads well on a phone, in the dark and on paper. Returns the table as rows of
/// plain text: headings, then one row a value; a row of one cell heads those below it. Throws ConfigError
/// where a folder is not a run.
std::vector<std::vector<std::string>> write_report(const std::vector<std::filesystem::path>& runs,
                                                   const std::filesystem::path& html);

}  // namespace stoa
