#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <functional>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/base/interrupt.h"
#include "stoa/base/text.h"
#include "stoa/cli/commands.h"
#include "stoa/cli/data_text.h"
#include "stoa/cli/table.h"
#include "stoa/data/tabular/prepare.h"
#include "stoa/data/tabular/statistics.h"
#include "stoa/data/text/prepared_text.h"
#include "stoa/train/chart.h"
#include "stoa/train/html.h"

namespace fs = std::filesystem;

namespace stoa::cli {

namespace {

std::string percent(double share) {
  return format("{:.1f} %", 100 * share);
}

double rate(const TabularStatistics::Split& split) {
  return static_cast<double>(split.positives) / static_cast<double>(split.rows);
}

using Rows = std::vector<std::vector<std::string>>;

Rows split_rows(const TabularStatistics& statistics) {
  Rows rows = {{"split", "rows", "clicks", "click rate"}};
  for (const auto& split : statistics.splits)
    rows.push_back({split.name, thousands(split.rows), thousands(split.positives), percent(rate(split))});
  return rows;
}

Rows field_rows(const TabularStatistics& statistics) {
  Rows rows = {{"field", "ids", "seen", "once", "unknown", "top 10", "top 1000", "median", "p99", "max"}};
  const double all = static_cast<double>(statistics.splits.at(0).rows);
  for (const FieldStatistics& field : statistics.fields)
    rows.push_back(
        {field.name, thousands(field.size), thousands(field.seen),
         field.seen > 0 ? percent(static_cast<double>(field.once) / static_cast<double>(field.seen)) : "-",
         field.has_unknown ? percent(static_cast<double>(field.unknown) / all) : "-",
         percent(field.covered_by(10)), percent(field.covered_by(1000)), thousands(field.median),
         thousands(field.ninety_nine), thousands(field.most)});
  return rows;
}

constexpr const char* kFieldNote =
    "seen: ids in training rows; once: share of them that occur in one row; unknown: share of training rows "
    "with a value "
    "that has no id of its own; top k: share of rows with one of the k most frequent ids; median, p99, max: "
    "rows an id.";

std::string summary(const TabularStatistics& statistics) {
  return format("{} fields with {} ids ({} vocabulary), {} numbers", statistics.fields.size(),
                thousands(statistics.ids()), statistics.vocabulary, statistics.numerics.size());
}

std::string as_text(const TabularStatistics& statistics) {
  std::string text =
      format("{}: {}\n\n{}\n{}\n{}\n", statistics.source, summary(statistics),
             text_table(split_rows(statistics)), text_table(field_rows(statistics)), kFieldNote);
  if (!statistics.numerics.empty()) {
    Rows rows = {{"number", "lowest", "highest"}};
    for (const auto& [name, range] : statistics.numerics)
      rows.push_back({name, format("{:.6g}", range.low), format("{:.6g}", range.high)});
    text += "\n" + text_table(rows);
  }
  return text;
}

constexpr std::size_t kNamedLines = 8;  // colours that are told apart

/// How fast the most frequent ids cover the rows: the steeper, the longer the tail behind them. The fields
/// with the most ids are named, the others are grey.
std::string coverage_chart(const TabularStatistics& statistics) {
  html::Chart chart{.x_title = "most frequent ids, log10",
                    .y_title = "share of training rows",
                    .range = std::pair(0.0, 1.0)};
  std::vector<const FieldStatistics*> fields;
  for (const FieldStatistics& field : statistics.fields) fields.push_back(&field);
  std::ranges::stable_sort(fields, std::greater(), &FieldStatistics::seen);
  for (std::size_t i = fields.size(); i-- > 0;) {
    html::ChartLine line{.colour = -1, .opacity = 0.4};
    if (i < kNamedLines) line = {.name = fields[i]->name, .colour = static_cast<int>(i)};
    for (const auto& [ids, share] : fields[i]->coverage) {
      line.x.push_back(std::log10(static_cast<double>(ids)));
      line.y.push_back(share);
    }
    chart.lines.push_back(std::move(line));
  }
  return html::line_chart(chart);
}

std::string top_table(const TabularStatistics& statistics) {
  Rows rows = {{"field", "most frequent values (training rows)"}};
  for (const FieldStatistics& field : statistics.fields) {
    std::vector<std::string> values;
    for (const auto& [value, count] : field.top) values.push_back(format("{} ({})", value, thousands(count)));
    rows.push_back({field.name, join(values, ", ")});
  }
  return html::text_table(rows, true);
}

std::string as_page(const TabularStatistics& statistics, const std::string& name) {
  std::string body = html::element("h1", html::escape(name)) +
                     html::element("p", html::escape(statistics.source + ": " + summary(statistics)), "lead");
  body += html::element("h2", "Rows") + html::text_table(split_rows(statistics));
  body += html::element("h2", "Long tail");
  body += html::figure(
      "Rows covered by the most frequent ids", coverage_chart(statistics),
      "A line that is high at the left belongs to a field whose few frequent ids are in most rows; the "
      "ids at the right occur in hardly any. Named are the fields with the most ids.",
      true);
  body += html::element("h2", "Fields") + html::text_table(field_rows(statistics)) +
          html::element("p", html::escape(kFieldNote), "quiet") +
          html::details("Most frequent values", top_table(statistics));
  body += html::element("footer", "Made by <code>stoa data describe</code>.");
  return html::page(name + " · Stoa", body);
}

struct DescribeArguments {
  std::string folder, out;
};

void describe_command(const Program& program, const DescribeArguments& arguments) {
  const fs::path out = arguments.out;
  if (!arguments.out.empty() && out.extension() != ".html")
    throw ConfigError(
        format("--out {}: the picture is a page of HTML; give a name that ends in .html", arguments.out));
  if (is_prepared_text(arguments.folder))
    return describe_text_command(program, arguments.folder, arguments.out);
  const TabularStatistics statistics = describe_tabular(arguments.folder);
  Json json = statistics.to_json();
  std::string text = as_text(statistics);
  if (!arguments.out.empty()) {
    const std::string name = fs::weakly_canonical(arguments.folder).filename().string();
    write_file_atomically(out, as_page(statistics, name));
    json["page"] = arguments.out;
    text += "\n" + arguments.out;
  }
  print_result(program, json, text);
}

struct PrepareArguments {
  PrepareOptions options;
  std::vector<std::string> inputs;
  std::string out, schema, vocabulary, vocabulary_of, preprocess = "official";
  std::int64_t min_count = 0;
  std::vector<CLI::Option*> click_flags;  // those that are not for text
  PrepareTextFlags text;
};

/// Throws ConfigError where one of `flags` was given.
void refuse_flags(const std::vector<CLI::Option*>& flags, const std::string& source) {
  for (const CLI::Option* flag : flags)
    if (flag->count() > 0) throw ConfigError(format("{} is not for {}", flag->get_name(), source));
}

void prepare_command(const Program& program, const PrepareArguments& arguments, bool with_min_count) {
  const bool is_text = arguments.options.source == "text";
  refuse_flags(is_text ? arguments.click_flags : arguments.text.options, arguments.options.source);
  if (is_text)
    return prepare_text_command(program, arguments.text, arguments.inputs, arguments.out,
                                arguments.options.overwrite);
  install_interrupt_handler();
  PrepareOptions options = arguments.options;
  options.inputs.assign(arguments.inputs.begin(), arguments.inputs.end());
  options.out = arguments.out;
  options.table_schema = arguments.schema;
  options.vocabulary_of = arguments.vocabulary_of;
  options.bars = arguments.preprocess == "bars";
  if (with_min_count) options.min_count = arguments.min_count;
  if (!arguments.vocabulary.empty())
    options.vocabulary = arguments.vocabulary == "exact"  ? VocabularyKind::kExact
                         : arguments.vocabulary == "hash" ? VocabularyKind::kHash
                                                          : VocabularyKind::kThreshold;
  prepare_tabular(options);
  const TabularStatistics statistics = describe_tabular(options.out);
  Json json = statistics.to_json();
  json["folder"] = arguments.out;
  print_result(program, json,
               format("{}: {}\n{}", arguments.out, summary(statistics), text_table(split_rows(statistics))));
}

void add_click_flags(CLI::App& command, PrepareArguments& arguments, CLI::Option*& min_count) {
  std::vector<CLI::Option*>& flags = arguments.click_flags;
  PrepareOptions& options = arguments.options;
  flags.push_back(command.add_option("--schema", arguments.schema, "csv: TOML file that names the columns")
                      ->type_name("FILE"));
  flags.push_back(command.add_option("--preprocess", arguments.preprocess,
                                     "official (numbers scaled to 0..1) or bars (bucketed to ids)"));
  set_words(*flags.back(), {"official", "bars"});
  flags.push_back(command.add_option("--vocabulary", arguments.vocabulary,
                                     "exact, threshold (rare values share id 0) or hash"));
  set_words(*flags.back(), {"exact", "threshold", "hash"});
  min_count =
      command
          .add_option("--min-count", arguments.min_count, "threshold: training rows that give a value an id")
          ->type_name("N");
  flags.push_back(min_count);
  flags.push_back(
      command.add_option("--buckets", options.buckets, "hash: ids of each field")->type_name("N"));
  flags.push_back(command
                      .add_option("--split", options.split,
                                  "random, seq (the last seventh is for test) or shares such as 8:1:1")
                      ->type_name("RULE"));
  flags.push_back(
      command.add_option("--seed", options.seed, "of the random split and the hash")->type_name("N"));
  flags.push_back(command
                      .add_option("--vocabulary-of", arguments.vocabulary_of,
                                  "prepared data whose ids are kept; new values follow them")
                      ->type_name("DIR"));
}

void add_prepare(Program& program, CLI::App& parent) {
  const auto arguments = std::make_shared<PrepareArguments>();
  const auto min_count = std::make_shared<CLI::Option*>(nullptr);
  CLI::App& command = add_subcommand(
      program, parent, "prepare", "turn raw click logs or text into the form that training reads",
      "stoa data prepare criteo train.txt.gz --out data/criteo\n"
      "  stoa data prepare csv clicks.csv --schema clicks.toml --out data/clicks\n"
      "  stoa data prepare text wiki/ --tokenizer vocab.txt --out data/wiki",
      [&program, arguments, min_count] { prepare_command(program, *arguments, (*min_count)->count() > 0); });
  const std::vector<std::string> sources = {"criteo", "avazu", "csv", "movielens", "text"};
  set_words(*command.add_option("FORMAT", arguments->options.source, "criteo, avazu, csv, movielens or text")
                 ->required(),
            sources);
  command
      .add_option("RAW", arguments->inputs,
                  "raw files, plain, .gz or .zst (movielens: its folder; text: folders too)")
      ->type_name("")
      ->required();
  command.add_option("--out", arguments->out, "folder to write; an interrupted preparation goes on")
      ->type_name("DIR")
      ->required();
  add_click_flags(command, *arguments, *min_count);
  add_text_flags(command, arguments->text);
  command.add_flag("--overwrite", arguments->options.overwrite, "replace other prepared data in the folder");
}

void add_describe(Program& program, CLI::App& parent) {
  const auto arguments = std::make_shared<DescribeArguments>();
  CLI::App& command =
      add_subcommand(program, parent, "describe",
                     "what prepared data hold: fields and click rate, or lengths and frequent tokens",
                     "stoa data describe data/criteo --out criteo.html",
                     [&program, arguments] { describe_command(program, *arguments); });
  command.add_option("DIR", arguments->folder, "folder of prepared data")->type_name("")->required();
  command.add_option("--out", arguments->out, "also as a page with pictures: a name that ends in .html")
      ->type_name("FILE");
}

}  // namespace

void add_data(Program& program) {
  CLI::App& command =
      add_command(program, "data", "prepare click logs and text for training, and describe them",
                  "stoa data prepare movielens ml-latest-small --out data/movielens", [] {});
  command.callback(nullptr);  // it would run after the chosen one's
  command.require_subcommand(1);
  add_prepare(program, command);
  add_describe(program, command);
}

}  // namespace stoa::cli
