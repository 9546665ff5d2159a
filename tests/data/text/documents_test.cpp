#include "stoa/data/text/documents.h"

#include <gtest/gtest.h>

#include "stoa/base/progress.h"
#include "stoa/data/text/text_dataset.h"
#include "support/thrown.h"
#include "support/word_tokenizer.h"
#include "support/zstd_file.h"

namespace stoa::test {
namespace {

namespace fs = std::filesystem;

using Documents = std::vector<std::vector<std::vector<std::int32_t>>>;

/// The sentences of each document of a token file.
Documents content(const TokenFile& file) {
  Documents documents;
  const TokenIndex& index = file.index();
  for (std::int64_t d = 0; d < index.documents(); ++d) {
    documents.emplace_back();
    for (std::int64_t s = index.document_begin(d); s < index.document_begin(d + 1); ++s) {
      std::vector<std::int32_t> ids(index.sentence_begin(s + 1) - index.sentence_begin(s));
      file.read(index.sentence_begin(s), std::ssize(ids), ids.data());
      documents.back().push_back(ids);
    }
  }
  return documents;
}

class DocumentsTest : public ::testing::Test {
 protected:
  DocumentsTest() { set_verbosity(Verbosity::kQuiet); }

  Documents read(const std::vector<fs::path>& places, const TextRules& rules = {}) const {
    return content(*tokenize_in_memory(places, rules, tokenizer_));
  }
  Documents read(const std::string& name, const std::string& text, const TextRules& rules = {}) const {
    write_text(folder_ / name, text);
    return read({folder_ / name}, rules);
  }

  TempDir folder_;
  WordTokenizer tokenizer_;
};

TEST_F(DocumentsTest, LinesAreSentencesAndBlankLinesPartDocuments) {
  const Documents two = {{{11, 12}, {13}}, {{14}}};
  EXPECT_EQ(read("a.txt", "w11 w12\nw13\n\nw14\n"), two);
  EXPECT_EQ(read("a.txt", "\xef\xbb\xbf\n \n  w11 w12\r\nw13 \r\n\t\n\n\nw14"), two);
}

TEST_F(DocumentsTest, AFileEndsADocument) {
  write_text(folder_ / "a.txt", "w11\nw12");
  write_text(folder_ / "b.txt", "w13\n");
  EXPECT_EQ(read({folder_ / "a.txt", folder_ / "b.txt"}), (Documents{{{11}, {12}}, {{13}}}));
}

TEST_F(DocumentsTest, ParagraphsAreSplit) {
  const TextRules rules{.sentences = SentenceRule::kSplit};
  EXPECT_EQ(read("a.txt", "w11 . W12 w13 ! w14\n\nw15", rules),
            (Documents{{{11, 1}, {12, 13, 1, 14}}, {{15}}}));
  EXPECT_EQ(read("b.txt", "w11 . W12\nW13 ?", rules), (Documents{{{11, 1}, {12}, {13, 1}}}));
}

TEST_F(DocumentsTest, WholeTextKeepsItsLineBreaks) {
  const TextRules rules{.sentences = SentenceRule::kWhole};
  EXPECT_EQ(read("a.txt", "w11\n\n w12\nw13", rules), (Documents{{{11, 6}, {6}, {12, 6}, {13}}}));
  EXPECT_EQ(read("a.jsonl", R"({"text": "w11\n\nw12\n"})", rules), (Documents{{{11, 6, 6, 12, 6}}}));
}

TEST_F(DocumentsTest, EachJsonLineIsADocument) {
  const std::string lines =
      "{\"text\": \"w11 w12\\n\\nw13\", \"id\": 1}\n\n{\"text\": \"\"}\n{\"text\": \"w14\"}";
  const Documents two = {{{11, 12}, {13}}, {{14}}};
  for (const char* name : {"a.jsonl", "a.json", "a.ndjson"}) EXPECT_EQ(read(name, lines), two);
  EXPECT_EQ(read("b.jsonl", "{\"body\": \"w11\"}", {.key = "body"}), (Documents{{{11}}}));
}

TEST_F(DocumentsTest, PackedFilesReadAsPlainOnes) {
  const std::string text = made_text(40);
  const Documents plain = read("a.txt", text);
  write_gzip(folder_ / "a.txt.gz", text);
  write_zstd(folder_ / "a.txt.zst", text);
  write_gzip(folder_ / "a.jsonl.gz", "{\"text\": \"w11\"}\n");
  EXPECT_EQ(read({folder_ / "a.txt.gz"}), plain);
  EXPECT_EQ(read({folder_ / "a.txt.zst"}), plain);
  EXPECT_EQ(read({folder_ / "a.jsonl.gz"}), (Documents{{{11}}}));
}

TEST_F(DocumentsTest, FoldersGiveTheirTextInTheOrderOfNames) {
  write_text(folder_ / "in/b.txt", "w12");
  write_text(folder_ / "in/a/c.jsonl", "{\"text\": \"w11\"}");
  write_text(folder_ / "in/.hidden.txt", "w13");
  write_text(folder_ / "in/notes.md", "w14");
  EXPECT_EQ(read({folder_ / "in"}), (Documents{{{11}}, {{12}}}));
  fs::create_directory(folder_ / "none");
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { text_files({folder_ / "none"}); }), "no text in this folder");
}

