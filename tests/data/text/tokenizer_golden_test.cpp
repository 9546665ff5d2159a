// Ids, places and decoded text equal to those of Python's `tokenizers`, whose CRC-32s are recorded.
#include <gtest/gtest.h>

#include "data/text/random_text.h"
#include "stoa/base/checksum.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/base/json.h"
#include "stoa/data/text/tokenizer.h"
#include "support/temp_dir.h"
#include "support/test_data.h"

namespace stoa::test {
namespace {

std::filesystem::path here(const std::string& name) {
  return std::filesystem::path(STOA_SOURCE_DIR) / "tests/data/text" / name;
}

const Json& record() {
  static const Json all = read_json(here("tokenizer_golden.json"));
  return all;
}

std::uint32_t crc_of(std::string_view bytes, std::uint32_t crc) {
  return crc32({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()}, crc);
}

/// Goes on with the CRC over what a tokenizer makes of a text.
std::uint32_t answer(const Tokenizer& tokenizer, std::string_view text, std::uint32_t crc) {
  const std::vector<Token> tokens = tokenizer.tokens(text);
  std::vector<std::int32_t> numbers{static_cast<std::int32_t>(tokens.size())}, ids;
  for (const Token& token : tokens) {
    numbers.insert(numbers.end(), {token.id, token.begin, token.end});
    ids.push_back(token.id);
  }
  EXPECT_EQ(tokenizer.encode(text), ids) << "encode() and tokens() differ";
  crc = crc_of({reinterpret_cast<const char*>(numbers.data()), 4 * numbers.size()}, crc);
  return crc_of(tokenizer.decode(ids, false), crc);
}

struct Golden {
  const char* name;
  const char* file;  // in this folder or, with a slash, of the test data
  bool cased = false;
};

class TokenizerGolden : public testing::TestWithParam<Golden> {
 protected:
  void SetUp() override {
    const Golden& golden = GetParam();
    const bool shared = std::string(golden.file).find('/') != std::string::npos;
    const auto file = shared ? test_data(golden.file) : here(golden.file);
    if (!std::filesystem::exists(file))
      GTEST_SKIP() << "no " << file.string() << "; set STOA_TEST_DATA to the folder of the test data";
    if (file.extension() == ".json") {
      tokenizer_ = load_tokenizer(file);
      return;
    }
    const TempDir folder;
    std::filesystem::copy_file(file, folder / "vocab.txt");
    write_file_atomically(folder / "tokenizer_config.json",
                          format("{{\"do_lower_case\": {}}}", golden.cased ? "false" : "true"));
    tokenizer_ = load_tokenizer(folder.path());
  }

  std::shared_ptr<const Tokenizer> tokenizer_;
};

TEST(RandomText, IsTheTextThatTheRecordWasMadeOf) {
  RandomText random(2026);
  std::uint32_t crc = 0;
  for (int i = 0; i < 100000; ++i) crc = crc_of(random.next(), crc);
  EXPECT_EQ(format("{:08x}", crc), record().at("texts").get<std::string>());
}

TEST_P(TokenizerGolden, RandomTextsHaveTheRecordedTokens) {
  RandomText random(2026);
  const Json& blocks = record().at("tokenizers").at(GetParam().name).at("random");
  ASSERT_EQ(blocks.size(), 100u);
  for (std::size_t block = 0; block < blocks.size(); ++block) {
    std::uint32_t crc = 0;
    for (int i = 0; i < 1000; ++i) crc = answer(*tokenizer_, random.next(), crc);
    EXPECT_EQ(format("{:08x}", crc), blocks[block].get<std::string>()) << "block " << block;
  }
}

TEST_P(TokenizerGolden, LinesOfFilesHaveTheRecordedTokens) {
  STOA_NEEDS_TEST_DATA("text");
  for (const auto& [name, expected] : record().at("tokenizers").at(GetParam().name).at("files").items()) {
    if (!std::filesystem::exists(test_data(name))) continue;
    const auto bytes = read_maybe_gzip(test_data(name));
    std::string_view rest(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    std::uint32_t crc = 0;
    while (true) {
      const std::size_t end = rest.find('\n');
      crc = answer(*tokenizer_, rest.substr(0, end), crc);
      if (end == std::string_view::npos) break;
      rest.remove_prefix(end + 1);
    }
    EXPECT_EQ(format("{:08x}", crc), expected.get<std::string>()) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(All, TokenizerGolden,
                         testing::Values(Golden{"shakespeare_bpe", "shakespeare_bpe.json"},
                                         Golden{"shakespeare_wordpiece", "shakespeare_wordpiece.txt"},
                                         Golden{"bert_uncased", "bert/vocab.txt"},
                                         Golden{"bert_cased", "bert/vocab.txt", true}),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace stoa::test
