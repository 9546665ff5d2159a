#include <algorithm>
#include <array>
#include <cctype>
#include <limits>
#include <string_view>

#include "stoa/base/format.h"
#include "stoa/train/chart.h"
#include "stoa/train/html.h"
#include "stoa/train/report_parts.h"

namespace stoa::report {

namespace {

constexpr std::size_t kMultiples = 24;     // small charts of one matrix
constexpr std::size_t kColouredLines = 8;  // more lines than these are told apart by nobody
constexpr std::size_t kMoments = 4;        // of a vector's history

// How statistics of the shared building blocks are titled and read; others go by their names.
struct Reading {
  std::string_view name, title, columns, caption;
};
constexpr std::array kReadings = {
    Reading{"router.load", "Experts by depth", "expert",
            "Share of the routed tokens that each expert took, one row a depth. Rows of equal colour mean "
            "that the work is "
            "spread evenly."},
    Reading{"router.drop_rate", "Dropped assignments", "column",
            "Share of the assignments of tokens to experts that found the expert full, by depth."},
    Reading{"router.entropy", "Router entropy", "column",
            "Mean entropy of the routing probabilities in nats, by depth: 0 is certain of one expert, the "
            "logarithm of their "
            "number is undecided."},
    Reading{"router.balance", "Balance loss", "column",
            "Load balance loss by depth, without its weight: 1 where all experts take equal shares, more "
            "where some take "
            "more."},
    Reading{"router.imbalance", "Largest share of an expert", "column",
            "Share of the assignments that the busiest expert got, times the number of experts, by depth: 1 "
            "where all "
            "get equal shares."},
    Reading{
        "norm1.spread", "Spread of the norms before attention", "column",
        "Mean squared difference of each layer's norm weights from those of all layers: what a depth has of "
        "its own where the rest is shared."},
    Reading{
        "norm2.spread", "Spread of the norms before perceptrons and mixtures", "column",
        "The same of the norms in front of the perceptron or mixture: what lets a shared router tell depths "
        "apart."},
    Reading{
        "rows.gradient_norms", "Norms of the gradients of embeddings", "bin",
        "Share of a batch's rows by the norm of their gradient, L2 included, before the clip: bin 1 is below "
        "1e-8, then two bins to a power of ten, the last is 100 or more."},
};

Reading reading_of(const std::string& name) {
  const auto found = std::ranges::find(kReadings, name, &Reading::name);
  return found != kReadings.end() ? *found : Reading{name, "", "column", ""};
}

// One statistic through the run: its values at each logged step, all of the shape of the last ones.
struct History {
  std::string name;
  std::vector<double> steps = {};
  std::vector<std::vector<double>> values = {};  // row by row
  std::size_t rows = 0, columns = 0;             // 0 columns: a vector; 0 rows too: a scalar

