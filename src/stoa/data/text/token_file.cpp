#include "stoa/data/text/token_file.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <mutex>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/data/parallel.h"
#include "stoa/data/tabular/bytes.h"

namespace stoa {

namespace fs = std::filesystem;

namespace {

// The index: magic, u64 version 1, u8 type, u64 sentences, u64 bounds of documents; i32 sizes in tokens, i64
// offsets in bytes, i64 bounds in sentences.
constexpr std::string_view kMagic{"MMIDIDX\0\0", 9};
constexpr std::size_t kHeader = 9 + 8 + 1 + 8 + 8;
constexpr std::uint64_t kVersion = 1;
constexpr std::int64_t kPiece = std::int64_t{1} << 22;          // tokens looked at by one task
constexpr std::int64_t kCheckedAtOnce = std::int64_t{1} << 30;  // bytes whose ids are checked when opened

template <class T>
T load(const std::uint8_t* from, std::int64_t number) {
  T value;
  std::memcpy(&value, from + static_cast<std::size_t>(number) * sizeof value, sizeof value);
  return value;
}

/// Calls `use` with the type's tokens from `begin` on, as an array of that type.
template <class Use>
void with_tokens(TokenType type, const std::uint8_t* bytes, const Use& use) {
  switch (type) {
    case TokenType::kU8:
      return use(bytes);
    case TokenType::kI8:
      return use(reinterpret_cast<const std::int8_t*>(bytes));
    case TokenType::kI16:
      return use(reinterpret_cast<const std::int16_t*>(bytes));
    case TokenType::kI32:
      return use(reinterpret_cast<const std::int32_t*>(bytes));
    case TokenType::kI64:
      return use(reinterpret_cast<const std::int64_t*>(bytes));
    case TokenType::kU16:
      return use(reinterpret_cast<const std::uint16_t*>(bytes));
  }
}

}  // namespace

std::int64_t token_width(TokenType type) {
  switch (type) {
    case TokenType::kU8:
    case TokenType::kI8:
      return 1;
    case TokenType::kI16:
    case TokenType::kU16:
      return 2;
    case TokenType::kI64:
      return 8;
    default:
      return 4;
  }
}

const char* token_type_name(TokenType type) {
  switch (type) {
    case TokenType::kU8:
      return "u8";
    case TokenType::kI8:
      return "i8";
    case TokenType::kI16:
      return "i16";
    case TokenType::kI64:
      return "i64";
    case TokenType::kU16:
      return "u16";
    default:
      return "i32";
  }
}

TokenType token_type_of(std::int64_t vocabulary) {
  return vocabulary < 65500 ? TokenType::kU16 : TokenType::kI32;
}

TokenIndex::TokenIndex(std::span<const std::uint8_t> bytes, const std::string& name) {
  const auto refuse = [&](const std::string& what) { throw DataError(format("{}: {}", name, what)); };
  if (bytes.size() < kHeader) refuse("truncated: the header is not whole");
  if (std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0)
    refuse("no index of tokens: it does not begin with MMIDIDX");
  const auto version = load<std::uint64_t>(bytes.data() + 9, 0);
  if (version != kVersion) refuse(format("version {}; version 1 is known", version));
  const unsigned code = bytes[17];
  if (code == 6 || code == 7) refuse(format("type {} holds numbers with a point, not token ids", code));
  if (code == 0 || code > 8) refuse(format("type {} is unknown; 1 to 5 and 8 are token ids", code));
  type_ = static_cast<TokenType>(code);
  const auto sentences = load<std::uint64_t>(bytes.data() + 18, 0);
  const auto bounds = load<std::uint64_t>(bytes.data() + 26, 0);
  const std::uint64_t rest = bytes.size() - kHeader;
  const auto truncated = [&] {
    refuse(format("truncated or altered: {} bytes do not hold {} sentences and {} document bounds",
                  bytes.size(), sentences, bounds));
  };
  if (sentences > rest / 12 || bounds > rest / 8 || sentences * 12 + bounds * 8 > rest) truncated();
  if (sentences * 12 + bounds * 8 < rest)
    refuse(format("{} bytes follow the last document bound", rest - sentences * 12 - bounds * 8));
  if (bounds == 0) refuse("there are no document bounds");
  sentences_ = static_cast<std::int64_t>(sentences);
  documents_ = static_cast<std::int64_t>(bounds) - 1;
  sizes_ = bytes.data() + kHeader;
  offsets_ = sizes_ + 4 * sentences;
  bounds_ = offsets_ + 8 * sentences;
  const std::int64_t width = token_width(type_), most = std::numeric_limits<std::int64_t>::max() / width;
  for (std::int64_t s = 0; s < sentences_; ++s) {
    const auto size = load<std::int32_t>(sizes_, s);
    const auto offset = load<std::int64_t>(offsets_, s);
    if (size < 0 || size > most - tokens_) refuse(format("sentence {} has {} tokens", s, size));
    if (offset != tokens_ * width)
      refuse(format("sentence {} begins at byte {}; it must follow the sentence before, at {}", s, offset,
                    tokens_ * width));
    tokens_ += size;
  }
  for (std::int64_t d = 0, before = 0; d <= documents_; ++d) {
    const auto bound = load<std::int64_t>(bounds_, d);
    if (bound < before || bound > sentences_ || (d == 0 && bound != 0))
      refuse(format("document {} begins at sentence {}; {} to {} is possible", d, bound, before,
                    d == 0 ? 0 : sentences_));
    before = bound;
  }
  if (load<std::int64_t>(bounds_, documents_) != sentences_)
    refuse(format("the last document ends at sentence {} of {}", load<std::int64_t>(bounds_, documents_),
                  sentences_));
}

std::int64_t TokenIndex::sentence_begin(std::int64_t sentence) const {
  return sentence == sentences_ ? tokens_ : load<std::int64_t>(offsets_, sentence) / token_width(type_);
}

std::int64_t TokenIndex::document_begin(std::int64_t document) const {
  return load<std::int64_t>(bounds_, document);
}

std::string token_index_header(TokenType type, std::int64_t sentences, std::int64_t bounds) {
  ByteWriter header;
  header.bytes(kMagic.data(), kMagic.size());
  header.number(kVersion);
  header.number(static_cast<std::uint8_t>(type));
  header.number(static_cast<std::uint64_t>(sentences));
  header.number(static_cast<std::uint64_t>(bounds));
  return header.text();
}

std::string token_index(TokenType type, std::span<const std::int32_t> sizes,
                        std::span<const std::int64_t> bounds) {
  ByteWriter index;
  const std::string header = token_index_header(type, static_cast<std::int64_t>(sizes.size()),
                                                static_cast<std::int64_t>(bounds.size()));
  index.bytes(header.data(), header.size());
  index.array(sizes);
  std::int64_t offset = 0;
  for (const std::int32_t size : sizes) {
    index.number(offset);
    offset += size * token_width(type);
  }
  index.array(bounds);
  return index.text();
}

std::string token_bytes(TokenType type, std::span<const std::int32_t> ids) {
  std::string bytes(ids.size() * static_cast<std::size_t>(token_width(type)), '\0');
  with_tokens(type, reinterpret_cast<const std::uint8_t*>(bytes.data()), [&](const auto* typed) {
    using T = std::remove_cvref_t<decltype(*typed)>;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const T value = static_cast<T>(ids[i]);
      std::memcpy(bytes.data() + i * sizeof(T), &value, sizeof(T));
    }
  });
  return bytes;
}

