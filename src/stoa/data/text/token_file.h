#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "stoa/base/files.h"

namespace stoa {

/// Integers that a token file can be made of, by their codes in Megatron's index.
enum class TokenType : std::uint8_t { kU8 = 1, kI8 = 2, kI16 = 3, kI32 = 4, kI64 = 5, kU16 = 8 };

std::int64_t token_width(TokenType type);  ///< bytes of a token
const char* token_type_name(TokenType type);
/// The type that ids of a vocabulary are written in: u16 below 65,500 tokens, as Megatron does, else i32.
TokenType token_type_of(std::int64_t vocabulary);

/// Megatron's index (.idx) of a token file, in memory that outlives it: sentences lie end to end, documents
/// are runs of them.
class TokenIndex {
 public:
  /// Checks every size, offset and document. Throws DataError saying what does not fit; `name` is the file.
  TokenIndex(std::span<const std::uint8_t> bytes, const std::string& name);

  TokenType type() const { return type_; }
  std::int64_t sentences() const { return sentences_; }
  std::int64_t documents() const { return documents_; }
  std::int64_t tokens() const { return tokens_; }
  /// Tokens before sentence `sentence`; all of them for sentences().
  std::int64_t sentence_begin(std::int64_t sentence) const;
  /// Sentences before document `document`; all of them for documents().
  std::int64_t document_begin(std::int64_t document) const;

 private:
  TokenType type_ = TokenType::kI32;
  std::int64_t sentences_ = 0, documents_ = 0, tokens_ = 0;
  const std::uint8_t *sizes_ = nullptr, *offsets_ = nullptr, *bounds_ = nullptr;  // not aligned
};

/// The bytes in front of an index's sizes.
std::string token_index_header(TokenType type, std::int64_t sentences, std::int64_t bounds);
/// An index of sentences with these sizes; `bounds` are the sentences before each document and their number.
std::string token_index(TokenType type, std::span<const std::int32_t> sizes,
                        std::span<const std::int64_t> bounds);
/// Ids as they stand in a token file.
std::string token_bytes(TokenType type, std::span<const std::int32_t> ids);

/// Tokens of a corpus: Megatron's pair PREFIX.bin and PREFIX.idx, mapped, or the same in memory.
class TokenFile {
 public:
  /// Throws IoError, or DataError naming the file and what is truncated, altered or not below `vocabulary`.
  /// The ids of a file beyond 1 GiB are checked when they are read.
  TokenFile(const std::filesystem::path& prefix, std::int64_t vocabulary);
  /// From the content of the two files.
  TokenFile(std::string index, std::string tokens, std::string name, std::int64_t vocabulary);
  TokenFile(const TokenFile&) = delete;
  TokenFile& operator=(const TokenFile&) = delete;

  const TokenIndex& index() const { return *index_; }
  /// What messages call it.
  const std::string& name() const { return name_; }
  /// Copies `count` ids from place `begin` on. Throws DataError for an id outside the vocabulary.
  void read(std::int64_t begin, std::int64_t count, std::int32_t* to) const;
  /// How often each id of the vocabulary occurs.
  std::vector<std::int64_t> counts() const;

 private:
  void check();

  std::string name_, index_memory_, token_memory_;
  std::int64_t vocabulary_ = 0;
  std::unique_ptr<MappedFile> mapped_index_, mapped_tokens_;
  std::span<const std::uint8_t> tokens_;
  std::unique_ptr<TokenIndex> index_;
};

/// The file names of a prefix.
std::filesystem::path token_file_name(const std::filesystem::path& prefix);   ///< PREFIX.bin
std::filesystem::path token_index_name(const std::filesystem::path& prefix);  ///< PREFIX.idx

/// Writes PREFIX.bin and then PREFIX.idx, each whole or not at all. Throws IoError.
void write_token_file(const std::filesystem::path& prefix, TokenType type, std::span<const std::int32_t> ids,
                      std::span<const std::int32_t> sizes, std::span<const std::int64_t> bounds);

}  // namespace stoa
