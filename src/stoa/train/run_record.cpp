#include "stoa/train/run_record.h"

#include <cmath>
#include <span>
#include <string_view>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/train/events.h"
#include "stoa/train/run_folder.h"

namespace stoa {

namespace {

// Sum and count of the finite numbers in a value, a list or a list of lists.
void add_up(const Json& value, double& sum, double& count) {
  if (value.is_array()) {
    for (const Json& item : value) add_up(item, sum, count);
  } else if (value.is_number() && std::isfinite(value.get<double>())) {
    sum += value.get<double>();
    ++count;
  }
}

std::optional<double> mean_over(std::span<const Json> lines, const std::string& name) {
  double sum = 0, count = 0;
  for (const Json& line : lines) {
    if (line.contains(name))
      add_up(line[name], sum, count);
    else if (line.contains("statistics") && line["statistics"].contains(name))
      add_up(line["statistics"][name], sum, count);
  }
  if (count == 0) return std::nullopt;
  return sum / count;
}

std::optional<double> member(const Json& object, const std::string& name) {
  if (!object.is_object() || !object.contains(name) || !object[name].is_number()) return std::nullopt;
  return object[name].get<double>();
}

std::optional<double> member(const Json& object, const char* table, const std::string& name) {
  return object.contains(table) ? member(object[table], name) : std::nullopt;
}

// The highest of a metric's values over all evaluations, or the lowest.
std::optional<double> best_of(const std::vector<Json>& evaluations, const std::string& name, bool highest) {
  std::optional<double> best;
  for (const Json& line : evaluations) {
    const auto value = member(line, name);
    if (value && (!best || (highest ? *value > *best : *value < *best))) best = value;
  }
  return best;
}

}  // namespace

std::optional<double> RunRecord::value(const std::string& name) const {
  const auto dot = name.find('.');
  const std::string table = name.substr(0, dot), key = dot == std::string::npos ? "" : name.substr(dot + 1);
  if (table == "eval" && !key.empty()) return member(evaluation, "metrics", key);
  if (table == "speed" && !key.empty()) return member(evaluation, "speed", key);
  if (table == "first" && !key.empty()) return eval.empty() ? std::nullopt : member(eval.front(), key);
  if (table == "best" && !key.empty()) return best_of(eval, key, info.value("higher_is_better", true));
  if (table == "train" && !key.empty()) return mean_over(train, key);
  if (table == "last" && !key.empty()) return mean_over(std::span(train).last(train.empty() ? 0 : 1), key);
  if (name == "steps") return member(evaluation, "step");
  if (name == "seconds") return value("last.seconds");
  return member(info, name);
}

RunRecord read_run(const std::filesystem::path& folder) {
  const RunFolder run = RunFolder::open(folder);
  RunRecord record;
  record.folder = folder;
  record.recipe_text = read_file(folder / "recipe.toml");
  record.recipe = run.recipe().values();
  record.info = run.info();
  const auto file = folder / "evaluation.json";
  record.evaluation = std::filesystem::exists(file) ? read_json(file) : Json::object();
  record.title = record.recipe.value("title", "");
  if (record.title.empty()) record.title = std::filesystem::weakly_canonical(folder).filename().string();
  for (Json& event : read_events(folder))
    (event.value("kind", "") == "eval" ? record.eval : record.train).push_back(std::move(event));
  try {
    if (record.evaluation.contains("exhibits"))
      for (const Json& exhibit : record.evaluation["exhibits"])
        record.exhibits.push_back(Exhibit::from_json(exhibit));
  } catch (const DataError& error) {
    throw DataError(format("{}: {}", file.string(), error.what()));
  }
  return record;
}

}  // namespace stoa
