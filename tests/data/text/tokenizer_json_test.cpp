#include "stoa/data/text/tokenizer_json.h"

#include <gtest/gtest.h>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "support/thrown.h"

namespace stoa::test {
namespace {

using Ids = std::vector<std::int32_t>;

/// A small tokenizer.json of WordPiece as Python's `tokenizers` writes it.
SortedJson wordpiece() {
  return SortedJson::parse(R"({
    "version": "1.0",
    "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
    "padding": {"strategy": {"Fixed": 8}, "pad_id": 0},
    "added_tokens": [
      {"id": 1, "content": "[MASK]", "single_word": false, "lstrip": true, "rstrip": false, "normalized": false, "special": true},
      {"id": 5, "content": "new", "single_word": true, "lstrip": false, "rstrip": false, "normalized": true, "special": false}],
    "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "post_processor": {"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {}},
    "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
    "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 10,
              "vocab": {"[UNK]": 0, "[MASK]": 1, "the": 2, "##s": 3, ".": 4}}})");
}

SortedJson bpe() {
  SortedJson json = parse_sorted_json(
      read_file(std::filesystem::path(STOA_SOURCE_DIR) / "tests/data/text/shakespeare_bpe.json"), "bpe");
  return json;
}

std::shared_ptr<const Tokenizer> load(const SortedJson& json) {
  return tokenizer_from_json(json, "t.json", {}, BrokenUtf8::kReplace);
}

std::string refused(const SortedJson& json) {
  const std::string message = thrown<DataError>([&] { load(json); });
  STOA_EXPECT_CONTAINS(message, "t.json");
  return message;
}

/// The tokenizer with the value at `place` set.
SortedJson with(SortedJson json, const char* place, const SortedJson& value) {
  json[SortedJson::json_pointer(place)] = value;
  return json;
}

TEST(TokenizerJson, WordPieceIsReadWithItsAddedTokens) {
  const auto tokenizer = load(wordpiece());
  EXPECT_EQ(tokenizer->encode("Thes  [MASK] NEW the."), (Ids{2, 3, 1, 5, 2, 4}));
  EXPECT_EQ(tokenizer->tokens("the  [MASK]")[1].begin, 3);
  EXPECT_EQ(tokenizer->encode("thesssssssss"), Ids{0});  // 12 characters, 10 are allowed
  EXPECT_EQ(tokenizer->special().mask, 1);
}

TEST(TokenizerJson, SequencesArePutTogetherElsewhere) {
  EXPECT_EQ(load(wordpiece())->encode("the the the").size(), 3u);  // neither truncated nor padded
}

TEST(TokenizerJson, StrippingAccentsFollowsLowerCaseUnlessItSays) {
  EXPECT_EQ(load(wordpiece())->encode("th\xC3\xA9"), Ids{2});
  EXPECT_EQ(load(with(wordpiece(), "/normalizer/strip_accents", false))->encode("th\xC3\xA9"), Ids{0});
  EXPECT_EQ(load(with(wordpiece(), "/normalizer/lowercase", false))->encode("th\xC3\xA9"), Ids{0});
}

TEST(TokenizerJson, WithoutANormalizerTextStaysAsItIs) {
  EXPECT_EQ(load(with(wordpiece(), "/normalizer", nullptr))->encode("the The"), (Ids{2, 0}));
}

TEST(TokenizerJson, MergesAreTextsOrPairs) {
  SortedJson pairs = bpe(), texts = bpe();
  pairs["model"]["merges"] = texts["model"]["merges"] = SortedJson::array();
  const SortedJson original = bpe();
  for (const auto& merge : original["model"]["merges"]) {
    const bool pair = merge.is_array();
    const std::string text =
        pair ? merge[0].get<std::string>() + " " + merge[1].get<std::string>() : merge.get<std::string>();
    const std::size_t space = text.find(' ');
    texts["model"]["merges"].push_back(text);
    pairs["model"]["merges"].push_back({text.substr(0, space), text.substr(space + 1)});
  }
  EXPECT_EQ(load(pairs)->fingerprint(), load(texts)->fingerprint());
  EXPECT_EQ(load(pairs)->fingerprint(), load(original)->fingerprint());
}

TEST(TokenizerJson, SequencesOfOneAreThatOne) {
  const SortedJson part = wordpiece()["normalizer"];
  const SortedJson sequence{{"type", "Sequence"}, {"normalizers", SortedJson::array({part})}};
  EXPECT_EQ(load(with(wordpiece(), "/normalizer", sequence))->fingerprint(),
            load(wordpiece())->fingerprint());
}

