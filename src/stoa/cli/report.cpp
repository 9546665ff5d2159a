#include "stoa/train/report.h"

#include <CLI/CLI.hpp>

#include "stoa/cli/commands.h"
#include "stoa/cli/table.h"

namespace fs = std::filesystem;

namespace stoa::cli {

namespace {

struct ReportArguments {
  std::vector<std::string> runs;
  std::string out;
};

void report_command(const Program& program, const ReportArguments& arguments) {
  const std::vector<fs::path> runs(arguments.runs.begin(), arguments.runs.end());
  fs::path html = arguments.out;
  if (html.empty()) html = runs.size() == 1 ? runs[0] / "report.html" : fs::path("report.html");
  const auto rows = write_report(runs, html);
  print_result(program, {{"report", html.string()}, {"runs", arguments.runs}},
               text_table(rows) + "\n" + html.string());
}

}  // namespace

void add_report(Program& program) {
  const auto arguments = std::make_shared<ReportArguments>();
  CLI::App& command =
      add_command(program, "report", "write one HTML page about one or several runs, and print their table",
                  "stoa report runs/wide_net-0 runs/vit-0 --out comparison.html",
                  [&program, arguments] { report_command(program, *arguments); });
  command.add_option("RUN", arguments->runs, "folders of runs")->type_name("")->required();
  command
      .add_option("--out", arguments->out,
                  "the page; RUN/report.html if not given, report.html for several runs")
      ->type_name("FILE");
}

}  // namespace stoa::cli