TEST_F(DocumentsTest, AFileWithNothingInItIsNamed) {
  for (const char* text : {"", "\n \n\t\r\n", "\xef\xbb\xbf\n"}) {
    write_text(folder_ / "empty.txt", text);
    STOA_EXPECT_CONTAINS(thrown<DataError>([&] { text_files({folder_ / "empty.txt"}); }),
                         "empty.txt: there is no text in it");
  }
  EXPECT_THROW(text_files({folder_ / "absent.txt"}), IoError);
}

TEST_F(DocumentsTest, ErrorsNameFileAndLine) {
  const auto refused = [&](const std::string& name, const std::string& text, const TextRules& rules = {}) {
    return thrown<DataError>([&] { read(name, text, rules); });
  };
  STOA_EXPECT_CONTAINS(refused("a.txt", "w11\n\nw\xff\n"), "a.txt:3: byte 0 is not UTF-8");
  STOA_EXPECT_CONTAINS(refused("a.jsonl", "{\"text\": \"\"}\n{\"text\"\n"),
                       "a.jsonl:2: not valid JSON at byte");
  STOA_EXPECT_CONTAINS(refused("a.jsonl", "{\"body\": \"\"}"), "a.jsonl:1: the object has no `text`");
  STOA_EXPECT_CONTAINS(refused("a.jsonl", "{\"text\": 7}"), "a.jsonl:1: `text` is number, text is needed");
  STOA_EXPECT_CONTAINS(refused("a.jsonl", "[1]"), "a.jsonl:1: a JSON object is needed");
  STOA_EXPECT_CONTAINS(
      refused("a.jsonl", "{\"text\": " + std::string(200, '[') + std::string(200, ']') + "}"),
      "nested deeper");
  STOA_EXPECT_CONTAINS(refused("a.jsonl", "{\"text\": \"\xc3(\"}", {.broken = BrokenUtf8::kRefuse}),
                       "a.jsonl:1: byte 11 of the line is not UTF-8");
}

TEST_F(DocumentsTest, BrokenTextInJsonIsReplacedPartByPart) {
  // a lone lead byte, a long form (two broken parts), a surrogate (three), a cut character, one that is whole
  const std::string broken = "{\"text\": \"\xc3 \xc0\xaf \xed\xa0\x80 \xe2\x82 \xf0\x9f\x98\x80\"}";
  class Kept final : public WordTokenizer {
   public:
    mutable std::string text;
    void encode(std::string_view sentence, std::vector<std::int32_t>& ids) const override {
      text = sentence;
      ids.push_back(10);
    }
  } kept;
  write_text(folder_ / "a.jsonl", broken);
  tokenize_in_memory({folder_ / "a.jsonl"}, {}, kept);
  EXPECT_EQ(kept.text, "\ufffd \ufffd\ufffd \ufffd\ufffd\ufffd \ufffd \U0001f600");
}

TEST_F(DocumentsTest, DoNotDependOnWhereTheTextIsCut) {
  write_text(folder_ / "a.txt", made_text(60));
  const std::vector<fs::path> files = {folder_ / "a.txt"};
  const Documents whole = read(files);
  for (const std::size_t bytes : {1, 50, 1000}) {
    TextStream stream(files, "", bytes);
    TextChunk chunk;
    DocumentJoiner joiner;
    std::vector<std::int32_t> ids, sizes;
    while (stream.next(chunk)) {
      const TokenizedText text = tokenize_chunk(chunk, files[0], {}, tokenizer_);
      joiner.add(chunk.file, std::ssize(text.sizes), text.breaks);
      ids.insert(ids.end(), text.ids.begin(), text.ids.end());
      sizes.insert(sizes.end(), text.sizes.begin(), text.sizes.end());
    }
    const TokenFile file(token_index(TokenType::kI32, sizes, joiner.finish()),
                         token_bytes(TokenType::kI32, ids), "a", 1000);
    EXPECT_EQ(content(file), whole) << bytes;
  }
}

}  // namespace
}  // namespace stoa::test
