#include <algorithm>
#include <cctype>
#include <map>

#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/base/text.h"
#include "stoa/data/image/readers.h"
#include "stoa/data/image/tar.h"

namespace stoa {
namespace {

namespace fs = std::filesystem;
using Bytes = std::span<const std::uint8_t>;

/// One image that is not decoded yet: a file, or a part of an archive's bytes.
struct Source {
  std::string name;
  Bytes bytes;  // of an archive; empty for files
  std::int64_t label = 0;
};

/// Images by class. `keep` holds what `bytes` points into.
struct Listing {
  std::map<std::string, std::vector<Source>> classes;
  std::shared_ptr<const void> keep;
};

bool is_image(const fs::path& file) {
  std::string extension = file.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  // names that start with a dot are leftovers of file managers
  return !file.filename().string().starts_with('.') &&
         (extension == ".jpg" || extension == ".jpeg" || extension == ".png");
}

Listing list_folder(const fs::path& folder) {
  Listing listing;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string class_name = entry.path().filename().string();
    if (!entry.is_directory() || class_name.starts_with('.')) continue;
    auto& sources = listing.classes[class_name];
    for (const auto& file : fs::directory_iterator(entry.path()))
      if (is_image(file.path())) sources.push_back({file.path().string(), {}});
  }
  return listing;
}

/// The bytes of a tar archive: mapped, or unpacked into memory.
std::pair<Bytes, std::shared_ptr<const void>> open_archive(const fs::path& archive) {
  if (archive.extension() == ".tar") {
    const auto mapped = std::make_shared<const MappedFile>(archive);
    return {mapped->bytes(), mapped};
  }
  const auto unpacked = std::make_shared<const std::vector<std::uint8_t>>(read_maybe_gzip(archive));
  return {*unpacked, unpacked};
}

Listing list_archive(const fs::path& archive) {
  Listing listing;
  const auto [bytes, keep] = open_archive(archive);
  listing.keep = keep;
  for (const TarFile& file : index_tar(bytes, archive.string())) {
    const fs::path path(file.name);
    const std::string class_name = path.parent_path().filename().string();
    if (!is_image(path) || class_name.empty()) continue;
    listing.classes[class_name].push_back(
        {archive.string() + ":" + file.name, bytes.subspan(file.offset, file.size)});
  }
  return listing;
}

/// The folder or archive of a split; an empty path where there is none.
fs::path find_split(const fs::path& folder, Split split) {
  const std::vector<std::string> names = split == Split::kTrain
                                             ? std::vector<std::string>{"train"}
                                             : std::vector<std::string>{"test", "val", "validation"};
  for (const auto& name : names) {
    if (fs::is_directory(folder / name)) return folder / name;
    for (const char* extension : {".tar", ".tar.gz", ".tgz"})
      if (fs::is_regular_file(folder / (name + extension))) return folder / (name + extension);
  }
  return {};
}

Listing list_split(const fs::path& where) {
  return fs::is_directory(where) ? list_folder(where) : list_archive(where);
}

class FolderImages final : public ImageDataset {
 public:
  explicit FolderImages(Listing listing) : keep_(std::move(listing.keep)) {
    std::size_t largest = 0;
    for (auto& [name, sources] : listing.classes) {
      std::sort(sources.begin(), sources.end(),
                [](const Source& a, const Source& b) { return a.name < b.name; });
      for (auto& source : sources) source.label = static_cast<std::int64_t>(classes_.size());
      classes_.push_back(name);
      largest = std::max(largest, sources.size());
    }
    for (std::size_t i = 0; i < largest; ++i)  // in turn, so that the first n are balanced
      for (auto& [name, sources] : listing.classes)
        if (i < sources.size()) sources_.push_back(std::move(sources[i]));
  }

  std::int64_t size() const override { return static_cast<std::int64_t>(sources_.size()); }

  LabeledImage get(std::int64_t index) const override {
    const Source& source = sources_.at(index);
    if (keep_) return {decode_image(source.bytes, source.name), source.label};
    const std::string content = read_file(source.name);
    const Bytes bytes(reinterpret_cast<const std::uint8_t*>(content.data()), content.size());
    return {decode_image(bytes, source.name), source.label};
  }

  std::vector<std::string> class_names() const override { return classes_; }
  std::string name(std::int64_t index) const override { return sources_.at(index).name; }

 private:
  std::shared_ptr<const void> keep_;
  std::vector<Source> sources_;
  std::vector<std::string> classes_;
};

/// The test split's labels are counted among its own classes: they must be the training split's.
void check_same_classes(const std::vector<std::string>& test, const Listing& train,
                        const fs::path& test_path) {
  std::vector<std::string> names;
  for (const auto& entry : train.classes) names.push_back(entry.first);
  for (const auto& name : test)
    if (!train.classes.count(name))
      throw DataError(format("{}: class {} is not among the training classes{}; rename or move its folder",
                             test_path.string(), name, suggestion(name, names)));
}

}  // namespace

std::unique_ptr<ImageDataset> open_folder(const fs::path& folder, Split split, std::int64_t classes) {
  const fs::path where = find_split(folder, split);
  if (where.empty())
    throw DataError(
        format("{}: no {}, neither a folder of class folders nor .tar, .tar.gz or .tgz; arrange the images "
               "as SPLIT/CLASS/*.jpg or correct data.path",
               folder.string(), split == Split::kTrain ? "train" : "test, val or validation"));
  auto images = std::make_unique<FolderImages>(list_split(where));
  if (images->size() == 0)
    throw DataError(
        format("{}: no images (CLASS/*.jpg, *.jpeg or *.png); arrange the images so or correct data.path",
               where.string()));
  check_class_count(static_cast<std::int64_t>(images->class_names().size()), classes, where.string());
  const fs::path train = find_split(folder, Split::kTrain);
  if (split == Split::kTest && !train.empty())
    check_same_classes(images->class_names(), list_split(train), where);
  return images;
}

}  // namespace stoa
