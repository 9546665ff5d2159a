#include <gtest/gtest.h>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/data/text/tokenizer.h"
#include "support/temp_dir.h"
#include "support/thrown.h"

namespace stoa::test {
namespace {

using Ids = std::vector<std::int32_t>;

constexpr const char* kVocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\n##s\n";

std::filesystem::path golden(const std::string& name) {
  return std::filesystem::path(STOA_SOURCE_DIR) / "tests/data/text" / name;
}

/// vocab.json of the 256 bytes and "ab", which merges.txt joins.
void write_merges(const TempDir& folder) {
  const auto bytes = load_tokenizer("bytes");
  std::string json = "{";
  for (std::int32_t id = 0; id < 256; ++id) {
    const std::string token(bytes->token(id));
    json += std::string("\"") + (token == "\"" || token == "\\" ? "\\" : "") + token +
            "\": " + std::to_string(id) + ", ";
  }
  write_file_atomically(folder / "vocab.json",
                        json + "\"ab\": 256, \"<s>\": 257, \"</s>\": 258, \"<mask>\": 259}");
  write_file_atomically(folder / "merges.txt", "#version: 0.2\na b\n");
}

TEST(ByteTokenizer, EveryByteIsItsOwnId) {
  const auto bytes = load_tokenizer("bytes");
  EXPECT_EQ(bytes->kind(), "bytes");
  EXPECT_EQ(bytes->size(), 263);
  EXPECT_EQ(bytes->encode("a\n\xC3\xA9"), (Ids{'a', '\n', 0xC3, 0xA9}));
  EXPECT_EQ(bytes->encode("[MASK]"), Ids{260});
  EXPECT_EQ(bytes->decode(Ids{258, 'a', 0xC3, 0xA9, 259}), "a\xC3\xA9");
  EXPECT_EQ(bytes->decode(Ids{258, 'a'}, false), "[CLS]a");
  const auto places = bytes->tokens("a\xC3\xA9");
  EXPECT_EQ(std::pair(places[2].begin, places[2].end), std::pair(1, 3));
}

TEST(ByteTokenizer, HasAllSevenRoles) {
  const SpecialTokens special = load_tokenizer("bytes")->special();
  EXPECT_EQ(
      (Ids{special.pad, special.unknown, special.cls, special.sep, special.mask, special.begin, special.end}),
      (Ids{256, 257, 258, 259, 260, 261, 262}));
}

TEST(ByteTokenizer, SavedAndReadAgainItIsTheSame) {
  const TempDir folder;
  const auto bytes = load_tokenizer("bytes");
  bytes->save(folder.path());
  const auto again = load_tokenizer(folder.path());
  EXPECT_EQ(again->kind(), "bytes");
  EXPECT_EQ(again->fingerprint(), bytes->fingerprint());
}

TEST(ByteTokenizer, BrokenTextIsRefusedWhereThatIsAsked) {
  EXPECT_EQ(load_tokenizer("bytes")->encode("a\xFF"), (Ids{'a', 0xEF, 0xBF, 0xBD}));
  STOA_EXPECT_CONTAINS(
      thrown<DataError>([] { load_tokenizer("bytes", BrokenUtf8::kRefuse)->encode("a\xFF"); }),
      "byte 1 (0xff) is not UTF-8");
}

TEST(LoadTokenizer, AVocabTxtIsLowerCasingWordPiece) {
  const TempDir folder;
  write_file_atomically(folder / "vocab.txt", kVocabulary);
  const auto tokenizer = load_tokenizer(folder / "vocab.txt");
  EXPECT_EQ(tokenizer->kind(), "wordpiece");
  EXPECT_EQ(tokenizer->encode("THE [MASK] thes"), (Ids{5, 4, 5, 6}));
  EXPECT_EQ(tokenizer->special().sep, 3);
  EXPECT_EQ(tokenizer->special().begin, -1);
}

TEST(LoadTokenizer, TheConfigurationBesideAVocabTxtIsHeeded) {
  const TempDir folder;
  write_file_atomically(folder / "vocab.txt", std::string(kVocabulary) + "<m>\n");
  write_file_atomically(folder / "tokenizer_config.json",
                        R"({"do_lower_case": false, "mask_token": {"content": "<m>", "lstrip": true}})");
  const auto tokenizer = load_tokenizer(folder.path());
  EXPECT_EQ(tokenizer->encode("The the <m>"), (Ids{1, 5, 7}));
  EXPECT_EQ(tokenizer->tokens("the <m>")[1].begin, 3);
  EXPECT_EQ(tokenizer->special().mask, 7);
}

TEST(LoadTokenizer, SpecialTokensMapGivesRolesAndFurtherTokens) {
  const TempDir folder;
  write_file_atomically(folder / "vocab.txt", kVocabulary);
  write_file_atomically(folder / "special_tokens_map.json",
                        R"({"bos_token": "[CLS]", "additional_special_tokens": ["<new>", "[SEP]"]})");
  const auto tokenizer = load_tokenizer(folder.path());
  EXPECT_EQ(tokenizer->special().begin, 2);
  EXPECT_EQ(tokenizer->encode("the<new>"), (Ids{5, 7}));  // behind the lines of the file
  EXPECT_EQ(tokenizer->size(), 8);
}

TEST(LoadTokenizer, OfALineTwiceInAVocabTxtTheLaterCounts) {
  const TempDir folder;
  write_file_atomically(folder / "vocab.txt", std::string(kVocabulary) + "the\r\n");
  const auto tokenizer = load_tokenizer(folder / "vocab.txt");
  EXPECT_EQ(tokenizer->encode("the"), Ids{7});
  EXPECT_EQ(tokenizer->size(), 8);
  EXPECT_EQ(tokenizer->decode(Ids{5, 7}), "the");  // an id without a token is passed over
}

TEST(LoadTokenizer, VocabJsonAndMergesAreByteLevelBpe) {
  const TempDir folder;
  write_merges(folder);
  for (const auto& place : {folder.path(), folder / "vocab.json"}) {
    const auto tokenizer = load_tokenizer(place);
    EXPECT_EQ(tokenizer->kind(), "bpe");
    EXPECT_EQ(tokenizer->encode("<s>ab <mask>ab"), (Ids{257, 256, 259, 256}));
    EXPECT_EQ(tokenizer->special().cls, 257);
    EXPECT_EQ(tokenizer->special().end, 258);
  }
  write_file_atomically(folder / "tokenizer_config.json", R"({"add_prefix_space": true})");
  EXPECT_EQ(load_tokenizer(folder.path())->encode("ab"), (Ids{' ', 256}));
}

TEST(LoadTokenizer, InAFolderTokenizerJsonComesFirst) {
  const TempDir folder;
  write_file_atomically(folder / "vocab.txt", kVocabulary);
  std::filesystem::copy_file(golden("shakespeare_bpe.json"), folder / "tokenizer.json");
  EXPECT_EQ(load_tokenizer(folder.path())->kind(), "bpe");
}

TEST(LoadTokenizer, ATokenizerJsonOfPythonReadsAsItIs) {
  const auto tokenizer = load_tokenizer(golden("shakespeare_bpe.json"));
  EXPECT_EQ(tokenizer->size(), 1100);
  EXPECT_EQ(tokenizer->special().end, 0);
  std::vector<std::string> tokens;
  const auto ids = tokenizer->encode("First Citizen:\nSpeak, speak.");
  for (const std::int32_t id : ids) tokens.emplace_back(tokenizer->token(id));
  EXPECT_EQ(tokens, (std::vector<std::string>{"First", "ĠC", "itizen", ":", "Ċ", "S", "p", "eak", ",",
                                              "Ġspeak", "."}));
  EXPECT_EQ(tokenizer->decode(ids), "First Citizen:\nSpeak, speak.");
}

TEST(LoadTokenizer, WhatIsNotThereIsNamed) {
  const TempDir folder;
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { load_tokenizer(folder.path()); }),
                       "no tokenizer in this folder");
  STOA_EXPECT_CONTAINS(thrown<IoError>([&] { load_tokenizer(folder / "none"); }),
                       "no such tokenizer; give `bytes`");
}

