#include "stoa/tensor/safetensors_header.h"

#include <algorithm>
#include <limits>
#include <set>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/json.h"

namespace stoa {
namespace {

constexpr std::uint64_t kMostHeaderBytes = 100'000'000;  // the format's own limit

class HeaderReader {
 public:
  explicit HeaderReader(const std::string& name) : name_(name) {}

  SafetensorsHeader read(std::span<const std::uint8_t> bytes) {
    std::uint64_t length = 0;
    if (bytes.size() < 8) fail(format("truncated, {} bytes where 8 give the header's length", bytes.size()));
    for (int i = 7; i >= 0; --i) length = length << 8 | bytes[i];
    if (length > kMostHeaderBytes)
      fail(format("no safetensors file, its header would have {} bytes", length));
    if (length > bytes.size() - 8)
      fail(format("truncated, {} bytes where the header alone has {}", bytes.size(), length + 8));
    const Json json = parse(bytes.subspan(8, length));
    SafetensorsHeader header;
    header.data_offset = 8 + length;
    for (const auto& [key, value] : json.items())
      if (key == "__metadata__")
        header.metadata = metadata(value);
      else
        header.entries.emplace(key, entry(key, value));
    check_layout(header, bytes.size() - header.data_offset);
    return header;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw DataError(format("{}: {}; the file is damaged or was cut short, use another copy", name_, what));
  }

  [[noreturn]] void fail(const std::string& tensor, const std::string& what) const {
    fail(format("tensor {}: {}", Json(tensor).dump(-1, ' ', true, Json::error_handler_t::replace), what));
  }

  Json parse(std::span<const std::uint8_t> text) const {
    std::set<std::string> names;
    // Tensor names are the keys at depth 1. Nothing lies deeper than {name: {shape: [...]}}.
    const auto check = [&](int depth, Json::parse_event_t event, Json& value) {
      if (depth > 3) fail("the header is nested too deeply");
      if (event == Json::parse_event_t::key && depth == 1 && !names.insert(value.get<std::string>()).second)
        fail(value.get<std::string>(), "is there twice");
      return true;
    };
    try {
      Json json = Json::parse(text.begin(), text.end(), check);
      if (!json.is_object()) fail("the header is no JSON object");
      return json;
    } catch (const Json::parse_error& error) {
      fail(format("the header is not valid JSON at byte {}", error.byte));
    } catch (const Json::exception&) {
      fail("the header holds a number out of range");
    }
  }

  std::map<std::string, std::string> metadata(const Json& value) const {
    std::map<std::string, std::string> result;
    if (!value.is_object()) fail("__metadata__ is no table");
    for (const auto& [key, text] : value.items()) {
      if (!text.is_string()) fail("__metadata__ holds something other than text");
      result.emplace(key, text.get<std::string>());
    }
    return result;
  }

  SafetensorsEntry entry(const std::string& tensor, const Json& value) const {
    const auto part = [&](const char* key) -> const Json& {
      if (!value.is_object() || !value.contains(key)) fail(tensor, format("has no {}", key));
      return value[key];
    };
    SafetensorsEntry result;
    const Json &dtype = part("dtype"), &shape = part("shape"), &offsets = part("data_offsets");
    const std::uint64_t size = dtype.is_string() ? safetensors_dtype_size(dtype.get<std::string>()) : 0;
    if (size == 0) fail(tensor, "has an unknown dtype");
    result.dtype = dtype.get<std::string>();
    if (!shape.is_array()) fail(tensor, "has a shape that is no list");
    std::uint64_t needed = size;
    for (const auto& item : shape) {
      const std::uint64_t extent = integer(tensor, item, "shape");
      // a later 0 cannot undo this: no honest file has such a shape
      if (extent != 0 && needed > std::uint64_t{std::numeric_limits<std::int64_t>::max()} / extent)
        fail(tensor, "has a shape whose size overflows");
      needed *= extent;
      result.shape.push_back(static_cast<std::int64_t>(extent));
    }
    if (!offsets.is_array() || offsets.size() != 2) fail(tensor, "has data_offsets that are not two numbers");
    result.begin = integer(tensor, offsets[0], "data_offsets");
    result.end = integer(tensor, offsets[1], "data_offsets");
    if (result.end < result.begin || result.end - result.begin != needed)
      fail(tensor, format("has data_offsets {} to {} where its shape needs {} bytes", result.begin,
                          result.end, needed));
    return result;
  }

  std::uint64_t integer(const std::string& tensor, const Json& value, const char* what) const {
    constexpr std::uint64_t kMost = std::numeric_limits<std::int64_t>::max();
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() > kMost)
      fail(tensor, format("has {} that are not whole numbers from 0 to 2^63 - 1", what));
    return value.get<std::uint64_t>();
  }

  /// The data of all tensors, in the order of their offsets, must fill the rest of the file exactly.
  void check_layout(const SafetensorsHeader& header, std::uint64_t data_bytes) const {
    std::vector<const std::pair<const std::string, SafetensorsEntry>*> ordered;
    for (const auto& entry : header.entries) ordered.push_back(&entry);
    std::sort(ordered.begin(), ordered.end(), [](const auto* a, const auto* b) {
      return std::pair(a->second.begin, a->second.end) < std::pair(b->second.begin, b->second.end);
    });
    std::uint64_t end = 0;
    for (const auto* item : ordered) {
      if (item->second.begin != end)
        fail(item->first,
             format("begins at {} of the data, but the one before it ends at {}", item->second.begin, end));
      end = item->second.end;
      if (end > data_bytes)
        fail(item->first, format("ends at {} of the data, but the file has {} bytes of it", end, data_bytes));
    }
    if (end != data_bytes) fail(format("{} bytes of data, but its tensors have {}", data_bytes, end));
  }

  const std::string& name_;
};

}  // namespace

std::uint64_t safetensors_dtype_size(const std::string& dtype) {
  static const std::map<std::string, std::uint64_t> sizes = {
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},   {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"U16", 2},
      {"I16", 2},  {"F16", 2}, {"BF16", 2}, {"U32", 4},     {"I32", 4},     {"F32", 4},
      {"U64", 8},  {"I64", 8}, {"F64", 8},  {"C64", 8}};
  const auto found = sizes.find(dtype);
  return found == sizes.end() ? 0 : found->second;
}

SafetensorsHeader parse_safetensors_header(std::span<const std::uint8_t> bytes, const std::string& name) {
  return HeaderReader(name).read(bytes);
}

}  // namespace stoa
