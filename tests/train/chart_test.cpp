#include "stoa/train/chart.h"

#include <gtest/gtest.h>

#include <cmath>
#include <regex>

#include "support/html_check.h"
#include "support/thrown.h"

namespace stoa::html {
namespace {

using test::count_of;
using test::markup_fault;

ChartLine line(const std::string& name, const std::vector<double>& y, int colour = 0) {
  ChartLine result{.name = name, .colour = colour};
  for (std::size_t i = 0; i < y.size(); ++i) result.x.push_back(static_cast<double>(i));
  result.y = y;
  return result;
}

TEST(Chart, TicksAreRoundAndCoverTheRange) {
  EXPECT_EQ(round_ticks(0, 10, 5), (std::vector<double>{0, 2, 4, 6, 8, 10}));
  EXPECT_EQ(round_ticks(3, 480, 5), (std::vector<double>{0, 100, 200, 300, 400, 500}));
  const auto ticks = round_ticks(0.71, 0.873, 5);
  EXPECT_NEAR(ticks.front(), 0.70, 1e-12);
  EXPECT_NEAR(ticks.back(), 0.90, 1e-12);
}

TEST(Chart, SmoothingKeepsALineAndItsEnds) {
  EXPECT_EQ(smoothed({1, 2, 3, 4, 5}, 2), (std::vector<double>{1, 2, 3, 4, 5}));
  EXPECT_EQ(smoothed({0, 3, 0}, 1), (std::vector<double>{0, 1, 0}));
  EXPECT_TRUE(smoothed({}, 3).empty());
}

TEST(Chart, LinesAreDrawnWithTicksTitlesAndWords) {
  const auto svg =
      line_chart({.x_title = "step", .y_title = "loss & more", .lines = {line("<a>", {4, 6, 12})}});
  EXPECT_EQ(markup_fault(svg), "");
  EXPECT_EQ(count_of(svg, "<path"), 1U);
  EXPECT_EQ(count_of(svg, "<circle"), 3U);
  STOA_EXPECT_CONTAINS(svg, "d=\"M0.0 240.0L500.0 180.0L1000.0 0.0\"");
  STOA_EXPECT_CONTAINS(svg, ">step</text>");
  STOA_EXPECT_CONTAINS(svg, "loss &amp; more over step: &lt;a&gt; from 4 to 12.");
}

TEST(Chart, PointsThatAreNotFiniteInterruptALine) {
  const auto svg = line_chart({.lines = {line("a", {0, 1, std::nan(""), 3, 4})}});
  EXPECT_EQ(count_of(svg, "<circle"), 4U);
  const auto path = svg.substr(svg.find("d=\"M"));
  EXPECT_EQ(count_of(path.substr(0, path.find('>')), "M"), 2U);
}

TEST(Chart, ChartsOfNothingAreDrawn) {
  for (const auto& y : std::vector<std::vector<double>>{{}, {1}, {0, 0}, {-2, -2}, {std::nan("")}}) {
    const auto svg = line_chart({.lines = {line("a", y)}});
    EXPECT_EQ(markup_fault(svg), "");
    EXPECT_EQ(count_of(svg, "nan"), 0U) << svg;
    EXPECT_EQ(count_of(svg, "inf"), 0U) << svg;
  }
}

TEST(Chart, LabelsAtTheEndsDoNotOverlap) {
  Chart chart;
  for (int i = 0; i < 6; ++i) chart.lines.push_back(line("line " + std::to_string(i), {0, 1 + 1e-3 * i}, i));
  const auto svg = line_chart(chart);
  const std::regex label("class=\"label[^>]* y=\"([0-9.-]+)\"");
  std::vector<double> places;
  for (std::sregex_iterator at(svg.begin(), svg.end(), label), end; at != end; ++at)
    places.push_back(std::stod((*at)[1]));
  ASSERT_EQ(places.size(), 6U);
  for (std::size_t i = 1; i < places.size(); ++i) EXPECT_GE(places[i], places[i - 1] + 14.9);
  EXPECT_LE(places.back(), chart.height);
}

TEST(Chart, ALegendStandsInWhereLabelsAreTooLong) {
  const Chart chart{
      .lines = {line("a name of far more than twenty-six characters", {0, 1}), line("b", {0, 2}, 1)}};
  const auto svg = line_chart(chart);
  EXPECT_EQ(count_of(svg, "class=\"label"), 0U);
  EXPECT_EQ(count_of(svg, "<li class=\"c0\""), 1U);
  EXPECT_EQ(count_of(svg, "<li class=\"c1\""), 1U);
}

TEST(Chart, OneLineNeedsNoLegend) {
  EXPECT_EQ(legend({line("a", {1})}), "");
}

TEST(Chart, ColoursRepeatDashed) {
  const auto svg = line_chart({.lines = {line("a", {0, 1}, 1), line("b", {0, 2}, 9)}});
  EXPECT_EQ(count_of(svg, "<path class=\"c1\""), 1U);
  EXPECT_EQ(count_of(svg, "<path class=\"c1 dash\""), 1U);
}

TEST(Chart, LongLinesAreThinnedToMeans) {
  std::vector<double> y(8000);
  for (std::size_t i = 0; i < y.size(); ++i) y[i] = i % 2 == 0 ? 0.0 : 2.0;
  const auto svg = line_chart({.lines = {line("a", y)}, .range = std::pair(0.0, 2.0)});
  EXPECT_EQ(count_of(svg, "L"), 399U);
  EXPECT_GE(count_of(svg, " 120.0L"), 390U);  // the mean, 1, lies in the middle
}

}  // namespace
}  // namespace stoa::html
