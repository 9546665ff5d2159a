#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "stoa/base/options.h"

namespace stoa {

enum class ImageFormat { kIdx, kCifar10, kCifar100, kFolder, kTfRecord, kSynthetic };
enum class CorruptImages { kRefuse, kSkip };
enum class Resize { kStretch, kCenterCrop };
enum class TrainCrop { kNone, kDistorted, kPadded };

/// Random changes to training images (widenet.md 3, "Input pipeline"). All off by default.
struct AugmentOptions {
  TrainCrop crop = TrainCrop::kNone;
  std::vector<double> crop_area = {0.05, 1.0};          ///< share of the image's area, for `distorted`
  std::vector<double> crop_aspect = {0.75, 4.0 / 3.0};  ///< width / height, for `distorted`
  std::int64_t crop_padding = 4;                        ///< pixels of zeros around the image, for `padded`
  bool flip = false;                                    ///< left-right, with probability 1/2
  std::int64_t randaugment_operations = 0;              ///< 0 is off
  double randaugment_magnitude = 10;                    ///< of 10; the published run uses 15
  double erasing = 0;                                   ///< probability of one erased box (random erasing)
  double mixup = 0;                                     ///< Beta(a, a) parameter; 0 is off
  double cutmix = 0;                                    ///< Beta(a, a) parameter; 0 is off

  void visit(FieldVisitor& v);
  void validate() const;  ///< throws ConfigError naming the field
};

/// Where images come from and what is done to them before a model sees them.
struct ImageDataOptions {
  ImageFormat format = ImageFormat::kFolder;
  std::string path;               ///< a folder; relative ones are also looked for below $STOA_DATA
  std::int64_t image_size = 224;  ///< height and width the model sees
  std::int64_t channels = 3;      ///< 1 or 3
  std::int64_t classes = 1000;
  std::int64_t train_limit = 0;  ///< use only the first n training images; 0 uses all
  std::int64_t test_limit = 0;
  std::vector<double> mean = {0.5};       ///< subtracted from pixel / 255; one value or one per channel
  std::vector<double> deviation = {0.5};  ///< divided by
  Resize resize = Resize::kStretch;       ///< evaluation, and training before augmentation
  CorruptImages corrupt = CorruptImages::kRefuse;
  bool in_memory = false;  ///< decode and resize once, keep (folder and tfrecord formats)
  AugmentOptions augment;

  void visit(FieldVisitor& v);
  void validate() const;  ///< throws ConfigError naming the field
};

}  // namespace stoa
