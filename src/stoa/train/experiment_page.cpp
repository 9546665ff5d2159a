// The pages of an experiment: the same table as Markdown, HTML and JSON.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "stoa/base/format.h"
#include "stoa/base/text.h"
#include "stoa/train/experiment_run.h"
#include "stoa/train/html.h"
#include "stoa/train/markdown.h"

namespace stoa {

namespace {

std::string fixed(double value, std::int64_t digits) {
  return digits == 0 && std::abs(value) < 1e15 ? thousands(std::llround(value))
                                               : format("{:.{}f}", value, digits);
}

std::string value_text(const std::optional<double>& value, const ExperimentColumn& column) {
  return value ? fixed(*value, column.digits) : "–";
}

// "± 0.21", or nothing where the seeds agree (parameters, say) or there is only one.
std::string spread_text(const ExperimentCell& cell, const ExperimentColumn& column) {
  const auto spread = cell.spread();
  return spread && *spread > 0 ? "± " + fixed(*spread, column.digits) : "";
}

std::string seeds_text(const Experiment& experiment) {
  std::vector<std::string> seeds;
  for (const auto seed : experiment.seeds) seeds.push_back(std::to_string(seed));
  if (seeds.size() == 1) return format("One run a row (seed {}), so the spread is unknown.", seeds[0]);
  return format("Mean ± sample standard deviation over {} seeds ({}).", seeds.size(), join(seeds, ", "));
}

// Without the folders above, which are the machine's own.
std::string command_text(const std::filesystem::path& file) {
  const auto path = std::filesystem::absolute(file).lexically_normal();
  return "stoa experiment " + (path.parent_path().filename() / path.filename()).generic_string();
}

std::string recipe_text(const Experiment& experiment, const ExperimentRow& row) {
  std::vector<std::string> words = {row.recipe.generic_string()};
  for (const auto* list : {&experiment.set, &row.set})
    for (const auto& assignment : *list) words.push_back("--set " + assignment);
  return join(words, " ");
}

// One line a row and seed: name, seed, values.
std::vector<std::vector<std::string>> seed_rows(const Experiment& experiment, const ExperimentCells& cells) {
  std::vector<std::vector<std::string>> rows;
  for (std::size_t row = 0; row < cells.size(); ++row)
    for (std::size_t seed = 0; seed < experiment.seeds.size(); ++seed) {
      rows.push_back({experiment.rows[row].name, std::to_string(experiment.seeds[seed])});
      for (std::size_t column = 0; column < experiment.columns.size(); ++column)
        rows.back().push_back(value_text(cells[row][column].values[seed], experiment.columns[column]));
    }
  return rows;
}

std::vector<std::string> headings_of(const Experiment& experiment, std::vector<std::string> first) {
  for (const auto& column : experiment.columns) first.push_back(column.heading);
  return first;
}

std::string markdown_cell(std::string text) {
  for (std::size_t at = 0; (at = text.find('|', at)) != std::string::npos; at += 2) text.insert(at, "\\");
  return text;
}

// The first `texts` columns flush left, the others flush right.
std::string markdown_table(const std::vector<std::string>& headings,
                           const std::vector<std::vector<std::string>>& rows, std::size_t texts) {
  const auto line = [](const std::vector<std::string>& cells) {
    std::string result = "|";
    for (const auto& cell : cells) result += " " + markdown_cell(cell) + " |";
    return result + "\n";
  };
  std::string table = line(headings) + "|";
  for (std::size_t i = 0; i < headings.size(); ++i) table += i < texts ? "---|" : "---:|";
  table += "\n";
  for (const auto& row : rows) table += line(row);
  return table;
}

std::string trimmed(const std::string& text) {
  const auto first = text.find_first_not_of(" \n\t"), last = text.find_last_not_of(" \n\t");
  return first == std::string::npos ? "" : text.substr(first, last - first + 1);
}

std::vector<std::string> escaped(std::vector<std::string> texts) {
  std::ranges::transform(texts, texts.begin(), [](const auto& text) { return html::escape(text); });
  return texts;
}

}  // namespace

std::vector<double> ExperimentCell::present() const {
  std::vector<double> numbers;
  for (const auto& value : values)
    if (value) numbers.push_back(*value);
  return numbers;
}

std::optional<double> ExperimentCell::mean() const {
  const auto numbers = present();
  if (numbers.empty()) return std::nullopt;
  return std::accumulate(numbers.begin(), numbers.end(), 0.0) / static_cast<double>(numbers.size());
}

std::optional<double> ExperimentCell::spread() const {
  const auto numbers = present();
  if (numbers.size() < 2) return std::nullopt;
  // the mean of equal numbers may miss them by a rounding, which would show as a spread
  if (std::ranges::count(numbers, numbers[0]) == std::ssize(numbers)) return 0;
  const double middle = *mean();
  double squares = 0;
  for (const double number : numbers) squares += (number - middle) * (number - middle);
  return std::sqrt(squares / static_cast<double>(numbers.size() - 1));
}

std::string experiment_markdown(const Experiment& experiment, const std::filesystem::path& file,
                                const ExperimentCells& cells) {
  std::vector<std::vector<std::string>> rows, recipes;
  for (std::size_t row = 0; row < cells.size(); ++row) {
    rows.push_back({experiment.rows[row].name});
    recipes.push_back({experiment.rows[row].name, "`" + recipe_text(experiment, experiment.rows[row]) + "`"});
    for (std::size_t i = 0; i < experiment.columns.size(); ++i) {
      const auto spread = spread_text(cells[row][i], experiment.columns[i]);
      rows.back().push_back(value_text(cells[row][i].mean(), experiment.columns[i]) +
                            (spread.empty() ? "" : " " + spread));
    }
  }
  std::string page = format("# {}\n\n", experiment.title);
  if (const auto text = trimmed(experiment.text); !text.empty()) page += text + "\n\n";
  page += markdown_table(headings_of(experiment, {"Row"}), rows, 1) + "\n" + seeds_text(experiment) + "\n\n";
  if (const auto text = trimmed(experiment.reading); !text.empty()) page += text + "\n\n";
  page += format("Made by `{}`, which runs what is missing and writes this page.\n\n", command_text(file));
  page += "<details><summary>Every run</summary>\n\n" +
          markdown_table(headings_of(experiment, {"Row", "Seed"}), seed_rows(experiment, cells), 1) +
          "\n</details>\n\n";
  page += "<details><summary>Recipes</summary>\n\n" + markdown_table({"Row", "Recipe"}, recipes, 2) +
          "\n</details>\n";
  return page;
}

std::string experiment_html(const Experiment& experiment, const std::filesystem::path& file,
                            const ExperimentCells& cells) {
  std::vector<html::Row> rows, runs, recipes;
  for (std::size_t row = 0; row < cells.size(); ++row) {
    const std::string name = html::escape(experiment.rows[row].name);
    rows.push_back({name});
    recipes.push_back(
        {name, html::element("code", html::escape(recipe_text(experiment, experiment.rows[row])))});
    for (std::size_t i = 0; i < experiment.columns.size(); ++i) {
      const auto spread = spread_text(cells[row][i], experiment.columns[i]);
      rows.back().push_back(value_text(cells[row][i].mean(), experiment.columns[i]) +
                            (spread.empty() ? "" : format(" <span class=\"spread\">{}</span>", spread)));
    }
  }
  for (auto& row : seed_rows(experiment, cells)) runs.push_back(escaped(std::move(row)));
  const std::string body =
      html::element("h1", html::escape(experiment.title)) + html::from_markdown(experiment.text) +
      html::table(escaped(headings_of(experiment, {""})), rows) +
      html::element("p", html::escape(seeds_text(experiment)), "quiet") +
      html::from_markdown(experiment.reading) +
      html::details("Every run", html::table(escaped(headings_of(experiment, {"", "Seed"})), runs)) +
      html::details("Recipes", html::table({"", "Recipe"}, recipes, /*text_columns=*/true)) +
      html::element("footer",
                    format("Made by <code>{}</code>, which runs what is missing and writes this page.",
                           html::escape(command_text(file))));
  return html::page(experiment.title + " · Stoa", body);
}

Json experiment_json(const Experiment& experiment, const ExperimentCells& cells) {
  const auto or_null = [](const std::optional<double>& value) { return value ? Json(*value) : Json(); };
  Json json = {{"title", experiment.title}, {"seeds", experiment.seeds}, {"rows", Json::array()}};
  for (std::size_t row = 0; row < cells.size(); ++row) {
    Json values = Json::object();
    for (std::size_t i = 0; i < experiment.columns.size(); ++i) {
      const auto& cell = cells[row][i];
      Json seeds = Json::array();
      for (const auto& value : cell.values) seeds.push_back(or_null(value));
      values[experiment.columns[i].value] = {{"heading", experiment.columns[i].heading},
                                             {"mean", or_null(cell.mean())},
                                             {"sd", or_null(cell.spread())},
                                             {"values", seeds}};
    }
    json["rows"].push_back({{"name", experiment.rows[row].name}, {"values", values}});
  }
  return json;
}

}  // namespace stoa
