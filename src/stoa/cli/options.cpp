#include "stoa/base/options.h"

#include <CLI/CLI.hpp>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/text.h"
#include "stoa/cli/commands.h"
#include "stoa/systems/catalog.h"
#include "stoa/train/recipe.h"

namespace stoa::cli {

namespace {

struct OptionsArguments {
  std::string task, model;
  bool markdown = false;
};

// The keys of one table, and the systems ("task with model") whose recipes have exactly these.
struct Section {
  std::string table;  // "train"; empty for keys outside any table
  std::vector<std::string> systems;
  std::vector<FieldDoc> fields;
};

std::string top_table(const std::string& key) {
  const std::size_t dot = key.find('.');
  return dot == std::string::npos ? "" : key.substr(0, dot);
}

// Where a table stands on the page: what is learned, from what, with what, then how.
int rank(const std::string& table) {
  const std::vector<std::string> first = {"", "task", "data", "model"};
  return static_cast<int>(std::ranges::find(first, table) - first.begin());
}

bool same(const std::vector<FieldDoc>& a, const std::vector<FieldDoc>& b) {
  return std::ranges::equal(a, b, [](const FieldDoc& x, const FieldDoc& y) {
    return x.key == y.key && x.type == y.type && x.value == y.value && x.help == y.help &&
           x.condition == y.condition;
  });
}

std::vector<FieldDoc> documented(const CatalogEntry& entry) {
  Recipe recipe;
  recipe.task_name = entry.task;
  recipe.model_name = entry.model;
  recipe.task = entry.make();
  return document_fields([&](FieldVisitor& v) { recipe.visit(v); });
}

std::vector<Section> sections_of(const CatalogEntry& entry) {
  std::vector<Section> sections;
  for (const FieldDoc& doc : documented(entry)) {
    const std::string table = top_table(doc.key);
    auto section = std::ranges::find(sections, table, &Section::table);
    if (section == sections.end())
      section = sections.insert(section, {table, {format("{} with {}", entry.task, entry.model)}, {}});
    section->fields.push_back(doc);
  }
  std::ranges::stable_sort(sections, {}, [](const Section& section) { return rank(section.table); });
  return sections;
}

// Adds a section beside the others of its table, or its system to the one that has the same fields.
void merge(std::vector<Section>& sections, const Section& added) {
  auto place = sections.end();
  for (auto it = sections.begin(); it != sections.end(); ++it) {
    if (it->table != added.table) continue;
    if (same(it->fields, added.fields)) return it->systems.push_back(added.systems.front());
    place = it + 1;
  }
  sections.insert(place, added);
}

std::vector<CatalogEntry> chosen_entries(const OptionsArguments& arguments) {
  std::vector<CatalogEntry> entries;
  std::vector<std::string> tasks, models;
  for (const CatalogEntry& entry : catalog()) {
    tasks.push_back(entry.task);
    if (!arguments.task.empty() && entry.task != arguments.task) continue;
    models.push_back(entry.model);
    if (!arguments.model.empty() && entry.model != arguments.model) continue;
    entries.push_back(entry);
  }
  if (models.empty())
    throw ConfigError(format("unknown task `{}`{}", arguments.task, suggestion(arguments.task, tasks)));
  if (entries.empty())
    throw ConfigError(format("unknown model `{}` for task `{}`{}", arguments.model, arguments.task,
                             suggestion(arguments.model, models)));
  return entries;
}

std::string cell(std::string text) {
  for (std::size_t at = 0; (at = text.find('|', at)) != std::string::npos; at += 2) text.insert(at, 1, '\\');
  return text;
}

std::string heading(const Section& section, std::size_t systems) {
  const std::string title = section.table.empty() ? "Top level" : format("[{}]", section.table);
  return section.systems.size() == systems ? title : format("{} of {}", title, join(section.systems, ", "));
}

std::string markdown(const std::vector<Section>& sections, std::size_t systems) {
  std::string text =
      "# Options of a recipe\n\nMade by `stoa options --markdown`; every key a recipe may hold, with its "
      "default. "
      "On the command line: `--set train.steps=100`.\n";
  for (const Section& section : sections) {
    text += format("\n## {}\n\n| Key | Type | Default | What it does |\n|---|---|---|---|\n",
                   heading(section, systems));
    for (const FieldDoc& doc : section.fields) {
      const std::string condition = doc.condition.empty() ? "" : format(" (only when {})", doc.condition);
      text += format("| `{}` | {} | `{}` | {} |\n", doc.key, cell(doc.type), cell(doc.value),
                     cell(doc.help + condition));
    }
  }
  return text;
}

std::string plain(const std::vector<Section>& sections, std::size_t systems) {
  std::string text;
  for (const Section& section : sections) {
    text += format("{}{}\n", text.empty() ? "" : "\n", heading(section, systems));
    for (const FieldDoc& doc : section.fields) {
      text += format("  {} = {}  ({})\n      {}\n", doc.key, doc.value, doc.type, doc.help);
      if (!doc.condition.empty()) text += format("      only when {}\n", doc.condition);
    }
  }
  return text;
}

Json as_json(const std::vector<Section>& sections) {
  Json list = Json::array();
  for (const Section& section : sections)
    for (const FieldDoc& doc : section.fields)
      list.push_back({{"key", doc.key},
                      {"type", doc.type},
                      {"default", doc.value},
                      {"help", doc.help},
                      {"condition", doc.condition},
                      {"systems", section.systems}});
  return {{"options", list}};
}

void options_command(const Program& program, const OptionsArguments& arguments) {
  const std::vector<CatalogEntry> entries = chosen_entries(arguments);
  std::vector<Section> sections;
  for (const CatalogEntry& entry : entries)
    for (const Section& section : sections_of(entry)) merge(sections, section);
  print_result(program, as_json(sections),
               arguments.markdown ? markdown(sections, entries.size()) : plain(sections, entries.size()));
}

}  // namespace

void add_options(Program& program) {
  const auto arguments = std::make_shared<OptionsArguments>();
  CLI::App& command = add_command(program, "options", "every key a recipe may hold, with default and meaning",
                                  "stoa options image_classification wide_net",
                                  [&program, arguments] { options_command(program, *arguments); });
  command.add_option("TASK", arguments->task, "only recipes of this task")->type_name("");
  command.add_option("MODEL", arguments->model, "only recipes of this model")->type_name("");
  command.add_flag("--markdown", arguments->markdown, "as a Markdown page");
}

}  // namespace stoa::cli
