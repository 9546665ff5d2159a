#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "stoa/base/errors.h"
#include "stoa/data/image/dataset.h"

// What the readers of the image formats share. Callers use open_image_dataset.
namespace stoa {

/// A label that the options do not allow: never skipped as a corrupt image.
class LabelError : public DataError {
 public:
  using DataError::DataError;
};

/// Throws LabelError unless 0 <= label < classes. `where` names file and record.
void check_label(std::int64_t label, std::int64_t classes, const std::string& where);

/// Throws DataError where the data at `where` has another number of classes than the options.
void check_class_count(std::int64_t found, std::int64_t classes, const std::string& where);

/// Images of one size that lie decoded in memory, one behind the other.
struct StoredImages {
  std::int64_t height = 0, width = 0, channels = 0;
  std::vector<std::uint8_t> bytes;
  std::size_t start = 0;             ///< where the first image begins in `bytes`
  std::vector<std::int64_t> labels;  ///< one an image
  std::vector<std::string> classes;
  std::function<std::string(std::int64_t)> name;  ///< as ImageDataset::name
};
std::unique_ptr<ImageDataset> stored_images(StoredImages images);

/// The image as the options want it before augmentation: converted to their channels, square, resized.
Image prepare_image(Image image, const ImageDataOptions& options);

/// The readers. `folder` exists; all throw DataError as open_image_dataset says.
std::unique_ptr<ImageDataset> open_idx(const std::filesystem::path& folder, Split split,
                                       std::int64_t classes);
std::unique_ptr<ImageDataset> open_cifar10(const std::filesystem::path& folder, Split split,
                                           std::int64_t classes);
std::unique_ptr<ImageDataset> open_cifar100(const std::filesystem::path& folder, Split split,
                                            std::int64_t classes);
std::unique_ptr<ImageDataset> open_folder(const std::filesystem::path& folder, Split split,
                                          std::int64_t classes);
std::unique_ptr<ImageDataset> open_tfrecord(const std::filesystem::path& folder, Split split,
                                            std::int64_t classes);

/// `size` images of a synthetic data set.
std::unique_ptr<ImageDataset> synthetic_images(const ImageDataOptions& options, Split split,
                                               std::int64_t size);

}  // namespace stoa
