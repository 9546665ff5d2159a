#include "stoa/data/image/tar.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <string_view>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"

namespace stoa {
namespace {

constexpr std::size_t kBlock = 512;

/// Text of a header field: up to the first NUL.
std::string text(std::span<const std::uint8_t> field) {
  return {field.begin(), std::find(field.begin(), field.end(), 0)};
}

/// A number in octal digits, or big-endian where the first bit is set (GNU, for large files).
std::optional<std::uint64_t> number(std::span<const std::uint8_t> field) {
  std::uint64_t value = 0;
  if (field[0] & 0x80) {
    for (std::size_t i = 0; i < field.size(); ++i) {
      if (value >> 55) return std::nullopt;
      value = value << 8 | (i ? field[i] : field[i] & 0x7f);
    }
    return value;
  }
  std::size_t i = 0;
  while (i < field.size() && field[i] == ' ') ++i;
  for (; i < field.size() && field[i] != ' ' && field[i] != 0; ++i) {
    if (field[i] < '0' || field[i] > '7') return std::nullopt;
    value = value * 8 + (field[i] - '0');  // 12 digits: no overflow
  }
  return value;
}

bool checksum_holds(std::span<const std::uint8_t> header) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < kBlock; ++i) sum += i >= 148 && i < 156 ? ' ' : header[i];
  return number(header.subspan(148, 8)) == sum;
}

/// What headers in front of a file say about it.
struct Overrides {
  std::optional<std::string> name;
  std::optional<std::uint64_t> size;
};

/// Reads "LENGTH KEY=VALUE\n" records of a pax header. False where they are damaged.
bool read_pax(std::string_view records, Overrides& overrides) {
  while (!records.empty()) {
    std::size_t length = 0;
    const auto [end, error] = std::from_chars(records.data(), records.data() + records.size(), length);
    const auto digits = static_cast<std::size_t>(end - records.data());
    if (error != std::errc() || length > records.size() || length < digits + 2) return false;
    std::string_view record = records.substr(digits + 1, length - digits - 2);
    records.remove_prefix(length);
    const auto equals = record.find('=');
    if (equals == std::string_view::npos) return false;
    const std::string_view key = record.substr(0, equals), value = record.substr(equals + 1);
    if (key == "path") overrides.name = std::string(value);
    if (key != "size") continue;
    std::uint64_t size = 0;
    if (std::from_chars(value.data(), value.data() + value.size(), size).ec != std::errc()) return false;
    overrides.size = size;
  }
  return true;
}

std::string name_in_header(std::span<const std::uint8_t> header) {
  const std::string name = text(header.subspan(0, 100));
  const bool posix = text(header.subspan(257, 6)) == "ustar";
  const std::string prefix = posix ? text(header.subspan(345, 155)) : "";
  return prefix.empty() ? name : prefix + "/" + name;
}

}  // namespace

std::vector<TarFile> index_tar(std::span<const std::uint8_t> bytes, const std::string& name) {
  const auto damaged = [&](std::uint64_t offset, const char* what) {
    return DataError(format("{}: damaged or truncated tar archive at byte {} ({}); pack or get it again",
                            name, offset, what));
  };
  std::vector<TarFile> files;
  Overrides overrides;
  for (std::uint64_t offset = 0;;) {
    if (bytes.size() - offset < kBlock) throw damaged(offset, "it ends without an end mark");
    const auto header = bytes.subspan(offset, kBlock);
    if (std::all_of(header.begin(), header.end(), [](std::uint8_t b) { return b == 0; })) return files;
    if (!checksum_holds(header)) throw damaged(offset, "the header's checksum is wrong");
    const char type = static_cast<char>(header[156]);
    const bool regular = type == '0' || type == 0 || type == '7';
    auto size = number(header.subspan(124, 12));
    if (overrides.size && regular) size = overrides.size;
    const std::uint64_t start = offset + kBlock;
    if (!size || *size > bytes.size() - start) throw damaged(offset, "a member reaches past the end");
    const std::string_view content(reinterpret_cast<const char*>(bytes.data()) + start, *size);
    if (regular) {
      const std::string member = overrides.name.value_or(name_in_header(header));
      if (member.empty() || member.back() != '/') files.push_back({member, start, *size});
    }
    if (type == 'L') {
      overrides.name = std::string(content.substr(0, content.find('\0')));
    } else if (type == 'x') {
      if (!read_pax(content, overrides)) throw damaged(start, "a pax header cannot be read");
    } else if (type != 'K' && type != 'g') {
      overrides = {};
    }
    const std::uint64_t blocks = (*size + kBlock - 1) / kBlock;
    if (blocks > (bytes.size() - start) / kBlock) throw damaged(offset, "it ends without an end mark");
    offset = start + blocks * kBlock;
  }
}

}  // namespace stoa
