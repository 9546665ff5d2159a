#include "stoa/train/report.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "support/fake_run.h"
#include "support/html_check.h"
#include "support/temp_dir.h"
#include "support/thrown.h"

namespace stoa {
namespace {

using test::count_of;
using test::FakeRun;

class ReportTest : public ::testing::Test {
 protected:
  // The report of these runs, checked to be well-formed.
  std::string report(const std::vector<FakeRun>& fakes) {
    std::vector<std::filesystem::path> folders;
    for (std::size_t i = 0; i < fakes.size(); ++i) {
      folders.push_back(dir_ / ("run" + std::to_string(i)));
      test::write_fake_run(folders.back(), fakes[i]);
    }
    write_report(folders, dir_ / "report.html");
    const auto page = read_file(dir_ / "report.html");
    EXPECT_EQ(test::markup_fault(page), "");
    return page;
  }
  test::TempDir dir_;
};

FakeRun vit() {
  FakeRun fake;
  fake.title = "ViT";
  fake.model = "vit";
  fake.experts = 0;
  fake.accuracy = 0.8795;
  return fake;
}

TEST_F(ReportTest, OneRunIsShownWhole) {
  const auto page = report({FakeRun{}});
  for (const char* part :
       {"<h1>WideNet, 4 experts</h1>", "One mixture of experts, applied six times", "<td>40,942</td>",
        "<td>6.993 M</td>", "<td>0.8710</td>", "<td>5,322</td>", "<td>1.84 ms</td>", "Training loss",
        "Evaluation: accuracy", "Confusion matrix", "Ankle boot", "The model by part", "patch embedding",
        "33,408", "weight_decay = 0.05"})
    STOA_EXPECT_CONTAINS(page, part);
}

TEST_F(ReportTest, RunsStandSideBySide) {
  const auto page = report({FakeRun{}, vit()});
  STOA_EXPECT_CONTAINS(page, "2 runs side by side");
  STOA_EXPECT_CONTAINS(page, "<td>0.8710</td><td>0.8795</td>");
  STOA_EXPECT_CONTAINS(page, "<td>40,942</td><td>40,938</td>");
  EXPECT_EQ(count_of(page, "Training loss</h4>"), 1U);
  EXPECT_EQ(count_of(page, "href=\"#run-1\""), 1U);
  EXPECT_EQ(count_of(page, "id=\"run-1\""), 1U);
}

TEST_F(ReportTest, TheTableComesBackAsText) {
  test::write_fake_run(dir_ / "wide");
  test::write_fake_run(dir_ / "vit", vit());
  using Row = std::vector<std::string>;
  const auto rows = write_report({dir_ / "wide", dir_ / "vit"}, dir_ / "report.html");
  EXPECT_EQ(rows.at(0), (Row{"", "WideNet, 4 experts", "ViT"}));
  EXPECT_EQ(rows.at(1), (Row{"Evaluation"}));
  EXPECT_EQ(rows.at(2), (Row{"Accuracy", "0.8710", "0.8795"}));
  EXPECT_EQ(std::ranges::count(rows, Row{"Parameters", "40,942", "40,938"}), 1);
}

TEST_F(ReportTest, ExpertsByDepthAreDrawn) {
  const auto page = report({FakeRun{}});
  STOA_EXPECT_CONTAINS(page, "Experts by depth</h4>");
  STOA_EXPECT_CONTAINS(page, "Experts by depth through training</h4>");
  for (const char* part : {">expert 4</li>", ">depth 6</p>", "Dropped assignments", "Router entropy",
                           ">step 480</text>", "Gate mean"})
    STOA_EXPECT_CONTAINS(page, part);
}

TEST_F(ReportTest, RunsWithoutStatisticsHaveNoSuchSection) {
  EXPECT_EQ(count_of(report({vit()}), "Inside the model"), 0U);
}

TEST_F(ReportTest, NothingComesFromElsewhere) {
  const auto page = report({FakeRun{}, vit()});
  for (const char* outside : {"http:", "https:", "url(", "@import", "<script", "<link", "<iframe"})
    EXPECT_EQ(count_of(page, outside), 0U) << outside;
  EXPECT_EQ(count_of(page, "src=\""), count_of(page, "src=\"data:image/png;base64,"));
}

TEST_F(ReportTest, TextOfTheRunCannotBecomeMarkup) {
  FakeRun fake;
  fake.title = "<script>alert('x')</script> & \"co\"";
  fake.description = "a < b";
  const auto page = report({fake, vit()});
  EXPECT_EQ(count_of(page, "<script"), 0U);
  STOA_EXPECT_CONTAINS(page, "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;co&quot;");
}

TEST_F(ReportTest, AnUnfinishedRunSaysHowToEvaluateIt) {
  FakeRun fake;
  fake.evaluated = false;
  const auto page = report({fake});
  STOA_EXPECT_CONTAINS(page, "This run has no evaluation yet");
  STOA_EXPECT_CONTAINS(page, "Training loss");
}

TEST_F(ReportTest, ARunThatHasOnlyStartedHasAPage) {
  test::write_fake_run(dir_ / "new");
  for (const char* file : {"metrics.jsonl", "run.json", "evaluation.json"})
    std::filesystem::remove(dir_ / "new" / file);
  write_report({dir_ / "new"}, dir_ / "report.html");
  EXPECT_EQ(test::markup_fault(read_file(dir_ / "report.html")), "");
}

TEST_F(ReportTest, RunsOfOneTitleAreToldApartByFolder) {
  const auto page = report({vit(), vit()});
  STOA_EXPECT_CONTAINS(page, "ViT (run0)");
  STOA_EXPECT_CONTAINS(page, "ViT (run1)");
}

TEST_F(ReportTest, RefusesAFolderThatIsNoRun) {
  const auto message = test::thrown<ConfigError>([&] { write_report({dir_.path()}, dir_ / "report.html"); });
  STOA_EXPECT_CONTAINS(message, "is not the folder of a run");
  EXPECT_FALSE(std::filesystem::exists(dir_ / "report.html"));
}

TEST_F(ReportTest, RefusesNoRuns) {
  STOA_EXPECT_CONTAINS(test::thrown<ConfigError>([&] { write_report({}, dir_ / "report.html"); }),
                       "at least one run");
}

}  // namespace
}  // namespace stoa
