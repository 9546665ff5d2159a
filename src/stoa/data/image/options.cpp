#include "stoa/data/image/options.h"

#include <cmath>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"

namespace stoa {
namespace {

void require(bool holds, const char* field, const std::string& found, const char* needed) {
  if (!holds) throw ConfigError(format("`data.{}` is {}; {}", field, found, needed));
}

void require(bool holds, const char* field, double found, const char* needed) {
  require(holds, field, format("{}", found), needed);
}

std::string list(const std::vector<double>& values) {
  std::string text = "[";
  for (const double value : values) text += format("{}{}", text.size() > 1 ? ", " : "", value);
  return text + "]";
}

}  // namespace

void AugmentOptions::visit(FieldVisitor& v) {
  v.choice("crop", crop,
           {{"none", TrainCrop::kNone}, {"distorted", TrainCrop::kDistorted}, {"padded", TrainCrop::kPadded}},
           "random crop: a box of random area and aspect, or the image shifted within a border of zeros");
  v.field("crop_area", crop_area, "smallest and largest share of the image's area, for crop = \"distorted\"");
  v.field("crop_aspect", crop_aspect, "smallest and largest width / height, for crop = \"distorted\"");
  v.field("crop_padding", crop_padding, "border in pixels, for crop = \"padded\"");
  v.field("flip", flip, "mirror left-right with probability 1/2");
  v.field("randaugment_operations", randaugment_operations, "RandAugment operations an image; 0 is off");
  v.field("randaugment_magnitude", randaugment_magnitude,
          "strength of RandAugment, 10 is the nominal full range");
  v.field("erasing", erasing, "probability of one erased box an image");
  v.field("mixup", mixup, "Beta(a, a) parameter of mixup; 0 is off");
  v.field("cutmix", cutmix,
          "Beta(a, a) parameter of cutmix; 0 is off; with mixup too, a coin decides for each image");
}

void AugmentOptions::validate() const {
  require(crop_area.size() == 2 && crop_area[0] > 0 && crop_area[0] <= crop_area[1] && crop_area[1] <= 1,
          "augment.crop_area", list(crop_area), "it must be two shares, 0 < smallest <= largest <= 1");
  require(crop_aspect.size() == 2 && crop_aspect[0] > 0 && crop_aspect[0] <= crop_aspect[1] &&
              std::isfinite(crop_aspect[1]),
          "augment.crop_aspect", list(crop_aspect), "it must be two ratios, 0 < smallest <= largest");
  require(crop_padding >= 0 && crop_padding <= 4096, "augment.crop_padding",
          static_cast<double>(crop_padding), "it must be within 0 to 4096 pixels");
  require(randaugment_operations >= 0 && randaugment_operations <= 100, "augment.randaugment_operations",
          static_cast<double>(randaugment_operations), "it must be within 0 to 100");
  require(randaugment_magnitude >= 0 && randaugment_magnitude <= 30, "augment.randaugment_magnitude",
          randaugment_magnitude, "it must be within 0 to 30");
  require(erasing >= 0 && erasing <= 1, "augment.erasing", erasing, "it must be a probability, 0 to 1");
  require(mixup >= 0 && std::isfinite(mixup), "augment.mixup", mixup,
          "it must be 0 (off) or a positive number");
  require(cutmix >= 0 && std::isfinite(cutmix), "augment.cutmix", cutmix,
          "it must be 0 (off) or a positive number");
}

void ImageDataOptions::visit(FieldVisitor& v) {
  v.choice("format", format,
           {{"idx", ImageFormat::kIdx},
            {"cifar10", ImageFormat::kCifar10},
            {"cifar100", ImageFormat::kCifar100},
            {"folder", ImageFormat::kFolder},
            {"tfrecord", ImageFormat::kTfRecord},
            {"synthetic", ImageFormat::kSynthetic}},
           "how the images are stored; see docs/formats.md");
  v.field("path", path, "folder of the data; a relative one is also looked for below $STOA_DATA");
  v.field("image_size", image_size, "height and width the model sees, in pixels");
  v.field("channels", channels, "1 (gray) or 3 (RGB); images are converted");
  v.field("classes", classes, "number of classes");
  v.field("train_limit", train_limit, "use only the first n training images; 0 uses all");
  v.field("test_limit", test_limit, "use only the first n test images; 0 uses all");
  v.field("mean", mean, "subtracted from pixel / 255; one value or one per channel");
  v.field("deviation", deviation, "divided by after that; one value or one per channel");
  v.choice("resize", resize, {{"stretch", Resize::kStretch}, {"center_crop", Resize::kCenterCrop}},
           "how images become square: stretched, or cut to their central square");
  v.choice("corrupt", corrupt, {{"refuse", CorruptImages::kRefuse}, {"skip", CorruptImages::kSkip}},
           "a damaged image ends the run, or is named and left out when the data is opened (which decodes "
           "every image)");
  v.field("in_memory", in_memory, "decode and resize all images once and keep them");
  v.group("augment", augment, "random changes to training images");
}

void ImageDataOptions::validate() const {
  const auto number = [](std::int64_t value) { return static_cast<double>(value); };
  require(!path.empty() || format == ImageFormat::kSynthetic, "path", "\"\"", "name the folder of the data");
  require(image_size >= 1 && image_size <= 16384, "image_size", number(image_size),
          "it must be within 1 to 16384");
  require(channels == 1 || channels == 3, "channels", number(channels), "it must be 1 (gray) or 3 (RGB)");
  require(classes >= 1, "classes", number(classes), "it must be at least 1");
  require(train_limit >= 0, "train_limit", number(train_limit), "it must be 0 (all) or more");
  require(test_limit >= 0, "test_limit", number(test_limit), "it must be 0 (all) or more");
  const auto fits = [&](const std::vector<double>& values) {
    return values.size() == 1 || static_cast<std::int64_t>(values.size()) == channels;
  };
  require(fits(mean), "mean", list(mean), "it must be one value, or one per channel");
  require(fits(deviation), "deviation", list(deviation), "it must be one value, or one per channel");
  for (const double value : mean) require(std::isfinite(value), "mean", list(mean), "it must be finite");
  for (const double value : deviation)
    require(value > 0 && std::isfinite(value), "deviation", list(deviation), "it must be positive");
  augment.validate();
}

}  // namespace stoa
