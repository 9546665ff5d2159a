#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "stoa/data/image/image.h"
#include "stoa/data/image/options.h"

namespace stoa {

struct LabeledImage {
  Image image;
  std::int64_t label = 0;
};

/// An image that lies decoded in the data set's own memory, rows and channels as in Image.
struct LabeledView {
  std::int64_t height = 0, width = 0, channels = 0;
  const std::uint8_t* pixels = nullptr;
  std::int64_t label = 0;
};

/// Images with labels, read at random. All functions are thread-safe.
class ImageDataset {
 public:
  virtual ~ImageDataset() = default;
  virtual std::int64_t size() const = 0;
  /// Throws DataError naming file and record for a damaged image or a label out of range.
  virtual LabeledImage get(std::int64_t index) const = 0;
  /// The image without a copy, where the data set keeps its images decoded; otherwise nothing.
  virtual std::optional<LabeledView> view(std::int64_t) const { return std::nullopt; }
  /// Names of the classes, by label; may be empty where the data has none.
  virtual std::vector<std::string> class_names() const = 0;
  /// File (and record) of an image, for messages and reports.
  virtual std::string name(std::int64_t index) const = 0;
};

enum class Split { kTrain, kTest };

/// Opens the split of a data set:
/// idx: {train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]; cifar10: {data_batch_1..5,test_batch}.bin +
/// batches.meta.txt (a single sample_batch.bin serves as both splits where nothing else is there); cifar100:
/// {train,test}.bin; folder: {train,test|val|validation}/CLASS/*.{jpg,jpeg,png}, or SPLIT.tar[.gz] of the
/// same, labels by the classes' names in order, the images of all classes taken in turn (so that limits keep
/// them balanced); tfrecord: {train,validation}-*-of-* with labels 1..n, kept as they are for 1001 classes (0
/// is background) and otherwise lowered by 1; synthetic: images made from the seed 0 and the label (each
/// class one smooth pattern plus noise), no files. Throws DataError (missing, empty, truncated, checksum,
/// class count other than options.classes, label out of range), each naming file and cure.
std::unique_ptr<ImageDataset> open_image_dataset(const ImageDataOptions& options, Split split);

}  // namespace stoa
