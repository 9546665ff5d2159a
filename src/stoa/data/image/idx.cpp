#include "stoa/data/image/idx.h"

#include <algorithm>

#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/data/image/readers.h"

namespace stoa {
namespace {

namespace fs = std::filesystem;

std::int64_t big_endian(std::span<const std::uint8_t> four) {
  return std::int64_t{four[0]} << 24 | four[1] << 16 | four[2] << 8 | four[3];
}

fs::path find_file(const fs::path& folder, const std::string& name) {
  for (const auto& file : {folder / name, folder / (name + ".gz")})
    if (fs::exists(file)) return file;
  throw DataError(format("{}: not found, nor the same with .gz; put the IDX files there or correct data.path",
                         (folder / name).string()));
}

IdxArray parse_rank(std::span<const std::uint8_t> bytes, std::size_t rank, const fs::path& file) {
  IdxArray array = parse_idx(bytes, file.string());
  if (array.shape.size() != rank)
    throw DataError(
        format("{}: {} dimensions where {} are needed; are the files of images and labels exchanged?",
               file.string(), array.shape.size(), rank));
  return array;
}

}  // namespace

IdxArray parse_idx(std::span<const std::uint8_t> bytes, const std::string& name) {
  if (bytes.size() < 4 || bytes[0] != 0 || bytes[1] != 0 || bytes[2] != 8 || bytes[3] == 0 || bytes[3] > 8)
    throw DataError(
        format("{}: not an IDX file of bytes (it must start with 00 00 08 and the number of dimensions); "
               "get the file again",
               name));
  const std::size_t rank = bytes[3], header = 4 + 4 * rank;
  if (bytes.size() < header)
    throw DataError(format("{}: truncated, {} bytes where the header alone has {}; get the file again", name,
                           bytes.size(), header));
  IdxArray array;
  array.values = bytes.subspan(header);
  constexpr std::uint64_t kMost = 1ull << 62;  // a larger product stays here
  std::uint64_t count = 1;
  for (std::size_t i = 0; i < rank; ++i) {
    array.shape.push_back(big_endian(bytes.subspan(4 + 4 * i, 4)));
    const auto size = static_cast<std::uint64_t>(array.shape.back());
    count = size != 0 && count > kMost / size ? kMost : count * size;
  }
  if (count != array.values.size())
    throw DataError(format("{}: {}, {} bytes of values where the header's sizes need {}; get the file again",
                           name, count > array.values.size() ? "truncated" : "too long", array.values.size(),
                           count));
  return array;
}

std::unique_ptr<ImageDataset> open_idx(const fs::path& folder, Split split, std::int64_t classes) {
  const std::string prefix = split == Split::kTrain ? "train" : "t10k";
  const fs::path image_file = find_file(folder, prefix + "-images-idx3-ubyte");
  const fs::path label_file = find_file(folder, prefix + "-labels-idx1-ubyte");
  StoredImages stored;
  stored.bytes = read_maybe_gzip(image_file);
  const auto label_bytes = read_maybe_gzip(label_file);
  const IdxArray images = parse_rank(stored.bytes, 3, image_file);
  const IdxArray labels = parse_rank(label_bytes, 1, label_file);
  if (images.shape[0] != labels.shape[0])
    throw DataError(format("{}: {} images, but {} has {} labels; get both files again", image_file.string(),
                           images.shape[0], label_file.string(), labels.shape[0]));
  if (images.values.empty())
    throw DataError(format("{}: no images; get the file again", image_file.string()));
  stored.height = images.shape[1];
  stored.width = images.shape[2];
  stored.channels = 1;
  stored.start = stored.bytes.size() - images.values.size();
  stored.labels.assign(labels.values.begin(), labels.values.end());
  for (std::size_t i = 0; i < stored.labels.size(); ++i)
    if (stored.labels[i] >= classes)
      check_label(stored.labels[i], classes, format("{}, record {}", label_file.string(), i));
  if (split == Split::kTrain)
    check_class_count(*std::max_element(stored.labels.begin(), stored.labels.end()) + 1, classes,
                      label_file.string());
  stored.name = [file = image_file.string()](std::int64_t index) {
    return format("{}, record {}", file, index);
  };
  return stored_images(std::move(stored));
}

}  // namespace stoa
