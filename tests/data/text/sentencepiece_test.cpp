#include "stoa/data/text/sentencepiece.h"

#include <gtest/gtest.h>

#include <cstring>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "support/temp_dir.h"
#include "support/thrown.h"

namespace stoa::test {
namespace {

using Ids = std::vector<std::int32_t>;

/// A field of a protocol buffer that holds bytes; all here are shorter than 128.
std::string field(int number, const std::string& bytes) {
  return std::string{static_cast<char>(number << 3 | 2), static_cast<char>(bytes.size())} + bytes;
}
std::string number_field(int number, int value) {
  return {static_cast<char>(number << 3), static_cast<char>(value)};
}

enum Kind { kNormal = 1, kUnknown = 2, kControl = 3 };

std::string piece(const std::string& text, float score, Kind kind = kNormal) {
  std::string bytes = field(1, text) + std::string{2 << 3 | 5} + std::string(4, '\0') + number_field(3, kind);
  std::memcpy(bytes.data() + text.size() + 3, &score, 4);
  return field(1, bytes);
}

/// A unigram model as a .model file holds it: <unk> <s> </s> [MASK] and eight pieces.
std::string model() {
  std::string bytes = piece("<unk>", 0, kUnknown) + piece("<s>", 0, kControl) + piece("</s>", 0, kControl) +
                      piece("[MASK]", 0, kControl);
  for (const auto& [text, score] : std::vector<std::pair<std::string, float>>{{"▁the", -1},
                                                                              {"▁", -2},
                                                                              {"th", -3},
                                                                              {"e", -3},
                                                                              {"cat", -2},
                                                                              {"s", -2.5f},
                                                                              {"▁cat", -1.5f},
                                                                              {".", -2}})
    bytes += piece(text, score);
  return bytes + field(2, number_field(3, 1)) + field(3, field(1, "identity"));
}

std::shared_ptr<const Tokenizer> make(const TokenizerConfig& config = {}) {
  return tokenizer_from_sentencepiece(model(), "m.model", config, BrokenUtf8::kReplace);
}

class SentencePiece : public ::testing::Test {
 protected:
  void SetUp() override {
#if defined(__SANITIZE_ADDRESS__)
    GTEST_SKIP() << "SentencePiece models cannot be read in a build with sanitizers";
#endif
  }
};

TEST_F(SentencePiece, CutsIntoTheLikeliestPieces) {
  const auto tokenizer = make();
  EXPECT_EQ(tokenizer->kind(), "sentencepiece");
  EXPECT_EQ(tokenizer->size(), 12);
  EXPECT_EQ(tokenizer->encode("the cats."), (Ids{4, 10, 9, 11}));
}

TEST_F(SentencePiece, PlacesAreBytesOfTheText) {
  const auto tokens = make()->tokens("the \xC3\xA9 cats");
  ASSERT_EQ(tokens.size(), 5u);
  EXPECT_EQ(tokens[2].id, 0);  // the accented letter
  EXPECT_EQ(std::pair(tokens[2].begin, tokens[2].end), std::pair(4, 6));
  EXPECT_EQ(std::pair(tokens[4].begin, tokens[4].end), std::pair(10, 11));
}

TEST_F(SentencePiece, ControlPiecesInTheTextAreFound) {
  const auto tokens = make()->tokens("the[MASK]cat</s>");
  Ids ids;
  for (const Token& token : tokens) ids.push_back(token.id);
  EXPECT_EQ(ids, (Ids{4, 3, 10, 2}));
  EXPECT_EQ(std::pair(tokens[2].begin, tokens[2].end), std::pair(9, 12));
}

TEST_F(SentencePiece, RolesComeFromTheModelAndFromNames) {
  const SpecialTokens special = make()->special();
  EXPECT_EQ((Ids{special.pad, special.unknown, special.begin, special.end, special.mask}),
            (Ids{-1, 0, 1, 2, 3}));
}

TEST_F(SentencePiece, DecodesToText) {
  const auto tokenizer = make();
  EXPECT_EQ(tokenizer->decode(Ids{1, 4, 10, 9, 11, 2}), "the cats.");
  EXPECT_EQ(tokenizer->decode(Ids{1, 4, 10}, false), "<s>the cat");
  EXPECT_NE(thrown<DataError>([&] { tokenizer->decode(Ids{12}); }), "");
}

TEST_F(SentencePiece, APieceWithoutASpaceContinuesAWord) {
  const auto tokenizer = make();
  EXPECT_TRUE(tokenizer->continues_word(9));
  EXPECT_FALSE(tokenizer->continues_word(10));
  EXPECT_FALSE(tokenizer->continues_word(11));  // a full stop
  EXPECT_FALSE(tokenizer->continues_word(3));
}

TEST_F(SentencePiece, BrokenTextReadsAsReplaced) {
  EXPECT_EQ(make()->encode("the \xFF"), make()->encode("the \xEF\xBF\xBD"));
}

TEST_F(SentencePiece, SavedAndReadAgainItIsTheSame) {
  const TempDir folder;
  make()->save(folder.path());
  const auto again = load_tokenizer(folder.path());
  EXPECT_EQ(again->fingerprint(), make()->fingerprint());
  EXPECT_EQ(again->special().mask, 3);
  EXPECT_EQ(read_file(folder / "tokenizer.model"), model());
}

TEST_F(SentencePiece, WhatIsNoModelIsRefused) {
  for (const std::string& bytes :
       {std::string(), std::string("text"), model().substr(0, model().size() / 2 + 1)})
    EXPECT_EQ(
        thrown<DataError>([&] { tokenizer_from_sentencepiece(bytes, "m.model", {}, BrokenUtf8::kReplace); }),
        "m.model: not a SentencePiece model");
}

}  // namespace
}  // namespace stoa::test
