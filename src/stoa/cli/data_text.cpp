#include "stoa/cli/data_text.h"

#include <CLI/CLI.hpp>
#include <cmath>
#include <filesystem>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/base/interrupt.h"
#include "stoa/base/text.h"
#include "stoa/cli/table.h"
#include "stoa/data/text/prepare_text.h"
#include "stoa/data/text/text_statistics.h"
#include "stoa/train/chart.h"
#include "stoa/train/html.h"

namespace fs = std::filesystem;

namespace stoa::cli {

namespace {

using Rows = std::vector<std::vector<std::string>>;

std::string summary(const TextStatistics& statistics) {
  return format("{} tokens of a {} vocabulary of {}, {} of which occur; {:.2f} % unknown",
                thousands(statistics.tokens), statistics.tokenizer, thousands(statistics.vocabulary),
                thousands(statistics.seen), 100 * statistics.unknown_share());
}

Rows length_rows(const TextStatistics& statistics) {
  Rows rows = {{"tokens in", "number", "mean", "median", "p99", "max"}};
  const std::pair<const char*, const LengthStatistics*> kinds[] = {{"documents", &statistics.documents},
                                                                   {"sentences", &statistics.sentences}};
  for (const auto& [name, lengths] : kinds)
    rows.push_back({name, thousands(lengths->count), format("{:.1f}", lengths->mean),
                    thousands(lengths->median), thousands(lengths->ninety_nine), thousands(lengths->most)});
  return rows;
}

/// A token that is shown: white space and what cannot be printed would not be seen.
std::string shown(const std::string& token) {
  std::string text;
  for (const char c : token) {
    const auto byte = static_cast<unsigned char>(c);
    text += c == ' '                   ? "␠"
            : c == '\n'                ? "\\n"
            : c == '\t'                ? "\\t"
            : byte < 32 || byte == 127 ? format("\\x{:02x}", unsigned{byte})
                                       : std::string(1, c);
  }
  return text;
}

Rows top_rows(const TextStatistics& statistics) {
  Rows rows = {{"most frequent", "times", "share"}};
  for (const auto& [token, count] : statistics.top)
    rows.push_back(
        {shown(token), thousands(count),
         format("{:.2f} %", 100 * static_cast<double>(count) / static_cast<double>(statistics.tokens))});
  return rows;
}

std::string as_page(const TextStatistics& statistics, const std::string& name) {
  html::Chart chart{
      .x_title = "most frequent ids, log10", .y_title = "share of tokens", .range = std::pair(0.0, 1.0)};
  html::ChartLine line{.name = "tokens", .colour = 0};
  for (const auto& [ids, share] : statistics.coverage) {
    line.x.push_back(std::log10(static_cast<double>(ids)));
    line.y.push_back(share);
  }
  chart.lines.push_back(std::move(line));
  std::string body =
      html::element("h1", html::escape(name)) + html::element("p", html::escape(summary(statistics)), "lead");
  body += html::element("h2", "Lengths") + html::text_table(length_rows(statistics));
  body +=
      html::element("h2", "Tokens") +
      html::figure("Text covered by the most frequent ids", html::line_chart(chart),
                   "A line that is high at the left says that few tokens make up most of the text.", true) +
      html::text_table(top_rows(statistics));
  body += html::element("footer", "Made by <code>stoa data describe</code>.");
  return html::page(name + " · Stoa", body);
}

}  // namespace

void add_text_flags(CLI::App& command, PrepareTextFlags& flags) {
  flags.options.push_back(
      command
          .add_option("--tokenizer", flags.tokenizer,
                      "text: \"bytes\", vocab.txt, tokenizer.json, SentencePiece model, or a folder with one")
          ->type_name("PLACE"));
  flags.options.push_back(
      command.add_option("--sentences", flags.sentences,
                         "text: a line is a sentence, or is split into some; or documents are kept whole"));
  set_words(*flags.options.back(), {"lines", "split", "whole"});
  flags.options.push_back(
      command.add_option("--key", flags.key, "text: of JSON lines, the key of the text")->type_name("NAME"));
  flags.options.push_back(command.add_option("--broken-utf8", flags.broken_utf8,
                                             "text: what is not UTF-8 reads as U+FFFD, or is refused"));
  set_words(*flags.options.back(), {"replace", "refuse"});
  flags.options.push_back(
      command.add_option("--threads", flags.threads, "text: 0 is one a core")->type_name("N"));
}

void prepare_text_command(const Program& program, const PrepareTextFlags& flags,
                          const std::vector<std::string>& inputs, const std::string& out, bool overwrite) {
  install_interrupt_handler();
  PrepareTextOptions options;
  options.inputs.assign(inputs.begin(), inputs.end());
  options.out = out;
  options.threads = flags.threads;
  options.overwrite = overwrite;
  options.rules.sentences = flags.sentences == "lines"   ? SentenceRule::kLines
                            : flags.sentences == "split" ? SentenceRule::kSplit
                                                         : SentenceRule::kWhole;
  options.rules.key = flags.key;
  options.rules.broken = flags.broken_utf8 == "refuse" ? BrokenUtf8::kRefuse : BrokenUtf8::kReplace;
  if (flags.tokenizer.empty())
    throw ConfigError("text needs --tokenizer: \"bytes\", or a file or folder of a vocabulary");
  options.tokenizer = load_tokenizer(flags.tokenizer, options.rules.broken);
  const PreparedText made = prepare_text(options);
  const TextStatistics statistics = describe_text(made, *options.tokenizer);
  Json json = statistics.to_json();
  json["folder"] = out;
  print_result(program, json,
               format("{}: {}\n{}", out, summary(statistics), text_table(length_rows(statistics))));
}

void describe_text_command(const Program& program, const std::string& folder, const std::string& page) {
  const PreparedText text = PreparedText::open(folder);
  const TextStatistics statistics = describe_text(text, *text.load_tokenizer());
  Json json = statistics.to_json();
  std::string result = format("{}: {}\n\n{}\n{}", folder, summary(statistics),
                              text_table(length_rows(statistics)), text_table(top_rows(statistics)));
  if (!page.empty()) {
    write_file_atomically(page, as_page(statistics, fs::weakly_canonical(folder).filename().string()));
    json["page"] = page;
    result += "\n" + page;
  }
  print_result(program, json, result);
}

}  // namespace stoa::cli
