#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"

// Numbers and arrays one after the other, little-endian as in memory: the files of data preparation.
namespace stoa {

class ByteWriter {
 public:
  void reserve(std::size_t bytes) { text_.reserve(bytes); }
  template <class T>
  void number(T value) {
    static_assert(std::is_arithmetic_v<T>);
    bytes(&value, sizeof value);
  }
  template <class T>
  void array(std::span<const T> values) {
    bytes(values.data(), values.size_bytes());
  }
  void bytes(const void* from, std::size_t count) {
    if (count > 0) text_.append(static_cast<const char*>(from), count);
  }
  /// Zeros up to a multiple of 8 bytes.
  void pad() { text_.resize((text_.size() + 7) / 8 * 8); }
  const std::string& text() const { return text_; }
  std::string take() { return std::move(text_); }

 private:
  std::string text_;
};

class ByteReader {
 public:
  /// `name` is the file in messages.
  ByteReader(std::span<const std::uint8_t> bytes, const std::string& name) : rest_(bytes), name_(name) {}

  template <class T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  template <class T>
  std::vector<T> array(std::uint64_t count) {
    if (count > rest_.size() / sizeof(T)) fail();
    std::vector<T> values(count);
    if (count > 0) std::memcpy(values.data(), take(count * sizeof(T)).data(), count * sizeof(T));
    return values;
  }
  std::span<const std::uint8_t> take(std::uint64_t count) {
    if (count > rest_.size()) fail();
    const auto taken = rest_.first(count);
    rest_ = rest_.subspan(count);
    return taken;
  }
  /// Leaves out what pad() wrote, of bytes that are a multiple of 8 in all.
  void skip_padding() { take(rest_.size() % 8); }
  std::size_t left() const { return rest_.size(); }
  /// Throws the DataError of what does not fit.
  [[noreturn]] void fail() const {
    throw DataError(format("{}: truncated or damaged; prepare the data again", name_));
  }

 private:
  std::span<const std::uint8_t> rest_;
  std::string name_;
};

}  // namespace stoa
