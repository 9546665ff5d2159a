#include "stoa/data/text/glue.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "stoa/base/errors.h"
#include "support/click_files.h"
#include "support/test_data.h"
#include "support/thrown.h"

namespace stoa {
namespace {

LabelledTexts parsed(GlueTask task, const std::string& text) {
  return parse_labelled_texts(text, "rows", glue_layout(task).form);
}

std::vector<LabelledText> tests_of(GlueTask task, const std::string& text) {
  return parse_labelled_texts(text, "rows", glue_layout(task).tests).rows;
}

void expect_row(const LabelledText& row, const std::string& first, const std::string& second, double label) {
  EXPECT_EQ(row.first, first);
  EXPECT_EQ(row.second, second);
  EXPECT_EQ(row.label, label);
}

TEST(Glue, CoLaHasNoHeaderButItsTestFile) {
  expect_row(parsed(GlueTask::kCola, "gj04\t0\t*\tThey \"drank.\n").rows.at(0), "They \"drank.", "", 0);
  expect_row(tests_of(GlueTask::kCola, "index\tsentence\n0\tBill ran.\n").at(0), "Bill ran.", "", 0);
}

TEST(Glue, Sst2) {
  expect_row(parsed(GlueTask::kSst2, "sentence\tlabel\na gem . \t1\n").rows.at(0), "a gem . ", "", 1);
  expect_row(tests_of(GlueTask::kSst2, "index\tsentence\n0\tdull .\n").at(0), "dull .", "", 0);
}

TEST(Glue, MrpcMayBeginWithAByteOrderMark) {
  expect_row(parsed(GlueTask::kMrpc,
                    "\xef\xbb\xbfQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n"
                    "1\t7\t8\tHe said \"no.\tNo, he said.\r\n")
                 .rows.at(0),
             "He said \"no.", "No, he said.", 1);
  expect_row(tests_of(GlueTask::kMrpc, "index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t7\t8\tA\tB\n").at(0),
             "A", "B", 0);
}

TEST(Glue, StsBHasNumbers) {
  const std::string header =
      "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2";
  expect_row(
      parsed(GlueTask::kStsb, header + "\tscore\n0\tcaptions\tf\t2012\t1\tn\tn\tA plane.\tA jet.\t4.750\n")
          .rows.at(0),
      "A plane.", "A jet.", 4.75);
  expect_row(tests_of(GlueTask::kStsb, header + "\n0\tcaptions\tf\t2012\t1\tn\tn\tA\tB\n").at(0), "A", "B",
             0);
}

TEST(Glue, QqpRowsThatBreakOffAreCountedAndLeftOut) {
  const auto texts = parsed(GlueTask::kQqp,
                            "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
                            "1\t2\t3\tWhy?\tHow?\t0\n"
                            "4\t5\t6\tWhat is\n"
                            "7\t8\t9\tWho?\tWho is it?\t1\n");
  ASSERT_EQ(texts.rows.size(), 2u);
  EXPECT_EQ(texts.skipped, 1);
  expect_row(texts.rows[1], "Who?", "Who is it?", 1);
  EXPECT_EQ(tests_of(GlueTask::kQqp, "id\tquestion1\tquestion2\n0\tA?\tB?\n").size(), 1u);
}

TEST(Glue, MnliHasTwoDevelopmentFilesOfMoreColumns) {
  const std::string front =
      "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\t"
      "sentence1_parse\tsentence2_parse\tsentence1\tsentence2";
  const std::string row = "0\t1\t1n\tfiction\t( A )\t( B )\t(A)\t(B)\tA\tB";
  const double neutral = 2;
  expect_row(
      parsed(GlueTask::kMnli, front + "\tlabel1\tgold_label\n" + row + "\tneutral\tneutral\n").rows.at(0),
      "A", "B", neutral);
  expect_row(parsed(GlueTask::kMnli, front + "\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5\tgold_label\n" + row +
                                         "\tneutral\tentailment\tneutral\tneutral\tneutral\tcontradiction\n")
                 .rows.at(0),
             "A", "B", 0);
  expect_row(tests_of(GlueTask::kMnli, front + "\n" + row + "\n").at(0), "A", "B", 0);
  EXPECT_EQ(glue_layout(GlueTask::kMnli).dev.size(), 2u);
}

TEST(Glue, QnliRteAndWnli) {
  expect_row(
      parsed(GlueTask::kQnli, "index\tquestion\tsentence\tlabel\n0\tWho?\tHe.\tnot_entailment\n").rows.at(0),
      "Who?", "He.", 1);
  expect_row(parsed(GlueTask::kRte, "index\tsentence1\tsentence2\tlabel\n0\tA\tB\tentailment\n").rows.at(0),
             "A", "B", 0);
  expect_row(parsed(GlueTask::kWnli, "index\tsentence1\tsentence2\tlabel\n0\tA\tB\t1\n").rows.at(0), "A", "B",
             1);
}

TEST(Glue, FilesAreFoundInTheTasksFolderAndInThatOfAllTasks) {
  const test::TempDir folder;
  test::write_text(folder / "RTE/train.tsv", "x");
  test::write_gzip(folder / "RTE/dev.tsv.gz", "x");
  test::write_text(folder / "diagnostic/diagnostic.tsv", "x");
  const auto& rte = glue_layout(GlueTask::kRte);
  EXPECT_EQ(find_glue_file(folder.path(), rte, "train"), folder / "RTE/train.tsv");
  EXPECT_EQ(find_glue_file(folder / "RTE", rte, "dev"), folder / "RTE/dev.tsv.gz");
  EXPECT_TRUE(has_glue_file(folder.path(), glue_layout(GlueTask::kMnli), "diagnostic"));
  EXPECT_FALSE(has_glue_file(folder.path(), rte, "test"));
  STOA_EXPECT_CONTAINS(test::thrown<DataError>([&] { find_glue_file(folder.path(), rte, "test"); }),
                       "there is no test.tsv or test.tsv.gz, nor in");
}

TEST(Glue, SubmissionsHaveAHeaderAndTheLabelsAsPublished) {
  EXPECT_EQ(glue_submission(glue_layout(GlueTask::kQnli), std::vector<double>{1, 0}),
            "index\tprediction\n0\tnot_entailment\n1\tentailment\n");
  EXPECT_EQ(glue_submission(glue_layout(GlueTask::kCola), std::vector<double>{1, 0}),
            "index\tprediction\n0\t1\n1\t0\n");
  EXPECT_EQ(glue_submission(glue_layout(GlueTask::kStsb), std::vector<double>{2.34567, 5.2, -1}),
            "index\tprediction\n0\t2.346\n1\t5.000\n2\t0.000\n");
}

/// Rows, and those of class 1, of a file of the test data.
std::pair<std::int64_t, std::int64_t> counts(GlueTask task, const std::string& name) {
  const auto& layout = glue_layout(task);
  const auto texts = read_labelled_texts(find_glue_file(test::test_data("glue"), layout, name), layout.form);
  EXPECT_EQ(texts.skipped, 0);
  return {std::ssize(texts.rows), std::ranges::count(texts.rows, 1.0, &LabelledText::label)};
}

TEST(RealGlue, EveryRowOfCoLaSst2AndRteIsRead) {
  STOA_NEEDS_TEST_DATA("glue");
  EXPECT_EQ(counts(GlueTask::kCola, "train").first, 8551);
  EXPECT_EQ(counts(GlueTask::kCola, "dev"), (std::pair<std::int64_t, std::int64_t>{1043, 721}));
  EXPECT_EQ(counts(GlueTask::kSst2, "train").first, 67349);
  EXPECT_EQ(counts(GlueTask::kSst2, "dev"), (std::pair<std::int64_t, std::int64_t>{872, 444}));
  EXPECT_EQ(counts(GlueTask::kRte, "train").first, 2490);
  EXPECT_EQ(counts(GlueTask::kRte, "dev"), (std::pair<std::int64_t, std::int64_t>{277, 131}));
}

}  // namespace
}  // namespace stoa
