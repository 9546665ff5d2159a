#include "stoa/train/report.h"

#include <algorithm>
#include <map>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/train/html.h"
#include "stoa/train/report_parts.h"

namespace stoa {

namespace {

// Runs of one title are told apart by their folders.
void make_titles_unique(std::vector<RunRecord>& runs) {
  std::map<std::string, int> count;
  for (const auto& run : runs) ++count[run.title];
  for (auto& run : runs)
    if (count[run.title] > 1)
      run.title += format(" ({})", std::filesystem::weakly_canonical(run.folder).filename().string());
}

std::string lead(const RunRecord& run) {
  const std::string description = run.recipe.value("description", "");
  return description.empty() ? "" : html::element("p", html::escape(description), "lead");
}

std::string heading(const std::vector<RunRecord>& runs) {
  if (runs.size() > 1) return html::element("h1", format("{} runs side by side", runs.size()));
  return html::element("h1", html::escape(runs.front().title)) + lead(runs.front());
}

std::string run_section(const RunRecord& run, std::size_t index, bool alone) {
  std::string section;
  if (!alone) {
    section += format("<h2 id=\"run-{}\"><span class=\"swatch c{}\"></span>{}</h2>\n", index, index % 8,
                      html::escape(run.title));
    section += lead(run);
  }
  const std::string tag = alone ? "h2" : "h3";
  if (run.evaluation.empty())
    section += html::element("p",
                             format("This run has no evaluation yet; <code>stoa eval {}</code> makes one.",
                                    html::escape(run.folder.string())),
                             "quiet");
  std::string exhibits;
  for (const auto& exhibit : run.exhibits) exhibits += report::exhibit(exhibit);
  if (!exhibits.empty()) section += html::element(tag, "Evaluation") + html::element("div", exhibits, "grid");
  if (const auto statistics = report::statistics(run); !statistics.empty())
    section += html::element(tag, "Inside the model") + statistics;
  if (const auto parts = report::parts_table(run); !parts.empty())
    section += html::element(tag, "The model by part") + parts;
  section += html::element(tag, "Recipe") +
             html::details("Every setting of this run", html::element("pre", html::escape(run.recipe_text)));
  return html::element("section", section);
}

}  // namespace

std::vector<std::vector<std::string>> write_report(const std::vector<std::filesystem::path>& runs,
                                                   const std::filesystem::path& html) {
  if (runs.empty()) throw ConfigError("a report needs at least one run; name the folder of one");
  std::vector<RunRecord> records;
  for (const auto& folder : runs) records.push_back(read_run(folder));
  make_titles_unique(records);
  const bool alone = records.size() == 1;
  std::string body = heading(records) + report::runs_table(records) + report::curves(records);
  for (std::size_t i = 0; i < records.size(); ++i) body += run_section(records[i], i, alone);
  body += html::element("footer",
                        "Made by <code>stoa report</code>. Everything on this page is inside this one file.");
  const std::string title = alone ? records.front().title : format("{} runs side by side", records.size());
  write_file_atomically(html, html::page(title + " · Stoa", body));
  return report::runs_rows(records);
}

}  // namespace stoa
