#include "stoa/train/exhibit.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "stoa/base/errors.h"
#include "support/thrown.h"

namespace stoa {
namespace {

// Through text, as evaluation.json does.
Exhibit copied(const Exhibit& exhibit) {
  return Exhibit::from_json(Json::parse(exhibit.to_json().dump()));
}

TEST(Exhibit, TableComesBack) {
  const Exhibit exhibit{"title", "caption", TableExhibit{{"a", "b"}, {{"1", "<2>"}, {"3", "ü"}}}};
  const Exhibit copy = copied(exhibit);
  EXPECT_EQ(copy.title, "title");
  EXPECT_EQ(copy.caption, "caption");
  EXPECT_EQ(std::get<TableExhibit>(copy.content).headings, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(std::get<TableExhibit>(copy.content).rows[1], (std::vector<std::string>{"3", "ü"}));
}

TEST(Exhibit, HeatMapComesBack) {
  const HeatMapExhibit map{"row", "column", {"r"}, {"x", "y"}, {0.1, 2e-300}, true};
  const auto copy = std::get<HeatMapExhibit>(copied({"t", "", map}).content);
  EXPECT_EQ(copy.row_title, "row");
  EXPECT_EQ(copy.column_title, "column");
  EXPECT_EQ(copy.columns, map.columns);
  EXPECT_EQ(copy.values, map.values);
  EXPECT_TRUE(copy.percent);
}

TEST(Exhibit, LinesComeBackWithTheirGaps) {
  const double gap = std::numeric_limits<double>::quiet_NaN();
  const LinesExhibit lines{"x", "y", {{"one", {1, 2, 3}, {0.5, gap, 0.7}}}};
  const auto copy = std::get<LinesExhibit>(copied({"t", "", lines}).content);
  EXPECT_EQ(copy.lines[0].name, "one");
  EXPECT_EQ(copy.lines[0].x, lines.lines[0].x);
  EXPECT_EQ(copy.lines[0].y[2], 0.7);
  EXPECT_TRUE(std::isnan(copy.lines[0].y[1]));
}

TEST(Exhibit, GalleryComesBackByteByByte) {
  GalleryExhibit gallery;
  for (int i = 0; i < 256; ++i)
    gallery.pictures.resize(1, {{}, "caption", false}),
        gallery.pictures[0].png.push_back(static_cast<std::uint8_t>(i));
  const auto copy = std::get<GalleryExhibit>(copied({"t", "", gallery}).content);
  EXPECT_EQ(copy.pictures[0].png, gallery.pictures[0].png);
  EXPECT_EQ(copy.pictures[0].caption, "caption");
  EXPECT_FALSE(copy.pictures[0].good);
}

TEST(Exhibit, RefusesAnUnknownKind) {
  Json json = Exhibit{"shown", "", TableExhibit{}}.to_json();
  json["kind"] = "hologram";
  const auto message = test::thrown<DataError>([&] { Exhibit::from_json(json); });
  STOA_EXPECT_CONTAINS(message, "`shown`");
  STOA_EXPECT_CONTAINS(message, "hologram");
}

TEST(Exhibit, RefusesAMapWithMissingCells) {
  const HeatMapExhibit map{"", "", {"a", "b"}, {"c", "d"}, {1, 2, 3}, false};
  STOA_EXPECT_CONTAINS(test::thrown<DataError>([&] {
                         copied({"map", "", map});
                       }),
                       "3 values in 2 rows x 2 columns");
}

TEST(Exhibit, RefusesARowThatIsTooShort) {
  const TableExhibit table{{"a", "b"}, {{"1", "2"}, {"3"}}};
  STOA_EXPECT_CONTAINS(test::thrown<DataError>([&] {
                         copied({"t", "", table});
                       }),
                       "row 1 has 1 cells under 2 headings");
}

TEST(Exhibit, RefusesALineOfUnequalLengths) {
  const LinesExhibit lines{"x", "y", {{"one", {1, 2}, {1}}}};
  STOA_EXPECT_CONTAINS(test::thrown<DataError>([&] { copied({"t", "", lines}); }), "2 x and 1 y");
}

TEST(Exhibit, RefusesWhatIsNoExhibit) {
  test::thrown<DataError>([] { Exhibit::from_json(Json::array()); });
  test::thrown<DataError>([] { Exhibit::from_json({{"title", "t"}, {"caption", 3}}); });
}

}  // namespace
}  // namespace stoa
