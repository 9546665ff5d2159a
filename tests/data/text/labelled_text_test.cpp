#include "stoa/data/text/labelled_text.h"

#include <gtest/gtest.h>

#include "stoa/base/errors.h"
#include "support/click_files.h"
#include "support/thrown.h"

namespace stoa {
namespace {

using Names = std::vector<std::string>;

TextTableForm single() {
  TextTableForm form;
  form.first = "text";
  return form;
}

TextTableForm pair() {
  TextTableForm form;
  form.first = "a";
  form.second = "b";
  return form;
}

LabelledTexts parsed(std::string_view text, const TextTableForm& form) {
  return parse_labelled_texts(text, "rows", form);
}

std::string refused(std::string_view text, const TextTableForm& form) {
  return test::thrown<DataError>([&] { parsed(text, form); });
}

std::vector<double> labels(const LabelledTexts& texts) {
  std::vector<double> all;
  for (const auto& row : texts.rows) all.push_back(row.label);
  return all;
}

TEST(LabelledText, ColumnsAreFoundByTheirNames) {
  const auto texts = parsed("id\tlabel\tb\ta\n7\tyes\tB one\tA one\n\n8\tno\tB two\tA two\n", pair());
  ASSERT_EQ(texts.rows.size(), 2u);
  EXPECT_EQ(texts.rows[0].first, "A one");
  EXPECT_EQ(texts.rows[1].second, "B two");
}

TEST(LabelledText, ClassesAreFoundAndSorted) {
  const auto texts = parsed("text\tlabel\nx\tyes\ny\tno\nz\tmaybe\n", single());
  EXPECT_EQ(texts.classes, (Names{"maybe", "no", "yes"}));
  EXPECT_EQ(labels(texts), (std::vector<double>{2, 1, 0}));
}

TEST(LabelledText, ClassesThatAreWholeNumbersAreSortedAsSuch) {
  const auto texts = parsed("text\tlabel\nx\t10\ny\t9\nz\t-1\n", single());
  EXPECT_EQ(texts.classes, (Names{"-1", "9", "10"}));
  EXPECT_EQ(labels(texts), (std::vector<double>{2, 1, 0}));
}

TEST(LabelledText, ListedClassesKeepTheirOrder) {
  auto form = single();
  form.classes = {"yes", "no"};
  EXPECT_EQ(labels(parsed("text\tlabel\nx\tno\ny\tyes\n", form)), (std::vector<double>{1, 0}));
  EXPECT_EQ(refused("text\tlabel\nx\tno\ny\tmaybe\n", form),
            "rows, line 3: `maybe` is not a label; there are: yes, no");
}

TEST(LabelledText, LabelsMayBeNumbers) {
  auto form = single();
  form.numbers = true;
  EXPECT_EQ(labels(parsed("text\tlabel\nx\t2.75\ny\t-1e2\n", form)), (std::vector<double>{2.75, -100}));
  STOA_EXPECT_CONTAINS(refused("text\tlabel\nx\tgood\n", form), "line 2: the label `good` is not a finite");
  STOA_EXPECT_CONTAINS(refused("text\tlabel\nx\tnan\n", form), "the label `nan` is not a finite number");
}

TEST(LabelledText, TablesWithoutHeaderHaveTheirColumnsNamed) {
  auto form = single();
  form.columns = {"source", "label", "mark", "text"};
  const auto texts = parsed("gj04\t1\t\tThe book.\ngj04\t0\t*\tBook the.\n", form);
  ASSERT_EQ(texts.rows.size(), 2u);
  EXPECT_EQ(texts.rows[1].first, "Book the.");
}

TEST(LabelledText, JsonLinesHaveTheColumnsAsMembers) {
  auto form = single();
  form.json_lines = true;
  const auto texts =
      parsed("{\"text\": \"a\\tb\", \"label\": 1}\n\n{\"label\": \"0\", \"text\": \"c\"}\n", form);
  ASSERT_EQ(texts.rows.size(), 2u);
  EXPECT_EQ(texts.rows[0].first, "a\tb");
  EXPECT_EQ(texts.classes, (Names{"0", "1"}));
  STOA_EXPECT_CONTAINS(refused("{\"txt\": \"a\", \"label\": 1}\n", form),
                       "line 1: there is no member `text`; did you mean `txt`?");
  STOA_EXPECT_CONTAINS(refused("{\"text\": [1], \"label\": 1}\n", form), "`text` is array");
  STOA_EXPECT_CONTAINS(refused("{\"text\": \"a\"\n", form), "line 1, column 13: this is no JSON object");
  STOA_EXPECT_CONTAINS(refused("[1]\n", form), "a JSON object is needed");
  STOA_EXPECT_CONTAINS(refused("{\"text\": " + std::string(100'000, '[') + "\n", form),
                       "nested deeper than 8");
}

TEST(LabelledText, WhatDoesNotFitIsRefusedWithItsLine) {
  EXPECT_EQ(refused("txt\tlabel\nx\t1\n", single()),
            "rows, line 1: there is no column `text`; did you mean `txt`?");
  EXPECT_EQ(refused("text\tlabel\nx\t1\ny\n", single()), "rows, line 3: 1 fields in a table of 2 columns");
  EXPECT_EQ(refused("text\tlabel\nx\t1\ty\n", single()), "rows, line 2: 3 fields in a table of 2 columns");
  EXPECT_EQ(refused("text\tlabel\n \t1\n", single()), "rows, line 2: `text` is empty");
  EXPECT_EQ(refused("a\tb\tlabel\nx\t\t1\n", pair()), "rows, line 2: `b` is empty");
  EXPECT_EQ(refused("text\tlabel\nx\t\n", single()), "rows, line 2: the label is empty");
  EXPECT_EQ(refused("text\tlabel\n", single()), "rows: there are no rows");
  STOA_EXPECT_CONTAINS(refused("", single()), "rows: there are no rows");
}

TEST(LabelledText, BadRowsMayBeCountedAndLeftOut) {
  auto form = pair();
  form.skip_bad = true;
  const auto texts = parsed("a\tb\tlabel\nx\ty\t1\nx\nx\t\t0\nz\tw\t0\n", form);
  EXPECT_EQ(texts.rows.size(), 2u);
  EXPECT_EQ(texts.skipped, 2);
  EXPECT_EQ(texts.skipped_for, "rows, line 3: 1 fields in a table of 3 columns");
}

TEST(LabelledText, RowsWithoutLabelsMayHaveEmptySentences) {
  auto form = pair();
  form.label.clear();
  EXPECT_EQ(parsed("index\ta\tb\n0\tx\t\n", form).rows.size(), 1u);
}

TEST(LabelledText, FilesMayBePackedAndTellJsonByTheirName) {
  const test::TempDir folder;
  test::write_gzip(folder / "rows.tsv.gz", "text\tlabel\nx\t1\ny\t0\n");
  test::write_gzip(folder / "rows.jsonl.gz", "{\"text\": \"x\", \"label\": true}\n");
  EXPECT_EQ(read_labelled_texts(folder / "rows.tsv.gz", single()).rows.size(), 2u);
  EXPECT_EQ(read_labelled_texts(folder / "rows.jsonl.gz", single()).classes, (Names{"true"}));
}

TEST(Sentences, EachLineIsOneOrTwo) {
  const auto rows = parse_sentences("It \"is\".\r\nSo what?", "lines", single());
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].first, "It \"is\".");
  EXPECT_EQ(parse_sentences("one\ttwo\n", "lines", pair())[0].second, "two");
}

TEST(Sentences, AFirstLineMayNameColumns) {
  const auto rows = parse_sentences("index\tb\ta\n0\tB\tA\n1\tD\t\n", "lines", pair());
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].first, "A");
  EXPECT_EQ(rows[1].second, "D");
}

TEST(Sentences, ALineMayBeAJsonObject) {
  EXPECT_EQ(parse_sentences("{\"b\": \"two\", \"a\": \"one\", \"label\": 1}\n", "lines", pair())[0].first,
            "one");
}

TEST(Sentences, WhatDoesNotFitIsRefusedWithItsLine) {
  const auto refused_line = [](std::string_view text, const TextTableForm& form) {
    return test::thrown<DataError>([&] { parse_sentences(text, "lines", form); });
  };
  STOA_EXPECT_CONTAINS(refused_line("x\none\ttwo\n", single()),
                       "lines, line 2: 2 fields between tabs; a sentence without tabs");
  STOA_EXPECT_CONTAINS(refused_line("one\n", pair()), "line 1: 1 fields between tabs; two sentences");
  EXPECT_EQ(refused_line("x\n\ny\n", single()), "lines, line 2: there is no text");
  EXPECT_EQ(refused_line("", single()), "lines: there is no text");
  EXPECT_EQ(refused_line("index\ttext\n", single()), "lines: there is no text");
}

}  // namespace
}  // namespace stoa
