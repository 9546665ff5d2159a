#include "stoa/data/image/tfrecord.h"

#include <algorithm>
#include <optional>

#include "stoa/base/checksum.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/data/image/readers.h"
#include "stoa/data/parallel.h"

namespace stoa {
namespace {

namespace fs = std::filesystem;
using Bytes = std::span<const std::uint8_t>;

std::uint64_t little_endian(Bytes bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = bytes.size(); i-- > 0;) value = value << 8 | bytes[i];
  return value;
}

/// Walks the fields of one protobuf message.
class Message {
 public:
  Message(Bytes bytes, const std::string& name) : left_(bytes), name_(name) {}

  /// Moves to the next field; false at the end.
  bool next() {
    if (left_.empty()) return false;
    const std::uint64_t key = varint();
    field = key >> 3;
    length_delimited = false;
    content = {};
    switch (key & 7) {
      case 0:
        number = varint();
        break;
      case 1:
        take(8);
        break;
      case 2:
        length_delimited = true;
        content = take(varint());
        break;
      case 5:
        take(4);
        break;
      default:
        fail();
    }
    return true;
  }

  /// One base-128 number.
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const std::uint8_t byte = take(1)[0];
      value |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    fail();
  }

  std::uint64_t field = 0;
  bool length_delimited = false;
  Bytes content;             ///< of a length-delimited field
  std::uint64_t number = 0;  ///< of a varint field

 private:
  Bytes take(std::uint64_t count) {
    if (count > left_.size()) fail();
    const Bytes taken = left_.first(count);
    left_ = left_.subspan(count);
    return taken;
  }

  [[noreturn]] void fail() const {
    throw DataError(format("{}: not a tf.Example (damaged protobuf message); make the file again", name_));
  }

  Bytes left_;
  const std::string& name_;
};

/// The first value of a BytesList.
std::optional<Bytes> first_bytes(Bytes list, const std::string& name) {
  for (Message m(list, name); m.next();)
    if (m.field == 1 && m.length_delimited) return m.content;
  return std::nullopt;
}

/// The first value of an Int64List, packed or not.
std::optional<std::int64_t> first_integer(Bytes list, const std::string& name) {
  for (Message m(list, name); m.next();) {
    if (m.field != 1) continue;
    if (!m.length_delimited) return static_cast<std::int64_t>(m.number);
    if (!m.content.empty()) return static_cast<std::int64_t>(Message(m.content, name).varint());
  }
  return std::nullopt;
}

class TfRecordImages final : public ImageDataset {
 public:
  TfRecordImages(std::vector<fs::path> files, std::int64_t classes)
      : files_(std::move(files)), classes_(classes) {
    maps_.resize(files_.size());
    std::vector<std::vector<TfRecord>> found(files_.size());
    for_each_parallel(static_cast<std::int64_t>(files_.size()), [&](std::int64_t i) {
      maps_[i] = std::make_unique<MappedFile>(files_[i]);
      found[i] = index_tfrecords(maps_[i]->bytes(), files_[i].string());
    });
    for (std::size_t i = 0; i < found.size(); ++i) {
      first_.push_back(static_cast<std::int64_t>(records_.size()));
      records_.insert(records_.end(), found[i].begin(), found[i].end());
    }
  }

  std::int64_t size() const override { return static_cast<std::int64_t>(records_.size()); }

  LabeledImage get(std::int64_t index) const override {
    const std::string where = name(index);
    const auto data = tfrecord_data(maps_[file_of(index)]->bytes(), records_.at(index), where);
    const ImageExample example = parse_image_example(data, where);
    // stored labels count from 1; 0 is left to "background"
    const std::int64_t label = classes_ == 1001 ? example.label : example.label - 1;
    if (label < 0 || label >= classes_)
      throw LabelError(format(
          "{}: image/class/label is {}, but data.classes = {} allows {} to {}; correct the label or "
          "set data.classes",
          where, example.label, classes_, classes_ == 1001 ? 0 : 1, classes_ == 1001 ? 1000 : classes_));
    return {decode_image(example.encoded, where), label};
  }

  std::vector<std::string> class_names() const override { return {}; }

  std::string name(std::int64_t index) const override {
    const std::size_t file = file_of(index);
    return format("{}, record {}", files_[file].string(), index - first_[file]);
  }

 private:
  std::size_t file_of(std::int64_t index) const {
    return std::upper_bound(first_.begin(), first_.end(), index) - first_.begin() - 1;
  }

  std::vector<fs::path> files_;
  std::vector<std::unique_ptr<MappedFile>> maps_;
  std::vector<TfRecord> records_;
  std::vector<std::int64_t> first_;  // number of each file's first record
  std::int64_t classes_;
};

