#include "stoa/train/tfevents.h"

#include <bit>
#include <cstring>
#include <optional>
#include <span>

#include "stoa/base/checksum.h"

namespace stoa {
namespace {

static_assert(std::endian::native == std::endian::little, "frames are written as the machine holds numbers");

// Protocol buffers: a field is its number and wire type, then the value.
enum WireType : std::uint64_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };
enum EventField : std::uint64_t { kWallTime = 1, kStep = 2, kFileVersion = 3, kSummary = 5 };
enum SummaryField : std::uint64_t { kValue = 1 };
enum ValueField : std::uint64_t { kTag = 1, kSimpleValue = 2 };

constexpr std::size_t kBefore = 12, kAfter = 4;  // bytes of a frame around its payload

template <class Number>
std::string raw(Number number) {
  return {reinterpret_cast<const char*>(&number), sizeof number};
}

template <class Number>
Number read_raw(std::string_view bytes, std::size_t at) {
  Number number;
  std::memcpy(&number, bytes.data() + at, sizeof number);
  return number;
}

std::string varint(std::uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>((value & 0x7f) | 0x80);
  return bytes + static_cast<char>(value);
}

std::string key(std::uint64_t field, WireType type) {
  return varint(field << 3 | type);
}

std::string message(std::uint64_t field, std::string_view content) {
  return key(field, kBytes) + varint(content.size()) + std::string(content);
}

std::uint32_t checksum(std::string_view bytes) {
  return masked_crc32c({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()});
}

std::string frame(const std::string& payload) {
  const std::string length = raw<std::uint64_t>(payload.size());
  return length + raw(checksum(length)) + payload + raw(checksum(payload));
}

std::string event_start(double wall_time, std::int64_t step) {
  return key(kWallTime, kFixed64) + raw(wall_time) + key(kStep, kVarint) +
         varint(static_cast<std::uint64_t>(step));
}

/// Payload of the frame at the front; nothing where it is cut short or altered.
std::optional<std::string_view> first_payload(std::string_view content) {
  if (content.size() < kBefore + kAfter) return std::nullopt;
  const auto size = read_raw<std::uint64_t>(content, 0);
  if (read_raw<std::uint32_t>(content, 8) != checksum(content.substr(0, 8))) return std::nullopt;
  if (size > content.size() - kBefore - kAfter) return std::nullopt;
  const auto payload = content.substr(kBefore, size);
  if (read_raw<std::uint32_t>(content, kBefore + size) != checksum(payload)) return std::nullopt;
  return payload;
}

/// The step of an event written by this file: wall time first, then the step.
std::optional<std::int64_t> step_of(std::string_view payload) {
  std::size_t at = key(kWallTime, kFixed64).size() + sizeof(double);
  if (payload.size() <= at || payload.substr(at, 1) != key(kStep, kVarint)) return std::nullopt;
  std::uint64_t step = 0;
  for (int shift = 0; ++at < payload.size() && shift < 64; shift += 7) {
    const auto byte = static_cast<unsigned char>(payload[at]);
    step |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return static_cast<std::int64_t>(step);
  }
  return std::nullopt;
}

}  // namespace

std::string tfevents_header(double wall_time) {
  return frame(event_start(wall_time, 0) + message(kFileVersion, "brain.Event:2"));
}

std::string tfevents_scalars(double wall_time, std::int64_t step,
                             const std::vector<std::pair<std::string, float>>& scalars) {
  std::string summary;
  for (const auto& [tag, value] : scalars)
    summary += message(kValue, message(kTag, tag) + key(kSimpleValue, kFixed32) + raw(value));
  return frame(event_start(wall_time, step) + message(kSummary, summary));
}

std::size_t tfevents_up_to(std::string_view content, std::int64_t last_step) {
  std::size_t whole = 0;
  while (const auto payload = first_payload(content.substr(whole))) {
    const auto step = step_of(*payload);
    if (!step || *step > last_step) break;
    whole += kBefore + payload->size() + kAfter;
  }
  return whole;
}

}  // namespace stoa
