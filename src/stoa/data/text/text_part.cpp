#include "stoa/data/text/text_part.h"

#include <memory>

#include "stoa/base/checksum.h"
#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/base/interrupt.h"
#include "stoa/data/tabular/bytes.h"

namespace stoa {

namespace fs = std::filesystem;

namespace {

// A part: magic, u8 type of the tokens, the head's five numbers, u32 CRC-32 of the rest; ids, i32 sizes, i64
// breaks.
constexpr std::string_view kMagic = "STOATPT1";
constexpr std::size_t kHeader = 8 + 1 + 5 * 8 + 4;

std::span<const std::uint8_t> as_bytes(const std::string& text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

/// The content of a part that is known to be whole.
class PartContent {
 public:
  PartContent(const fs::path& file, const TextPartHead& head, TokenType type)
      : mapped_(file), head_(head), token_bytes_(head.tokens * token_width(type)) {
    if (mapped_.bytes().size() !=
        kHeader + static_cast<std::size_t>(token_bytes_ + 4 * head.sentences + 8 * head.breaks))
      throw DataError(format("{}: changed meanwhile; give the command again", file.string()));
  }
  std::span<const std::uint8_t> ids() const { return part(0, token_bytes_); }
  std::span<const std::uint8_t> sizes() const { return part(token_bytes_, 4 * head_.sentences); }
  std::vector<std::int64_t> breaks() const {
    const auto bytes = part(token_bytes_ + 4 * head_.sentences, 8 * head_.breaks);
    return ByteReader(bytes, "").array<std::int64_t>(static_cast<std::uint64_t>(head_.breaks));
  }

 private:
  std::span<const std::uint8_t> part(std::int64_t begin, std::int64_t count) const {
    return mapped_.bytes().subspan(kHeader + static_cast<std::size_t>(begin),
                                   static_cast<std::size_t>(count));
  }

  MappedFile mapped_;
  TextPartHead head_;
  std::int64_t token_bytes_;
};

}  // namespace

std::string text_part_name(std::int64_t chunk) {
  return format("part-{:06}.bin", chunk);
}

TextPartHead write_text_part(const fs::path& file, const TextChunk& chunk, const TokenizedText& text,
                             TokenType type) {
  const TextPartHead head{chunk.file, chunk.text.size(), static_cast<std::int64_t>(text.ids.size()),
                          static_cast<std::int64_t>(text.sizes.size()),
                          static_cast<std::int64_t>(text.breaks.size())};
  ByteWriter payload, header;
  const std::string ids = token_bytes(type, text.ids);
  payload.bytes(ids.data(), ids.size());
  payload.array(std::span(text.sizes));
  payload.array(std::span(text.breaks));
  header.bytes(kMagic.data(), kMagic.size());
  header.number(static_cast<std::uint8_t>(type));
  header.number(head.file);
  header.number(head.text_bytes);
  header.number(head.tokens);
  header.number(head.sentences);
  header.number(head.breaks);
  header.number(crc32(as_bytes(payload.text()), crc32(as_bytes(header.text()))));
  write_file_atomically(file, [&](const Append& append) {
    append(std::as_bytes(std::span(header.text())));
    append(std::as_bytes(std::span(payload.text())));
  });
  return head;
}

std::optional<TextPartHead> whole_text_part(const fs::path& file, const TextChunk& chunk, TokenType type) {
  if (!fs::exists(file)) return std::nullopt;
  const MappedFile mapped(file);
  const auto bytes = mapped.bytes();
  if (bytes.size() < kHeader) return std::nullopt;
  ByteReader reader(bytes, file.string());
  const auto magic = reader.take(kMagic.size());
  const auto written = static_cast<TokenType>(reader.number<std::uint8_t>());
  TextPartHead head;
  head.file = reader.number<std::uint64_t>();
  head.text_bytes = reader.number<std::uint64_t>();
  head.tokens = reader.number<std::int64_t>();
  head.sentences = reader.number<std::int64_t>();
  head.breaks = reader.number<std::int64_t>();
  const auto checksum = reader.number<std::uint32_t>();
  if (!std::equal(magic.begin(), magic.end(), kMagic.begin()) ||
      checksum != crc32(bytes.subspan(kHeader), crc32(bytes.first(kHeader - 4))))
    return std::nullopt;
  if (written != type || head.file != chunk.file || head.text_bytes != chunk.text.size()) return std::nullopt;
  return head;
}

void join_text_parts(const fs::path& folder, std::span<const TextPartHead> parts, TokenType type,
                     const fs::path& prefix, PreparedText& made) {
  const auto for_each_part = [&](const auto& use) {
    for (std::size_t i = 0; i < parts.size(); ++i) {
      if (interrupted()) throw Interrupted("stopped; the same command goes on from here");
      use(PartContent(folder / text_part_name(static_cast<std::int64_t>(i)), parts[i], type), parts[i]);
    }
  };
  DocumentJoiner joiner;
  for_each_part([&](const PartContent& content, const TextPartHead& head) {
    joiner.add(static_cast<std::size_t>(head.file), head.sentences, content.breaks());
    made.tokens += head.tokens;
  });
  made.sentences = joiner.sentences();
  const std::vector<std::int64_t> bounds = joiner.finish();
  made.documents = static_cast<std::int64_t>(bounds.size()) - 1;
  write_file_atomically(token_file_name(prefix), [&](const Append& append) {
    for_each_part(
        [&](const PartContent& content, const TextPartHead&) { append(std::as_bytes(content.ids())); });
  });
  write_file_atomically(token_index_name(prefix), [&](const Append& append) {
    const std::string header =
        token_index_header(type, made.sentences, static_cast<std::int64_t>(bounds.size()));
    append(std::as_bytes(std::span(header)));
    for_each_part(
        [&](const PartContent& content, const TextPartHead&) { append(std::as_bytes(content.sizes())); });
    std::int64_t offset = 0;
    for_each_part([&](const PartContent& content, const TextPartHead& head) {
      const auto sizes =
          ByteReader(content.sizes(), "").array<std::int32_t>(static_cast<std::uint64_t>(head.sentences));
      std::vector<std::int64_t> offsets;
      offsets.reserve(sizes.size());
      for (const std::int32_t size : sizes) {
        offsets.push_back(offset);
        offset += size * token_width(type);
      }
      append(std::as_bytes(std::span(offsets)));
    });
    append(std::as_bytes(std::span(bounds)));
  });
}

}  // namespace stoa
