#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace stoa::html {

/// One line of a chart. Points that are not finite interrupt it.
struct ChartLine {
  std::string name = {};  ///< for legend and label; an empty name has neither
  std::vector<double> x = {}, y = {};
  int colour = 0;  ///< place in the palette of eight, which repeats; -1 is neutral
  double opacity = 1;
};

/// Lines over a common axis, as inline SVG whose text keeps its size at every width. Lines are labelled at
/// their ends where there is room, by a legend otherwise. Long lines are thinned to the mean of neighbouring
/// points.
struct Chart {
  std::string x_title = {}, y_title = {};
  std::vector<ChartLine> lines = {};
  int height = 240;  ///< of the plot, in CSS pixels
  bool legend = true;
  std::optional<std::pair<double, double>> range = {};  ///< of y; taken from the lines where absent
};

std::string line_chart(const Chart& chart);

/// Lowest and highest finite y of all lines; {0, 1} where there is none.
std::pair<double, double> value_range(const std::vector<ChartLine>& lines);

/// A legend by itself, for several charts of the same lines.
std::string legend(const std::vector<ChartLine>& lines);

/// Centred moving mean over 2 * reach + 1 points (fewer at the ends).
std::vector<double> smoothed(const std::vector<double>& values, std::size_t reach);

/// About `count` round numbers that cover [low, high]: 1, 2 or 5 times a power of ten apart.
std::vector<double> round_ticks(double low, double high, int count);

}  // namespace stoa::html
