#include "stoa/data/image/cifar.h"

#include <algorithm>
#include <sstream>

#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/data/image/readers.h"

namespace stoa {
namespace {

namespace fs = std::filesystem;
constexpr std::int64_t kSide = 32, kPlane = kSide * kSide;

/// Lines of a text file that are not empty; none where there is no file.
std::vector<std::string> read_names(const fs::path& file) {
  std::vector<std::string> names;
  if (!fs::exists(file)) return names;
  std::istringstream text(read_file(file));
  for (std::string line; std::getline(text, line);) {
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
    if (!line.empty()) names.push_back(line);
  }
  return names;
}

/// Reads the files one behind the other.
std::unique_ptr<ImageDataset> read_files(const std::vector<fs::path>& files, int label_bytes,
                                         std::int64_t classes, const fs::path& names_file) {
  StoredImages stored;
  stored.height = stored.width = kSide;
  stored.channels = 3;
  std::vector<std::pair<std::int64_t, std::string>> ends;  // last record + 1 of each file
  for (const auto& file : files) {
    const CifarImages part = parse_cifar(read_maybe_gzip(file), label_bytes, file.string());
    for (std::size_t i = 0; i < part.labels.size(); ++i)
      if (part.labels[i] >= classes)
        check_label(part.labels[i], classes, format("{}, record {}", file.string(), i));
    stored.bytes.insert(stored.bytes.end(), part.pixels.begin(), part.pixels.end());
    stored.labels.insert(stored.labels.end(), part.labels.begin(), part.labels.end());
    ends.emplace_back(static_cast<std::int64_t>(stored.labels.size()), file.string());
  }
  stored.classes = read_names(names_file);
  if (!stored.classes.empty())
    check_class_count(static_cast<std::int64_t>(stored.classes.size()), classes, names_file.string());
  stored.name = [ends = std::move(ends)](std::int64_t index) {
    std::size_t i = 0;
    while (i + 1 < ends.size() && index >= ends[i].first) ++i;
    return format("{}, record {}", ends[i].second, i ? index - ends[i - 1].first : index);
  };
  return stored_images(std::move(stored));
}

/// The official archives unpack into a folder of their own: looks there too.
fs::path folder_with(const fs::path& folder, const char* inner, const char* file) {
  return !fs::exists(folder / file) && fs::exists(folder / inner / file) ? folder / inner : folder;
}

void need(const fs::path& file) {
  if (!fs::exists(file))
    throw DataError(format("{}: not found; unpack the binary version of CIFAR there or correct data.path",
                           file.string()));
}

}  // namespace

CifarImages parse_cifar(std::span<const std::uint8_t> bytes, int label_bytes, const std::string& name) {
  const std::size_t record = label_bytes + 3 * kPlane;
  if (bytes.empty() || bytes.size() % record != 0)
    throw DataError(
        format("{}: truncated or another format, {} bytes are not whole records of {}; get the file again",
               name, bytes.size(), record));
  const std::size_t count = bytes.size() / record;
  CifarImages images;
  images.labels.resize(count);
  images.pixels.resize(count * 3 * kPlane);
  std::uint8_t* to = images.pixels.data();
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint8_t* from = bytes.data() + i * record + label_bytes;
    images.labels[i] = from[-1];
    for (std::int64_t p = 0; p < kPlane; ++p)
      for (int c = 0; c < 3; ++c) *to++ = from[c * kPlane + p];
  }
  return images;
}

std::unique_ptr<ImageDataset> open_cifar10(const fs::path& folder, Split split, std::int64_t classes) {
  check_class_count(10, classes, folder.string());
  const fs::path inside = folder_with(folder, "cifar-10-batches-bin", "test_batch.bin");
  std::vector<fs::path> files = {inside / "test_batch.bin"};
  if (split == Split::kTrain) {
    files.clear();
    for (int i = 1; i <= 5; ++i) files.push_back(inside / format("data_batch_{}.bin", i));
  }
  const fs::path sample = folder / "sample_batch.bin";
  if (std::none_of(files.begin(), files.end(), [](const fs::path& f) { return fs::exists(f); }) &&
      fs::exists(sample))
    files = {sample};
  for (const auto& file : files) need(file);
  return read_files(files, 1, classes, inside / "batches.meta.txt");
}

std::unique_ptr<ImageDataset> open_cifar100(const fs::path& folder, Split split, std::int64_t classes) {
  check_class_count(100, classes, folder.string());
  const fs::path inside = folder_with(folder, "cifar-100-binary", "train.bin");
  const fs::path file = inside / (split == Split::kTrain ? "train.bin" : "test.bin");
  need(file);
  return read_files({file}, 2, classes, inside / "fine_label_names.txt");
}

}  // namespace stoa
