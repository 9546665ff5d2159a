#include "stoa/train/html.h"

#include <gtest/gtest.h>

#include <cmath>

#include "support/html_check.h"
#include "support/thrown.h"

namespace stoa::html {
namespace {

using test::count_of;
using test::markup_fault;

TEST(Html, EscapesWhatMarkupIsMadeOf) {
  EXPECT_EQ(escape("a<b> & \"c\" 'd' ü"), "a&lt;b&gt; &amp; &quot;c&quot; &#39;d&#39; ü");
}

TEST(Html, NumbersAreForPeople) {
  EXPECT_EQ(number(41034), "41,034");
  EXPECT_EQ(number(0.87312), "0.8731");
  EXPECT_EQ(number(5321.7), "5,322");
  EXPECT_EQ(number(3.14e-5), "3.14e-05");
  EXPECT_EQ(number(0), "0");
  EXPECT_EQ(number(std::nan("")), "–");
}

TEST(Html, LargeNumbersHavePrefixes) {
  EXPECT_EQ(si_number(17581285376), "17.58 G");
  EXPECT_EQ(si_number(999.96), "1 k");
  EXPECT_EQ(si_number(320), "320");
}

TEST(Html, LengthCountsCharacters) {
  EXPECT_EQ(length("größe"), 5U);
}

TEST(Html, TheCheckOfTheseTestsFindsFaults) {
  EXPECT_NE(markup_fault("<p><b></p>"), "");
  EXPECT_NE(markup_fault("<p>a & b</p>"), "");
  EXPECT_NE(markup_fault("<p>a < b</p>"), "");
  EXPECT_NE(markup_fault("<p>"), "");
  EXPECT_EQ(markup_fault("<p class=\"x\">a &amp; b<br/></p>"), "");
}

TEST(Html, PagesAreWellFormedAndSelfContained) {
  const auto text = page("a <title>", element("p", "body"));
  EXPECT_EQ(markup_fault(text), "");
  STOA_EXPECT_CONTAINS(text, "<title>a &lt;title&gt;</title>");
  for (const char* outside : {"http:", "https:", "url(", "@import", "<script", "<link"})
    EXPECT_EQ(count_of(text, outside), 0U) << outside;
}

TEST(Html, TheStyleSheetKnowsDarknessPaperAndPhones) {
  for (const char* part : {"prefers-color-scheme: dark", "@media print", "@media (max-width"})
    EXPECT_NE(style_sheet().find(part), std::string_view::npos) << part;
  EXPECT_EQ(count_of(style_sheet(), "{"), count_of(style_sheet(), "}"));
}

TEST(Html, TablesHeadTheirRowsAndGroups) {
  const auto text = table({"", "a", "b"}, {{"group"}, {"row", "1", "2"}});
  EXPECT_EQ(markup_fault(text), "");
  STOA_EXPECT_CONTAINS(text, "<th scope=\"rowgroup\" colspan=\"3\">group</th>");
  STOA_EXPECT_CONTAINS(text, "<th scope=\"row\">row</th><td>1</td><td>2</td>");
}

HeatMapExhibit map_of(std::size_t size) {
  HeatMapExhibit map{"true", "given <x>", {}, {}, {}, true};
  for (std::size_t i = 0; i < size; ++i) map.rows.push_back("class " + std::to_string(i));
  map.columns = map.rows;
  for (std::size_t i = 0; i < size * size; ++i) map.values.push_back(i % (size + 1) == 0 ? 0.9 : 0.0);
  return map;
}

TEST(Html, TablesOfTextEscapeTheirCells) {
  EXPECT_EQ(text_table({{"a<", "b"}, {"c", "d&"}}, true), table({"a&lt;", "b"}, {{"c", "d&amp;"}}, true));
}

TEST(Html, HeatMapsShowValuesTitlesAndNames) {
  HeatMapExhibit map = map_of(3);
  map.values[1] = 0.104;
  const auto text = heat_map(map);
  EXPECT_EQ(markup_fault(text), "");
  EXPECT_EQ(count_of(text, ">90</td>"), 3U);
  EXPECT_EQ(count_of(text, ">10</td>"), 1U);
  EXPECT_EQ(count_of(text, ">·</td>"), 5U);
  EXPECT_EQ(count_of(text, "class 2"), 2U);
  STOA_EXPECT_CONTAINS(text, "given &lt;x&gt;");
  STOA_EXPECT_CONTAINS(text, "<span>90 %</span>");
}

TEST(Html, TheStrongestCellHasTheStrongestColour) {
  HeatMapExhibit map{"", "", {"a"}, {"b", "c", "d"}, {0, 2, 1}, false};
  const auto text = heat_map(map);
  EXPECT_LT(text.find("--v:0%"), text.find("class=\"hot\" style=\"--v:100%\""));
  EXPECT_LT(text.find("--v:100%"), text.find("--v:50%"));
}

TEST(Html, LargeHeatMapsKeepValuesForThePointer) {
  const auto text = heat_map(map_of(kLargestValued + 1));
  EXPECT_EQ(markup_fault(text), "");
  EXPECT_EQ(count_of(text, ">90</td>"), 0U);
  EXPECT_EQ(count_of(text, "title=\"class 4, class 4: 90\""), 1U);
}

TEST(Html, HeatMapsOfNothingAndOfNoNumbersAreDrawn) {
  EXPECT_EQ(markup_fault(heat_map({})), "");
  const auto text = heat_map({"", "", {"a"}, {"b"}, {std::nan("")}, false});
  STOA_EXPECT_CONTAINS(text, ">–</td>");
}

TEST(Html, GalleriesHoldTheirPicturesAndMarks) {
  GalleryExhibit shown;
  shown.pictures = {{{'f', 'o', 'o'}, "right & 41 %", true}, {{'b'}, "wrong", false}};
  const auto text = gallery(shown);
  EXPECT_EQ(markup_fault(text), "");
  STOA_EXPECT_CONTAINS(text, "src=\"data:image/png;base64,Zm9v\"");
  STOA_EXPECT_CONTAINS(text, "right &amp; 41\u00a0%");
  EXPECT_EQ(count_of(text, "✓"), 1U);
  EXPECT_EQ(count_of(text, "✗"), 1U);
}

}  // namespace
}  // namespace stoa::html
