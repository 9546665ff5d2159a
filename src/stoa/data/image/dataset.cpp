#include "stoa/data/image/dataset.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "stoa/base/format.h"
#include "stoa/base/progress.h"
#include "stoa/data/find.h"
#include "stoa/data/image/readers.h"
#include "stoa/data/parallel.h"

namespace stoa {
namespace {

namespace fs = std::filesystem;

/// Some images of another data set.
class SelectedImages final : public ImageDataset {
 public:
  SelectedImages(std::unique_ptr<ImageDataset> all, std::vector<std::int64_t> chosen)
      : all_(std::move(all)), chosen_(std::move(chosen)) {}

  std::int64_t size() const override { return static_cast<std::int64_t>(chosen_.size()); }
  LabeledImage get(std::int64_t index) const override { return all_->get(chosen_.at(index)); }
  std::optional<LabeledView> view(std::int64_t index) const override { return all_->view(chosen_.at(index)); }
  std::vector<std::string> class_names() const override { return all_->class_names(); }
  std::string name(std::int64_t index) const override { return all_->name(chosen_.at(index)); }

 private:
  std::unique_ptr<ImageDataset> all_;
  std::vector<std::int64_t> chosen_;
};

std::unique_ptr<ImageDataset> select(std::unique_ptr<ImageDataset> images, std::vector<std::int64_t> chosen) {
  if (static_cast<std::int64_t>(chosen.size()) == images->size()) return images;
  return std::make_unique<SelectedImages>(std::move(images), std::move(chosen));
}

std::unique_ptr<ImageDataset> open_all(const ImageDataOptions& options, Split split) {
  if (options.format == ImageFormat::kSynthetic) {
    const std::int64_t limit = split == Split::kTrain ? options.train_limit : options.test_limit;
    return synthetic_images(options, split, limit ? limit : split == Split::kTrain ? 10'000 : 2'000);
  }
  const fs::path folder = find_data(options.path);
  if (!fs::is_directory(folder))
    throw DataError(format("{}: a file where a folder is needed; set data.path to the folder that holds it",
                           folder.string()));
  switch (options.format) {
    case ImageFormat::kIdx:
      return open_idx(folder, split, options.classes);
    case ImageFormat::kCifar10:
      return open_cifar10(folder, split, options.classes);
    case ImageFormat::kCifar100:
      return open_cifar100(folder, split, options.classes);
    case ImageFormat::kTfRecord:
      return open_tfrecord(folder, split, options.classes);
    default:
      return open_folder(folder, split, options.classes);
  }
}

/// Reads every image once and calls `use` with those that can be read, from several threads. Returns the
/// numbers of these, in order; a damaged one is thrown or named in a warning, as the options say.
std::vector<std::int64_t> read_all(const ImageDataset& images, CorruptImages corrupt,
                                   const std::function<void(std::int64_t, LabeledImage)>& use) {
  std::vector<std::string> errors(images.size());
  Progress progress("reading", "images", images.size());
  const auto read = [&](std::int64_t i) {
    try {
      use(i, images.get(i));
    } catch (const LabelError&) {
      throw;
    } catch (const DataError& error) {
      if (corrupt == CorruptImages::kRefuse) throw;
      errors[i] = error.what();
    }
  };
  for_each_parallel(images.size(), read, &progress);
  std::vector<std::int64_t> good;
  for (std::int64_t i = 0; i < images.size(); ++i)
    if (errors[i].empty())
      good.push_back(i);
    else
      log_warning(format("skipped {}", errors[i]));
  if (good.empty())
    throw DataError(format("{}: no image could be read; see the warnings above", images.name(0)));
  return good;
}

/// All images of a data set decoded, at the model's size.
std::unique_ptr<ImageDataset> in_memory(std::unique_ptr<ImageDataset> source,
                                        const ImageDataOptions& options) {
  const std::shared_ptr<const ImageDataset> images = std::move(source);
  StoredImages stored;
  stored.height = stored.width = options.image_size;
  stored.channels = options.channels;
  const std::int64_t stride = options.image_size * options.image_size * options.channels;
  stored.bytes.resize(images->size() * stride);
  stored.labels.resize(images->size());
  auto good = read_all(*images, options.corrupt, [&](std::int64_t i, LabeledImage read) {
    const Image ready = prepare_image(std::move(read.image), options);
    std::memcpy(stored.bytes.data() + i * stride, ready.pixels.data(), stride);
    stored.labels[i] = read.label;
  });
  stored.classes = images->class_names();
  stored.name = [images](std::int64_t index) { return images->name(index); };
  return select(stored_images(std::move(stored)), std::move(good));
}

}  // namespace

Image prepare_image(Image image, const ImageDataOptions& options) {
  const std::int64_t size = options.image_size;
  if (options.resize == Resize::kCenterCrop && image.height != image.width) {
    const std::int64_t side = std::min(image.height, image.width);
    Image square{side, side, image.channels, std::vector<std::uint8_t>(side * side * image.channels)};
    for (std::int64_t y = 0; y < side; ++y)
      std::memcpy(square.at(y, 0), image.at((image.height - side) / 2 + y, (image.width - side) / 2),
                  side * image.channels);
    image = std::move(square);
  }
  if (image.height != size || image.width != size) image = resize_antialiased(image, size, size);
  return image.channels == options.channels ? image : with_channels(image, options.channels);
}

std::unique_ptr<ImageDataset> open_image_dataset(const ImageDataOptions& options, Split split) {
  options.validate();
  auto images = open_all(options, split);
  const std::int64_t limit = split == Split::kTrain ? options.train_limit : options.test_limit;
  if (limit > 0 && limit < images->size()) {
    std::vector<std::int64_t> first(limit);
    std::iota(first.begin(), first.end(), 0);
    images = select(std::move(images), std::move(first));
  }
  if (options.format != ImageFormat::kFolder && options.format != ImageFormat::kTfRecord) return images;
  if (options.in_memory) return in_memory(std::move(images), options);
  if (options.corrupt == CorruptImages::kSkip) {
    auto good = read_all(*images, options.corrupt, [](std::int64_t, const LabeledImage&) {});
    return select(std::move(images), std::move(good));
  }
  return images;
}

}  // namespace stoa
