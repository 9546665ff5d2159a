#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace stoa {

/// The data of one record within a TFRecord file: u64 length, u32 checksum of it, data, u32 checksum,
/// little-endian.
struct TfRecord {
  std::uint64_t offset = 0, length = 0;
};

/// Finds all records by their frames and verifies the lengths' checksums. Throws DataError naming `name` and
/// the record.
std::vector<TfRecord> index_tfrecords(std::span<const std::uint8_t> bytes, const std::string& name);

/// The data of a record found in the same bytes; verifies its checksum. `name` names file and record.
std::span<const std::uint8_t> tfrecord_data(std::span<const std::uint8_t> bytes, const TfRecord& record,
                                            const std::string& name);

/// What Stoa reads of a tf.Example (a protobuf message) of ImageNet's form.
struct ImageExample {
  std::span<const std::uint8_t> encoded;  ///< image/encoded, within the parsed bytes
  std::int64_t label = 0;                 ///< image/class/label
};

/// Throws DataError naming `name` where the message is damaged or lacks one of the two.
ImageExample parse_image_example(std::span<const std::uint8_t> bytes, const std::string& name);

}  // namespace stoa