fs::path token_file_name(const fs::path& prefix) {
  return prefix.string() + ".bin";
}

fs::path token_index_name(const fs::path& prefix) {
  return prefix.string() + ".idx";
}

TokenFile::TokenFile(const fs::path& prefix, std::int64_t vocabulary)
    : name_(token_file_name(prefix).string()),
      vocabulary_(vocabulary),
      mapped_index_(std::make_unique<MappedFile>(token_index_name(prefix))),
      mapped_tokens_(std::make_unique<MappedFile>(token_file_name(prefix))),
      tokens_(mapped_tokens_->bytes()),
      index_(std::make_unique<TokenIndex>(mapped_index_->bytes(), token_index_name(prefix).string())) {
  check();
}

TokenFile::TokenFile(std::string index, std::string tokens, std::string name, std::int64_t vocabulary)
    : name_(std::move(name)),
      index_memory_(std::move(index)),
      token_memory_(std::move(tokens)),
      vocabulary_(vocabulary),
      tokens_(reinterpret_cast<const std::uint8_t*>(token_memory_.data()), token_memory_.size()),
      index_(std::make_unique<TokenIndex>(
          std::span(reinterpret_cast<const std::uint8_t*>(index_memory_.data()), index_memory_.size()),
          name_)) {
  check();
}