TEST(TokenizerJson, UnsupportedPartsAreRefusedByName) {
  const SortedJson nfkc{{"type", "NFKC"}}, metaspace{{"type", "Metaspace"}}, fuse{{"type", "Fuse"}};
  EXPECT_EQ(refused(with(wordpiece(), "/normalizer", nfkc)),
            "t.json: normalizer `NFKC` is not supported with WordPiece; BertNormalizer is needed");
  EXPECT_EQ(refused(with(bpe(), "/normalizer", nfkc)),
            "t.json: normalizer `NFKC` is not supported with BPE; none is needed");
  STOA_EXPECT_CONTAINS(refused(with(wordpiece(), "/pre_tokenizer", metaspace)), "pre_tokenizer `Metaspace`");
  STOA_EXPECT_CONTAINS(refused(with(bpe(), "/pre_tokenizer", metaspace)), "pre_tokenizer `Metaspace`");
  STOA_EXPECT_CONTAINS(refused(with(bpe(), "/pre_tokenizer", nullptr)), "pre_tokenizer `none`");
  STOA_EXPECT_CONTAINS(refused(with(bpe(), "/decoder", fuse)), "decoder `Fuse`");
  STOA_EXPECT_CONTAINS(refused(with(bpe(), "/pre_tokenizer/use_regex", false)), "use_regex");
  STOA_EXPECT_CONTAINS(refused(with(bpe(), "/model/dropout", 0.1)), "`dropout` is not supported");
  STOA_EXPECT_CONTAINS(refused(with(bpe(), "/model/byte_fallback", true)), "`byte_fallback`");
  STOA_EXPECT_CONTAINS(refused(with(bpe(), "/model/end_of_word_suffix", "</w>")), "`end_of_word_suffix`");
  STOA_EXPECT_CONTAINS(refused(with(bpe(), "/model/continuing_subword_prefix", "##")),
                       "`continuing_subword_prefix`");
  EXPECT_EQ(refused(with(bpe(), "/model/type", "Unigram")),
            "t.json: model `Unigram` is not supported; supported: WordPiece, BPE; give the .model file of "
            "SentencePiece instead");
  const SortedJson two{{"type", "Sequence"}, {"pretokenizers", SortedJson::array({metaspace, metaspace})}};
  STOA_EXPECT_CONTAINS(refused(with(bpe(), "/pre_tokenizer", two)),
                       "a `Sequence` of several as pre_tokenizer");
}

TEST(TokenizerJson, UnknownEntriesAreRefusedByName) {
  STOA_EXPECT_CONTAINS(refused(with(wordpiece(), "/extra", 1)), "`extra` is not known here");
  STOA_EXPECT_CONTAINS(refused(with(wordpiece(), "/model/extra", 1)), "`extra` is not known here");
  STOA_EXPECT_CONTAINS(refused(with(wordpiece(), "/normalizer/extra", 1)), "`extra` is not known here");
  STOA_EXPECT_CONTAINS(refused(with(bpe(), "/pre_tokenizer/extra", 1)), "`extra` is not known here");
}

TEST(TokenizerJson, IdsThatCannotBeAreRefused) {
  for (const SortedJson& id :
       {SortedJson(-1), SortedJson(1.5), SortedJson("1"), SortedJson(std::uint64_t{1} << 63)})
    STOA_EXPECT_CONTAINS(refused(with(wordpiece(), "/model/vocab/x", id)), "id");
  EXPECT_EQ(refused(with(wordpiece(), "/model/vocab/x", 2000000000)),
            "t.json: `model`: token `x` has id 2000000000, far beyond the 6 tokens there are");
  STOA_EXPECT_CONTAINS(refused(with(wordpiece(), "/model/vocab/x", 2)), "share id 2");
}

TEST(TokenizerJson, AddedTokensThatContradictTheVocabularyAreRefused) {
  EXPECT_EQ(refused(with(wordpiece(), "/added_tokens/0/id", 3)),
            "t.json: added token `[MASK]` has id 3, in the vocabulary 1");
  EXPECT_EQ(refused(with(wordpiece(), "/added_tokens/1/id", 2)),
            "t.json: added token `new` has id 2, which is that of `the`");
  EXPECT_EQ(refused(with(wordpiece(), "/added_tokens/1/content", "[MASK]")),
            "t.json: added token `[MASK]` is there twice");
  STOA_EXPECT_CONTAINS(refused(with(wordpiece(), "/added_tokens/1/id", 1 << 30)), "far beyond");
}

TEST(TokenizerJson, EntriesOfAnotherTypeAreRefusedByName) {
  STOA_EXPECT_CONTAINS(refused(with(wordpiece(), "/added_tokens", "x")), "`added_tokens` is not a list");
  STOA_EXPECT_CONTAINS(refused(with(wordpiece(), "/added_tokens/0/lstrip", "x")),
                       "`lstrip` is not true or false");
  STOA_EXPECT_CONTAINS(refused(with(wordpiece(), "/model/vocab", SortedJson::array())),
                       "not an object of tokens");
  STOA_EXPECT_CONTAINS(refused(with(wordpiece(), "/model/max_input_chars_per_word", 0)),
                       "max_input_chars_per_word is 0");
  STOA_EXPECT_CONTAINS(refused(with(bpe(), "/model/merges/0", "a b c")), "merge 1 is not two tokens");
  STOA_EXPECT_CONTAINS(refused(SortedJson::array()), "not a JSON object");
  STOA_EXPECT_CONTAINS(refused(SortedJson::object()), "no `model`");
}

TEST(TokenizerJson, DeepNestingIsRefused) {
  STOA_EXPECT_CONTAINS(thrown<DataError>([] { parse_sorted_json(std::string(1000, '['), "t.json"); }),
                       "nested deeper");
}

}  // namespace
}  // namespace stoa::test
