// Reading an experiment file. Its tables are read one by one with their lines kept in place, so that an error
// names the line.
#include "stoa/train/experiment.h"

#include <algorithm>
#include <set>

#include "stoa/base/config.h"
#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/base/options.h"
#include "stoa/base/text.h"
#include "stoa/train/experiment_run.h"

namespace stoa {

namespace fs = std::filesystem;

namespace {

// The keys before the first [[...]], or of one [[name]].
struct Section {
  std::string name;
  std::size_t line = 0;
  std::string text;  // preceded by as many empty lines as stand before it in the file

  std::string where(const fs::path& file) const { return format("{}:{}", file.string(), line); }
};

std::string section_name(std::string_view line) {
  const auto first = line.find_first_not_of(" \t"), close = line.find("]]");
  if (first == std::string_view::npos || close == std::string_view::npos || line.substr(first, 2) != "[[")
    return "";
  const auto name = line.substr(first + 2, close - first - 2);
  const auto begin = name.find_first_not_of(" \t"), end = name.find_last_not_of(" \t");
  return begin == std::string_view::npos ? "" : std::string(name.substr(begin, end - begin + 1));
}

std::vector<Section> sections_of(const std::string& text) {
  std::vector<Section> sections(1);
  bool in_text = false;  // inside """ or '''
  std::size_t number = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string line = text.substr(begin, end - begin);
    const std::string name = in_text ? "" : section_name(line);
    ++number;
    if (!name.empty())
      sections.push_back({name, number, std::string(number, '\n')});
    else
      sections.back().text += line + "\n";
    for (const char* quotes : {"\"\"\"", "'''"})
      for (std::size_t at = 0; (at = line.find(quotes, at)) != std::string::npos; at += 3) in_text = !in_text;
    begin = end + 1;
  }
  return sections;
}

void require(bool holds, const Section& section, const fs::path& file, const char* message) {
  if (!holds)
    throw ConfigError(format("{}: {}", section.line == 0 ? file.string() : section.where(file), message));
}

ExperimentRow read_row(const Section& section, const fs::path& file) {
  ExperimentRow row;
  std::string recipe;
  const Config config = Config::from_text(section.text, file.string());
  read_fields(config, [&](FieldVisitor& v) {
    v.field("name", row.name, "what the table calls the row");
    v.field("recipe", recipe,
            "file of the recipe, looked up beside the experiment and below its parent folders");
    v.field("set", row.set, "overrides, e.g. \"train.steps=100\"");
  });
  require(!row.name.empty(), section, file, "this [[row]] has no `name`; name it as the table should");
  require(!recipe.empty(), section, file, "this [[row]] has no `recipe`; name a recipe file");
  row.recipe = recipe;
  if (find_recipe(file, row.recipe).empty())
    throw ConfigError(format("{}: there is no recipe {} beside {} or below a parent folder of it",
                             config.where("recipe"), recipe, file.string()));
  return row;
}

ExperimentColumn read_column(const Section& section, const fs::path& file) {
  ExperimentColumn column;
  const Config config = Config::from_text(section.text, file.string());
  read_fields(config, [&](FieldVisitor& v) {
    v.field("value", column.value, "a value of the runs, e.g. eval.accuracy");
    v.field("heading", column.heading, "what the table calls it");
    v.field("scale", column.scale, "factor on the value, 100 for percent");
    v.field("digits", column.digits, "digits behind the point");
  });
  require(!column.value.empty(), section, file,
          "this [[column]] has no `value`; name one, e.g. \"eval.accuracy\"");
  if (column.heading.empty()) column.heading = column.value;
  if (column.digits < 0 || column.digits > 12)
    throw ConfigError(
        format("{}: `digits` is {}; 0 to 12 are possible", config.where("digits"), column.digits));
  return column;
}

void read_head(const Section& section, const fs::path& file, Experiment& experiment) {
  const Config config = Config::from_text(section.text, file.string());
  read_fields(config, [&](FieldVisitor& v) {
    v.field("title", experiment.title, "heading of the page");
    v.field("text", experiment.text, "Markdown before the table");
    v.field("reading", experiment.reading, "Markdown after the table");
    v.field("seeds", experiment.seeds, "train.seed of the runs of every row");
    v.field("set", experiment.set, "overrides of every row");
  });
  require(!experiment.title.empty(), section, file, "the experiment has no `title`");
  const std::set<std::int64_t> distinct(experiment.seeds.begin(), experiment.seeds.end());
  if (experiment.seeds.empty() || distinct.size() != experiment.seeds.size())
    throw ConfigError(
        format("{}: `seeds` needs at least one seed, and each only once", config.where("seeds")));
}

void check_names(const Experiment& experiment, const std::vector<Section>& sections, const fs::path& file) {
  std::vector<std::string> folders;
  for (const auto& row : experiment.rows) folders.push_back(run_folder_name(row.name, 0));
  std::size_t row = 0;
  for (const auto& section : sections) {
    if (section.name != "row") continue;
    const auto first = std::ranges::find(folders, folders[row]) - folders.begin();
    if (static_cast<std::size_t>(first) != row)
      throw ConfigError(format("{}: rows `{}` and `{}` would share run folders; name them apart",
                               section.where(file), experiment.rows[static_cast<std::size_t>(first)].name,
                               experiment.rows[row].name));
    ++row;
  }
}

}  // namespace

fs::path find_recipe(const fs::path& file, const fs::path& recipe) {
  fs::path folder = fs::absolute(file).lexically_normal().parent_path();
  while (true) {
    if (fs::is_regular_file(folder / recipe)) return folder / recipe;
    if (folder == folder.parent_path()) return {};
    folder = folder.parent_path();
  }
}

Experiment read_experiment(const fs::path& file) {
  const std::string text = read_file(file);
  Config::from_text(text, file.string());  // what is not TOML at all is said first
  const auto sections = sections_of(text);
  Experiment experiment;
  read_head(sections.front(), file, experiment);
  for (const auto& section : sections) {
    if (section.name == "row")
      experiment.rows.push_back(read_row(section, file));
    else if (section.name == "column")
      experiment.columns.push_back(read_column(section, file));
    else if (!section.name.empty())
      throw ConfigError(format("{}: unknown table [[{}]]{}", section.where(file), section.name,
                               suggestion(section.name, {"row", "column"})));
  }
  require(!experiment.rows.empty(), sections.front(), file,
          "the experiment has no [[row]]; add one a recipe");
  require(!experiment.columns.empty(), sections.front(), file,
          "the experiment has no [[column]]; add one a value");
  check_names(experiment, sections, file);
  return experiment;
}

}  // namespace stoa
