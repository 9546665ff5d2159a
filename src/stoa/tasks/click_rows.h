#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "stoa/data/tabular/encoder.h"

namespace stoa {

/// Rows to score: those of a file, or of the standard input where it is "-". Each line is a row of the raw
/// data's form (under a header that names columns, also between commas, or without one), a JSON object of raw
/// columns by name, or a JSON object {"ids": [...], "numerics": [...]} of a row that is encoded already,
/// which alone does without `encoder` (called at the first row that needs it). Empty lines are passed over.
/// Throws DataError naming file, line and what does not fit.
std::vector<EncodedRow> read_rows(const std::string& file, const std::vector<std::int64_t>& sizes,
                                  std::size_t numerics, const std::function<const RowEncoder&()>& encoder);

/// The same for text in memory; `where` stands in front of messages.
std::vector<EncodedRow> parse_rows(std::string_view text, const std::string& where,
                                   const std::vector<std::int64_t>& sizes, std::size_t numerics,
                                   const std::function<const RowEncoder&()>& encoder);

}  // namespace stoa