  std::vector<double> at(std::size_t index) const {
    std::vector<double> result;
    for (const auto& value : values) result.push_back(value[index]);
    return result;
  }
};

double number_in(const Json& json) {
  return json.is_number() ? json.get<double>() : std::numeric_limits<double>::quiet_NaN();
}

// Whether `json` is a number, a list, or a list of lists of one length; says which and appends the numbers.
bool read_value(const Json& json, History& shape, std::vector<double>& numbers) {
  shape.rows = shape.columns = 0;
  if (!json.is_array()) {
    numbers.push_back(number_in(json));
    return json.is_number() || json.is_null();
  }
  shape.rows = json.size();
  for (const Json& row : json) {
    const std::size_t columns = row.is_array() ? row.size() : 0;
    if (&row == &json.front()) shape.columns = columns;
    if (columns != shape.columns) return false;
    if (!row.is_array()) numbers.push_back(number_in(row));
    for (std::size_t i = 0; i < columns; ++i) numbers.push_back(number_in(row[i]));
  }
  return !numbers.empty();
}

std::vector<History> histories(const RunRecord& run) {
  std::vector<History> all;
  for (auto line = run.train.rbegin(); line != run.train.rend(); ++line) {
    if (!line->contains("statistics")) continue;
    for (const auto& [name, json] : (*line)["statistics"].items()) {
      History now{.name = name};
      std::vector<double> numbers;
      if (!read_value(json, now, numbers)) continue;
      auto history = std::ranges::find(all, name, &History::name);
      if (history == all.end()) history = all.insert(all.end(), now);
      if (now.rows != history->rows || now.columns != history->columns) continue;
      history->steps.push_back(line->value("step", 0.0));
      history->values.push_back(std::move(numbers));
    }
  }
  for (auto& history : all) {  // the last line came first, because it says the shape
    std::ranges::reverse(history.steps);
    std::ranges::reverse(history.values);
  }
  return all;
}

std::vector<double> counted(std::size_t count) {
  std::vector<double> numbers;
  for (std::size_t i = 0; i < count; ++i) numbers.push_back(static_cast<double>(i + 1));
  return numbers;
}

std::vector<std::string> counted_names(std::size_t count) {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < count; ++i) names.push_back(std::to_string(i + 1));
  return names;
}

std::string title_of(const Reading& reading) {
  return reading.title.empty() ? spoken(std::string(reading.name)) : std::string(reading.title);
}

std::string caption_or(const Reading& reading, const std::string& otherwise) {
  return reading.caption.empty() ? otherwise : std::string(reading.caption);
}

std::string scalar_figure(const History& history) {
  const Reading reading = reading_of(history.name);
  html::ChartLine line{.name = history.name, .x = history.steps, .y = history.at(0)};
  const html::Chart chart{.x_title = "step", .y_title = history.name, .lines = {line}};
  return html::figure(title_of(reading), html::line_chart(chart), std::string(reading.caption));
}

// By depth at a few moments, the later the stronger.
std::string vector_figure(const History& history) {
  const Reading reading = reading_of(history.name);
  html::Chart chart{.x_title = std::string(reading.columns == "bin" ? "bin" : "depth"),
                    .y_title = history.name,
                    .lines = {}};
  const std::size_t moments = std::min(kMoments, history.values.size());
  for (std::size_t i = 0; i < moments; ++i) {
    const std::size_t at = moments == 1 ? 0 : i * (history.values.size() - 1) / (moments - 1);
    chart.lines.push_back({.name = format("step {}", html::number(history.steps[at])),
                           .x = counted(history.rows),
                           .y = history.values[at],
                           .opacity = static_cast<double>(i + 1) / static_cast<double>(moments)});
  }
  return html::figure(title_of(reading), html::line_chart(chart),
                      caption_or(reading, "By depth, at the first and the last logged step and between."));
}

std::string matrix_map(const History& history) {
  const Reading reading = reading_of(history.name);
  const HeatMapExhibit map{.row_title = "depth",
                           .column_title = std::string(reading.columns),
                           .rows = counted_names(history.rows),
                           .columns = counted_names(history.columns),
                           .values = history.values.back()};
  return html::figure(title_of(reading), html::heat_map(map),
                      caption_or(reading, "One row a depth.") +
                          format(" The batch of step {}.", html::number(history.steps.back())),
                      history.columns > kColouredLines);
}

// One small chart a row of the matrix, one line a column, over the steps; all on one scale.
std::string matrix_multiples(const History& history) {
  const Reading reading = reading_of(history.name);
  const bool coloured = history.columns <= kColouredLines;
  const std::size_t shown = std::min(history.rows, kMultiples);
  std::vector<std::vector<html::ChartLine>> charts;
  std::vector<html::ChartLine> all;
  for (std::size_t i = 0; i < shown; ++i) {
    const std::size_t row = i * history.rows / shown;
    charts.emplace_back();
    for (std::size_t column = 0; column < history.columns; ++column)
      charts.back().push_back({.name = coloured ? format("{} {}", reading.columns, column + 1) : "",
                               .x = history.steps,
                               .y = history.at(row * history.columns + column),
                               .colour = coloured ? static_cast<int>(column) : -1,
                               .opacity = coloured ? 1 : 0.45});
    all.insert(all.end(), charts.back().begin(), charts.back().end());
  }
  std::string multiples;
  for (std::size_t i = 0; i < shown; ++i)
    multiples += html::line_chart({.x_title = "",
                                   .y_title = format("depth {}", i * history.rows / shown + 1),
                                   .lines = charts[i],
                                   .height = 84,
                                   .legend = false,
                                   .range = html::value_range(all)});
  return html::figure(
      title_of(reading) + " through training",
      html::legend(charts.front()) + html::element("div", multiples, "multiples"),
      format("One chart a depth, one line {} {}, over the steps; all charts share one scale.",
             std::string_view("aeio").find(reading.columns.front()) == std::string_view::npos ? "a" : "an",
             reading.columns),
      history.columns > kColouredLines);
}

}  // namespace

std::string spoken(const std::string& name) {
  std::string result = name;
  std::ranges::replace(result, '_', ' ');
  std::ranges::replace(result, '.', ' ');
  if (!result.empty()) result[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(result[0])));
  return result;
}

std::string statistics(const RunRecord& run) {
  std::string figures;
  for (const auto& history : histories(run)) {
    if (history.columns > 0) {
      figures += matrix_map(history);
      if (history.steps.size() > 1) figures += matrix_multiples(history);
    } else if (history.rows > 1) {
      figures += vector_figure(history);
    } else if (history.steps.size() > 1) {
      figures += scalar_figure(history);
    }
  }
  return figures.empty() ? "" : html::element("div", figures, "grid");
}

namespace {

// What would have to be scrolled in half the width of the page.
bool is_wide(const Exhibit& exhibit) {
  const auto* map = std::get_if<HeatMapExhibit>(&exhibit.content);
  const auto* table = std::get_if<TableExhibit>(&exhibit.content);
  return (map != nullptr && map->columns.size() > 12) || (table != nullptr && table->headings.size() > 5);
}

}  // namespace

std::string exhibit(const Exhibit& exhibit) {
  struct Draw {
    std::string operator()(const TableExhibit& shown) const {
      html::Row headings;
      for (const auto& heading : shown.headings) headings.push_back(html::escape(heading));
      std::vector<html::Row> rows;
      for (const auto& row : shown.rows) {
        rows.emplace_back();
        for (const auto& cell : row) rows.back().push_back(html::escape(cell));
      }
      return html::table(headings, rows, /*text_columns=*/true);
    }
    std::string operator()(const HeatMapExhibit& shown) const { return html::heat_map(shown); }
    std::string operator()(const LinesExhibit& shown) const {
      html::Chart chart{.x_title = shown.x_title, .y_title = shown.y_title, .lines = {}};
      for (const auto& line : shown.lines)
        chart.lines.push_back(
            {.name = line.name, .x = line.x, .y = line.y, .colour = static_cast<int>(chart.lines.size())});
      return html::line_chart(chart);
    }
    std::string operator()(const GalleryExhibit& shown) const { return html::gallery(shown); }
  };
  return html::figure(exhibit.title, std::visit(Draw{}, exhibit.content), exhibit.caption, is_wide(exhibit));
}

}  // namespace stoa::report
