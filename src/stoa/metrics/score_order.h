#pragma once

#include <cstdint>
#include <vector>

namespace stoa::metrics {

/// A score and its label in one number, that compares as the score does: bits 1 to 32 hold the score's order,
/// bit 0 the label. Internal to metrics/.
using ScoredLabel = std::uint64_t;

/// Scores and labels (0 or 1) in rising order of the scores, rows of equal score in the order they came in;
/// -0 equals 0. On all threads; the result does not depend on how many there are. NaN must have been refused
/// before.
std::vector<ScoredLabel> sort_by_score(const float* scores, const std::uint8_t* labels, std::int64_t rows);

/// The score of one of them.
float score_of(ScoredLabel row);

/// Where the rows end that share the score of row `begin`.
std::int64_t end_of_ties(const std::vector<ScoredLabel>& sorted, std::int64_t begin);

}  // namespace stoa::metrics