TEST(LoadTokenizer, BadFilesAreRefusedByNameAndPlace) {
  const TempDir folder;
  const auto refused = [&](const char* name, const std::string& text) {
    write_file_atomically(folder / name, text);
    const std::string message = thrown<DataError>([&] { load_tokenizer(folder / name); });
    std::filesystem::remove(folder / name);
    STOA_EXPECT_CONTAINS(message, (folder / name).string() + ": ");
    return message;
  };
  STOA_EXPECT_CONTAINS(refused("vocab.txt", ""), "an empty vocabulary");
  STOA_EXPECT_CONTAINS(refused("vocab.txt", "a\nb\n"), "the vocabulary has no `[UNK]`");
  STOA_EXPECT_CONTAINS(refused("vocab.txt", "[UNK]\nb\xFF\n"), "line 2 is not UTF-8");
  STOA_EXPECT_CONTAINS(refused("tokenizer.json", "{\"model\": "), "not valid JSON at byte");
  STOA_EXPECT_CONTAINS(refused("vocab.json", "{}"), "no merges.txt beside it");
  STOA_EXPECT_CONTAINS(refused("x.model", "no model"), "not a SentencePiece model");
  write_file_atomically(folder / "added_tokens.json", "{}");
  STOA_EXPECT_CONTAINS(refused("vocab.txt", kVocabulary), "added_tokens.json beside it is not read");
}

TEST(LoadTokenizer, AConfigurationThatContradictsTheVocabularyIsRefused) {
  const TempDir folder;
  std::filesystem::copy_file(golden("shakespeare_bpe.json"), folder / "tokenizer.json");
  write_file_atomically(folder / "tokenizer_config.json", R"({"mask_token": "<mask>"})");
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { load_tokenizer(folder.path()); }),
                       "names `<mask>` as its mask_token, which the vocabulary lacks");
  write_file_atomically(folder / "tokenizer_config.json", R"({"do_lower_case": "yes"})");
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { load_tokenizer(folder.path()); }),
                       "`do_lower_case` is not true or false");
}

TEST(LoadTokenizer, BadMergesAreRefusedByLine) {
  const TempDir folder;
  write_merges(folder);
  write_file_atomically(folder / "merges.txt", "#version: 0.2\na b\nab\n");
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { load_tokenizer(folder.path()); }),
                       "line 3 of the merges is not two tokens");
}

}  // namespace
}  // namespace stoa::test
