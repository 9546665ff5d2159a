#include "stoa/data/tabular/movielens.h"

#include <algorithm>
#include <cctype>
#include <charconv>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/data/tabular/text_stream.h"

namespace stoa {

namespace fs = std::filesystem;

namespace {

fs::path find_file(const fs::path& folder, const std::string& name) {
  for (const char* ending : {".csv", ".csv.gz", ".csv.zst"})
    if (fs::exists(folder / (name + ending))) return folder / (name + ending);
  throw DataError(
      format("{}: no {}.csv, .csv.gz or .csv.zst there; name the folder of an unpacked MovieLens set",
             folder.string(), name));
}

/// "Heat (1995)" -> "1995".
std::string year_of(std::string_view title) {
  while (!title.empty() && title.back() == ' ') title.remove_suffix(1);
  if (title.size() < 6 || title.back() != ')' || title[title.size() - 6] != '(') return "";
  const std::string_view year = title.substr(title.size() - 5, 4);
  const bool digits = std::ranges::all_of(year, [](char c) { return c >= '0' && c <= '9'; });
  return digits ? std::string(year) : "";
}

}  // namespace

MovieLensFiles find_movielens(const fs::path& place) {
  if (fs::is_directory(place)) return {find_file(place, "ratings"), find_file(place, "movies")};
  const fs::path folder = place.has_parent_path() ? place.parent_path() : fs::path(".");
  return {place, find_file(folder, "movies")};
}

Joins read_movies(const fs::path& file) {
  if (first_line(file) != "movieId,title,genres")
    throw DataError(
        format("{}:1, column 1: the header is not movieId,title,genres; is this MovieLens' movies file?",
               file.string()));
  Joins joins{{"genres", "year"}, {}};
  TextStream stream({file}, "movieId,title,genres", std::size_t{1} << 20);
  for (TextChunk chunk; stream.next(chunk);) {
    std::string_view text = chunk.text;
    for (std::int64_t line = chunk.first_line; !text.empty(); ++line) {
      const std::size_t end = std::min(text.find('\n'), text.size());
      std::string_view row = text.substr(0, end);
      text.remove_prefix(std::min(end + 1, text.size()));
      if (row.ends_with('\r')) row.remove_suffix(1);
      const std::string where = format("{}:{}", file.string(), line);
      const auto cells = split_line(row, ',', true, where);
      std::int64_t number = 0;
      if (cells.size() != 3)
        throw DataError(
            format("{}, column {}: 3 columns are needed", where, std::min<std::size_t>(cells.size(), 3) + 1));
      const auto [stop, error] = std::from_chars(cells[0].data(), cells[0].data() + cells[0].size(), number);
      if (error != std::errc() || stop != cells[0].data() + cells[0].size())
        throw DataError(format("{}, column 1 (movieId): not a whole number", where));
      joins.texts[number] = {cells[2], year_of(cells[1])};
    }
  }
  return joins;
}

}  // namespace stoa