/// "train-00003-of-01024" -> 1024; 0 for another form.
std::int64_t shards_in_name(const std::string& name, const std::string& prefix) {
  if (!name.starts_with(prefix + "-")) return 0;
  const auto of = name.find("-of-");
  if (of == std::string::npos) return 0;
  const std::string count = name.substr(of + 4);
  if (count.empty() || count.size() > 9 || count.find_first_not_of("0123456789") != std::string::npos)
    return 0;
  return std::stoll(count);
}

}  // namespace

std::vector<TfRecord> index_tfrecords(Bytes bytes, const std::string& name) {
  constexpr std::uint64_t kHead = 12, kTail = 4;
  std::vector<TfRecord> records;
  for (std::uint64_t offset = 0; offset < bytes.size();) {
    const std::uint64_t left = bytes.size() - offset;
    const auto truncated = [&](std::uint64_t needed) {
      return DataError(format("{}: truncated within record {} ({} bytes left of {}); get the file again",
                              name, records.size(), left, needed));
    };
    if (left < kHead) throw truncated(kHead);
    const Bytes length_bytes = bytes.subspan(offset, 8);
    if (masked_crc32c(length_bytes) != little_endian(bytes.subspan(offset + 8, 4)))
      throw DataError(
          format("{}: the checksum of record {}'s length is wrong: no TFRecord file, or altered; get the "
                 "file again",
                 name, records.size()));
    const std::uint64_t length = little_endian(length_bytes);
    if (left < kHead + kTail || length > left - kHead - kTail) throw truncated(length);
    records.push_back({offset + kHead, length});
    offset += kHead + length + kTail;
  }
  return records;
}

Bytes tfrecord_data(Bytes bytes, const TfRecord& record, const std::string& name) {
  const Bytes data = bytes.subspan(record.offset, record.length);
  if (masked_crc32c(data) != little_endian(bytes.subspan(record.offset + record.length, 4)))
    throw DataError(
        format("{}: the checksum of the data is wrong, the file was altered; get it again", name));
  return data;
}

ImageExample parse_image_example(Bytes bytes, const std::string& name) {
  std::optional<Bytes> encoded;
  std::optional<std::int64_t> label;
  const auto read_feature = [&](Bytes key, Bytes feature) {
    const std::string_view text(reinterpret_cast<const char*>(key.data()), key.size());
    for (Message kind(feature, name); kind.next();) {
      if (!kind.length_delimited) continue;
      if (text == "image/encoded" && kind.field == 1) encoded = first_bytes(kind.content, name);
      if (text == "image/class/label" && kind.field == 3) label = first_integer(kind.content, name);
    }
  };
  // Example { features = 1 } -> Features { repeated entry = 1 } -> entry { key = 1, Feature value = 2 }
  for (Message example(bytes, name); example.next();) {
    if (example.field != 1 || !example.length_delimited) continue;
    for (Message features(example.content, name); features.next();) {
      if (features.field != 1 || !features.length_delimited) continue;
      Bytes key, value;
      for (Message entry(features.content, name); entry.next();) {
        if (entry.field == 1) key = entry.content;
        if (entry.field == 2) value = entry.content;
      }
      read_feature(key, value);
    }
  }
  if (!encoded || !label)
    throw DataError(
        format("{}: the tf.Example has no {}; make the file again with both image/encoded and "
               "image/class/label",
               name, encoded ? "image/class/label" : "image/encoded"));
  return {*encoded, *label};
}

std::unique_ptr<ImageDataset> open_tfrecord(const fs::path& folder, Split split, std::int64_t classes) {
  const std::string prefix = split == Split::kTrain ? "train" : "validation";
  std::vector<fs::path> files;
  std::int64_t shards = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::int64_t of = shards_in_name(entry.path().filename().string(), prefix);
    if (of == 0) continue;
    files.push_back(entry.path());
    shards = std::max(shards, of);
  }
  if (files.empty())
    throw DataError(format("{}: no files {}-*-of-*; put the TFRecord files there or correct data.path",
                           folder.string(), prefix));
  if (static_cast<std::int64_t>(files.size()) != shards)
    throw DataError(
        format("{}: {} of {} files {}-*-of-{:05} are there; get the missing ones, or rename these as a "
               "set of {}",
               folder.string(), files.size(), shards, prefix, shards, files.size()));
  std::sort(files.begin(), files.end());
  return std::make_unique<TfRecordImages>(std::move(files), classes);
}

}  // namespace stoa
