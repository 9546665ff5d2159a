#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "stoa/base/json.h"

namespace stoa {

/// Rows of text under headings.
struct TableExhibit {
  std::vector<std::string> headings;
  std::vector<std::vector<std::string>> rows;
};

/// A matrix drawn as coloured cells: confusion matrices, experts by depth.
struct HeatMapExhibit {
  std::string row_title, column_title;
  std::vector<std::string> rows, columns;
  std::vector<double> values;  ///< rows x columns, row by row
  bool percent = false;        ///< show values as percentages
};

/// Lines over a common axis.
struct LinesExhibit {
  struct Line {
    std::string name;
    std::vector<double> x, y;
  };
  std::string x_title, y_title;
  std::vector<Line> lines;
};

/// Pictures with captions; `good` colours the frame.
struct GalleryExhibit {
  struct Picture {
    std::vector<std::uint8_t> png;
    std::string caption;
    bool good = true;
  };
  std::vector<Picture> pictures;
};

/// Something a report shows beside the numbers. Tasks and models make them; reports draw them without knowing
/// either.
struct Exhibit {
  std::string title;
  std::string caption;
  std::variant<TableExhibit, HeatMapExhibit, LinesExhibit, GalleryExhibit> content;

  Json to_json() const;
  /// Throws DataError where the JSON is not an exhibit.
  static Exhibit from_json(const Json& json);
};

}  // namespace stoa