void TokenFile::check() {
  const auto found = static_cast<std::int64_t>(tokens_.size());
  const std::int64_t needed = index_->tokens() * token_width(index_->type());
  if (found != needed)
    throw DataError(format("{}: {} bytes; the index needs {}: the file is {}, or the index is another's",
                           name_, found, needed, found < needed ? "truncated" : "too long"));
  if (found > kCheckedAtOnce) return;
  for_each_parallel((index_->tokens() + kPiece - 1) / kPiece, [&](std::int64_t piece) {
    std::vector<std::int32_t> ids(
        static_cast<std::size_t>(std::min(kPiece, index_->tokens() - piece * kPiece)));
    read(piece * kPiece, static_cast<std::int64_t>(ids.size()), ids.data());
  });
}

void TokenFile::read(std::int64_t begin, std::int64_t count, std::int32_t* to) const {
  if (begin < 0 || count < 0 || begin > index_->tokens() - count)
    throw Error(format("tokens {} to {} of {}: not within the data", begin, begin + count, index_->tokens()));
  const auto refuse = [&](std::int64_t place, std::int64_t id) {
    throw DataError(format("{}: token {} has the id {}; ids of the vocabulary are 0 to {}", name_, place, id,
                           vocabulary_ - 1));
  };
  with_tokens(index_->type(), tokens_.data(), [&](const auto* typed) {
    const auto* from = typed + begin;
    bool within = true;
    for (std::int64_t i = 0; i < count; ++i) {
      const auto id = static_cast<std::int64_t>(from[i]);
      within &= id >= 0 && id < vocabulary_;
      to[i] = static_cast<std::int32_t>(id);
    }
    for (std::int64_t i = 0; !within && i < count; ++i)
      if (from[i] < 0 || static_cast<std::int64_t>(from[i]) >= vocabulary_)
        refuse(begin + i, static_cast<std::int64_t>(from[i]));
  });
}

std::vector<std::int64_t> TokenFile::counts() const {
  std::vector<std::int64_t> counts(static_cast<std::size_t>(vocabulary_));
  std::mutex mutex;
  // large tasks: each counts into an array of its own
  const std::int64_t piece = std::max(kPiece, index_->tokens() / 64 + 1);
  for_each_parallel((index_->tokens() + piece - 1) / piece, [&](std::int64_t task) {
    std::vector<std::int64_t> own(counts.size());
    std::vector<std::int32_t> ids(1 << 16);
    const std::int64_t end = std::min((task + 1) * piece, index_->tokens());
    for (std::int64_t at = task * piece; at < end; at += static_cast<std::int64_t>(ids.size())) {
      const std::int64_t count = std::min<std::int64_t>(static_cast<std::int64_t>(ids.size()), end - at);
      read(at, count, ids.data());
      for (std::int64_t i = 0; i < count; ++i) ++own[static_cast<std::size_t>(ids[i])];
    }
    const std::lock_guard lock(mutex);
    for (std::size_t id = 0; id < counts.size(); ++id) counts[id] += own[id];
  });
  return counts;
}

void write_token_file(const fs::path& prefix, TokenType type, std::span<const std::int32_t> ids,
                      std::span<const std::int32_t> sizes, std::span<const std::int64_t> bounds) {
  write_file_atomically(token_file_name(prefix), token_bytes(type, ids));
  write_file_atomically(token_index_name(prefix), token_index(type, sizes, bounds));
}

}  // namespace stoa
