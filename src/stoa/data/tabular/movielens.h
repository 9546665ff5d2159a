#pragma once

#include <filesystem>
#include <string>

#include "stoa/data/tabular/parse.h"

namespace stoa {

/// The ratings and movies files of a MovieLens set (CSV with header, plain, .gz or .zst) beside each other in
/// a folder; `place` is the folder or the ratings file. Throws DataError where one of them is missing.
struct MovieLensFiles {
  std::filesystem::path ratings, movies;
};
MovieLensFiles find_movielens(const std::filesystem::path& place);

/// Genres ("Comedy|Romance") and year of release of each film; the year is the one in brackets at the end of
/// a title, "" where there is none. Throws DataError with file and line.
Joins read_movies(const std::filesystem::path& file);

}  // namespace stoa
