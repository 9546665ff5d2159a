#include <algorithm>
#include <array>
#include <limits>

#include "stoa/base/format.h"
#include "stoa/train/chart.h"
#include "stoa/train/html.h"
#include "stoa/train/report_parts.h"

namespace stoa::report {

namespace {

constexpr std::size_t kSmoothedFrom = 40;  // shorter logs are shown as they are

using Lines = std::vector<Json> RunRecord::*;

html::ChartLine series(const RunRecord& run, Lines kind, const std::string& name) {
  html::ChartLine line{.name = run.title};
  for (const Json& event : run.*kind) {
    if (!event.contains(name) || !(event[name].is_number() || event[name].is_null())) continue;
    line.x.push_back(event.value("step", 0.0));
    line.y.push_back(event[name].is_number() ? event[name].get<double>()
                                             : std::numeric_limits<double>::quiet_NaN());
  }
  return line;
}

// The lines of all runs for one name, each run in its colour.
std::vector<html::ChartLine> all_series(std::span<const RunRecord> runs, Lines kind,
                                        const std::string& name) {
  std::vector<html::ChartLine> lines;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    lines.push_back(series(runs[i], kind, name));
    lines.back().colour = static_cast<int>(i);
  }
  std::erase_if(lines, [](const auto& line) { return line.x.empty(); });
  return lines;
}

// Numbers in the lines of all runs, in the order they appear.
std::vector<std::string> names_of(std::span<const RunRecord> runs, Lines kind) {
  std::vector<std::string> names;
  for (const auto& run : runs)
    for (const Json& event : run.*kind)
      for (const auto& [name, value] : event.items())
        if (value.is_number() && name != "step" && std::ranges::find(names, name) == names.end())
          names.push_back(name);
  return names;
}

std::size_t longest(const std::vector<html::ChartLine>& lines) {
  std::size_t points = 0;
  for (const auto& line : lines) points = std::max(points, line.x.size());
  return points;
}

std::string loss_figure(std::span<const RunRecord> runs) {
  html::Chart chart{
      .x_title = "step", .y_title = "loss", .lines = all_series(runs, &RunRecord::train, "loss")};
  if (longest(chart.lines) == 0) return "";
  chart.height = 280;
  if (longest(chart.lines) < kSmoothedFrom)
    return html::figure("Training loss", html::line_chart(chart), "Loss of the logged batches.",
                        /*wide=*/true);
  std::vector<html::ChartLine> all;
  for (auto line : chart.lines) {
    auto raw = line;
    raw.name.clear();
    raw.opacity = 0.45;
    line.y = html::smoothed(line.y, line.y.size() / 40);
    all.push_back(std::move(raw));
    all.push_back(std::move(line));
  }
  std::ranges::stable_partition(all, [](const auto& line) { return line.name.empty(); });
  chart.range = html::value_range(all);
  chart.lines = std::move(all);
  return html::figure("Training loss", html::line_chart(chart),
                      "Thin: loss of the logged batches. Thick: its moving mean over a twentieth of the run.",
                      /*wide=*/true);
}

std::string simple_figure(const std::string& title, const std::string& name,
                          std::vector<html::ChartLine> lines, const std::string& caption) {
  return html::figure(
      title, html::line_chart({.x_title = "step", .y_title = name, .lines = std::move(lines)}), caption);
}

std::string metric_figures(std::span<const RunRecord> runs) {
  std::string figures;
  for (const auto& name : names_of(runs, &RunRecord::eval)) {
    auto lines = all_series(runs, &RunRecord::eval, name);
    if (longest(lines) < 2) continue;
    figures += simple_figure("Evaluation: " + name, name, std::move(lines),
                             "On the evaluation data, at the steps it was measured.");
  }
  return figures;
}

std::string other_figures(std::span<const RunRecord> runs) {
  std::string figures;
  for (const auto& name : names_of(runs, &RunRecord::train)) {
    auto lines = all_series(runs, &RunRecord::train, name);
    if (name != "loss" && name != "seconds" && longest(lines) > 1)
      figures += simple_figure(spoken(name), name, std::move(lines), "");
  }
  return figures.empty()
             ? ""
             : html::details("The rest of the training log", html::element("div", figures, "grid"));
}

}  // namespace

std::string curves(std::span<const RunRecord> runs) {
  const std::string figures = loss_figure(runs) + metric_figures(runs);
  if (figures.empty()) return "";
  return html::element("h2", "Training") + html::element("div", figures, "grid") + other_figures(runs);
}

}  // namespace stoa::report
