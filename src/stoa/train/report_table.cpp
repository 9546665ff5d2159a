#include <algorithm>
#include <cmath>
#include <functional>

#include "stoa/base/format.h"
#include "stoa/base/text.h"
#include "stoa/train/html.h"
#include "stoa/train/report_parts.h"

namespace stoa::report {

namespace {

using Shown = std::function<std::string(const RunRecord&)>;  // plain text, empty where the run does not know

std::string text_at(const RunRecord& run, const char* table, const char* key) {
  const Json* value =
      run.recipe.contains(table) && run.recipe[table].contains(key) ? &run.recipe[table][key] : nullptr;
  if (value == nullptr) return "";
  return value->is_string()   ? value->get<std::string>()
         : value->is_number() ? html::number(value->get<double>())
                              : value->dump();
}

// A value of the run, formatted.
Shown shows(const std::string& name, const std::function<std::string(double)>& text) {
  return [=](const RunRecord& run) {
    const auto value = run.value(name);
    return value ? text(*value) : "";
  };
}

Shown first_of(const Shown& one, const Shown& other) {
  return [=](const RunRecord& run) {
    const std::string text = one(run);
    return text.empty() ? other(run) : text;
  };
}

// The median, so that one slow line (a machine that was busy, a first step) does not count.
std::string training_speed(const RunRecord& run) {
  std::vector<double> speeds;
  for (const Json& line : run.train)
    if (line.contains("samples_per_second") && line["samples_per_second"].is_number())
      speeds.push_back(line["samples_per_second"]);
  if (speeds.empty()) return "";
  const auto middle = speeds.begin() + std::ssize(speeds) / 2;
  std::ranges::nth_element(speeds, middle);
  return html::number(*middle);
}

struct Group {
  std::string title;
  std::vector<std::pair<std::string, Shown>> rows;
};

std::vector<std::string> metric_names(std::span<const RunRecord> runs) {
  std::vector<std::string> names;
  for (const auto& run : runs) {
    if (!run.evaluation.contains("metrics")) continue;
    for (const auto& [name, unused] : run.evaluation["metrics"].items())
      if (std::ranges::find(names, name) == names.end()) names.push_back(name);
  }
  return names;
}

std::vector<Group> groups(std::span<const RunRecord> runs) {
  const auto milliseconds = [](double value) { return format("{} ms", html::number(value)); };
  // four digits always, so that those of neighbouring runs stand alike
  const auto metric = [](double value) {
    return std::abs(value) >= 1e-3 && std::abs(value) < 1000 ? format("{:#.4g}", value) : html::number(value);
  };
  Group results{"Evaluation", {}};
  for (const auto& name : metric_names(runs))
    results.rows.emplace_back(spoken(name), shows("eval." + name, metric));
  return {results,
          {"Speed",
           {{"Inference, samples a second", shows("speed.samples_per_second", html::number)},
            {"Inference, latency of one sample", shows("speed.latency_ms", milliseconds)},
            {"Training, samples a second", training_speed},
            {"Peak memory", shows("peak_memory", bytes)}}},
          {"Model",
           {{"Name", [](const RunRecord& run) { return text_at(run, "model", "name"); }},
            {"Input", [](const RunRecord& run) { return run.info.value("input", ""); }},
            {"Parameters", shows("parameters", html::number)},
            {"Multiply-accumulates a sample", shows("macs", html::si_number)},
            {"Activations kept a sample", shows("activations", html::si_number)}}},
          {"Training",
           {{"Steps", first_of(shows("steps", html::number), shows("last.step", html::number))},
            {"Batch size", [](const RunRecord& run) { return text_at(run, "train", "batch_size"); }},
            {"Optimiser", [](const RunRecord& run) { return text_at(run, "optimizer", "name"); }},
            {"Seed", [](const RunRecord& run) { return text_at(run, "train", "seed"); }},
            {"Time", shows("seconds", duration)}}}};
}

using TextRow = std::vector<std::string>;

// The rows that at least one run can fill, as plain text.
std::vector<TextRow> known_rows(const Group& group, std::span<const RunRecord> runs) {
  std::vector<TextRow> known;
  for (const auto& [title, shown] : group.rows) {
    TextRow row = {title};
    for (const auto& run : runs) row.push_back(shown(run));
    if (std::all_of(row.begin() + 1, row.end(), [](const auto& cell) { return cell.empty(); })) continue;
    for (auto& cell : row)
      if (cell.empty()) cell = "–";
    known.push_back(std::move(row));
  }
  return known;
}

}  // namespace

std::vector<TextRow> runs_rows(std::span<const RunRecord> runs) {
  std::vector<TextRow> all = {{""}};
  for (const auto& run : runs) all.front().push_back(run.title);
  for (const auto& group : groups(runs)) {
    const auto rows = known_rows(group, runs);
    if (rows.empty()) continue;
    all.push_back({group.title});
    all.insert(all.end(), rows.begin(), rows.end());
  }
  return all;
}

std::string runs_table(std::span<const RunRecord> runs) {
  html::Row headings = {""};
  for (std::size_t i = 0; i < runs.size(); ++i)
    headings.push_back(format("<a href=\"#run-{}\"><span class=\"swatch c{}\"></span>{}</a>", i, i % 8,
                              html::escape(runs[i].title)));
  std::vector<html::Row> all;
  std::string facts;
  for (const auto& group : groups(runs)) {
    auto rows = known_rows(group, runs);
    if (rows.empty()) continue;
    for (auto& row : rows) std::ranges::transform(row, row.begin(), html::escape);
    facts += html::table({group.title, ""}, rows);
    all.push_back({group.title});
    all.insert(all.end(), rows.begin(), rows.end());
  }
  return runs.size() == 1 ? html::element("div", facts, "facts") : html::table(headings, all);
}

std::string parts_table(const RunRecord& run) {
  if (!run.info.contains("parts")) return "";
  const double parameters = run.value("parameters").value_or(0), macs = run.value("macs").value_or(0);
  const auto share = [](double part, double whole) {
    return format("<span class=\"bar\" style=\"--v:{:.1f}%\"></span>", whole > 0 ? 100 * part / whole : 0);
  };
  std::vector<html::Row> rows;
  for (const Json& part : run.info["parts"]) {
    const double own = part.value("parameters", 0.0), work = part.value("macs", 0.0);
    rows.push_back({html::escape(part.value("name", "")), html::number(own) + share(own, parameters),
                    html::si_number(work) + share(work, macs),
                    html::si_number(part.value("activations", 0.0))});
  }
  const auto total = [&](const char* name, const auto& text) {
    const auto value = run.value(name);
    return value ? format("<b>{}</b><span class=\"bar none\"></span>", text(*value)) : "";
  };
  rows.push_back({"<b>All</b>", total("parameters", html::number), total("macs", html::si_number),
                  format("<b>{}</b>", html::si_number(run.value("activations").value_or(std::nan(""))))});
  return html::table({"Part", "Parameters", "Multiply-accumulates", "Activations"}, rows) +
         html::element("p",
                       "Parameters are counted once however often they are applied; multiply-accumulates and "
                       "activations "
                       "are those of one sample, all applications together. Bars are shares of the whole.",
                       "quiet");
}

}  // namespace stoa::report
