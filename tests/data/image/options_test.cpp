#include "stoa/data/image/options.h"

#include <gtest/gtest.h>

#include <limits>

#include "stoa/base/errors.h"
#include "support/thrown.h"

namespace stoa {
namespace {

ImageDataOptions read(const std::string& text) {
  ImageDataOptions options;
  read_options(Config::from_text(text, "recipe.toml"), options);
  options.validate();
  return options;
}

std::string refusal(const std::string& text) {
  return test::thrown<ConfigError>([&] { read("path = \"x\"\n" + text); });
}

TEST(ImageDataOptions, ReadFromARecipe) {
  const auto options = read(R"(
    format = "idx"
    path = "fashion-mnist"
    image_size = 28
    channels = 1
    classes = 10
    mean = [0.286]
    resize = "center_crop"
    corrupt = "skip"
    [augment]
    crop = "padded"
    flip = true
    mixup = 0.2
  )");
  EXPECT_EQ(options.format, ImageFormat::kIdx);
  EXPECT_EQ(options.image_size, 28);
  EXPECT_EQ(options.resize, Resize::kCenterCrop);
  EXPECT_EQ(options.corrupt, CorruptImages::kSkip);
  EXPECT_EQ(options.augment.crop, TrainCrop::kPadded);
  EXPECT_TRUE(options.augment.flip);
  EXPECT_EQ(options.augment.mixup, 0.2);
}

TEST(ImageDataOptions, WrittenAndReadAgainAreTheSame) {
  auto options = read("path = \"x\"\nmean = [0.1, 0.2, 0.3]\naugment.randaugment_operations = 2");
  const Json written = write_options(options);
  ImageDataOptions again;
  read_options(Config::from_json(written, "resolved"), again);
  EXPECT_EQ(write_options(again), written);
}

TEST(ImageDataOptions, NameTheFieldThatIsWrong) {
  STOA_EXPECT_CONTAINS(test::thrown<ConfigError>([] { read(""); }), "data.path");
  STOA_EXPECT_CONTAINS(refusal("image_size = 0"), "`data.image_size` is 0; it must be within 1 to 16384");
  STOA_EXPECT_CONTAINS(refusal("channels = 2"), "`data.channels` is 2; it must be 1 (gray) or 3 (RGB)");
  STOA_EXPECT_CONTAINS(refusal("classes = 0"), "`data.classes` is 0");
  STOA_EXPECT_CONTAINS(refusal("train_limit = -1"), "`data.train_limit` is -1");
  STOA_EXPECT_CONTAINS(refusal("test_limit = -1"), "`data.test_limit` is -1");
  STOA_EXPECT_CONTAINS(refusal("mean = [0.5, 0.5]"),
                       "`data.mean` is [0.5, 0.5]; it must be one value, or one per channel");
  STOA_EXPECT_CONTAINS(refusal("deviation = [0.0]"), "`data.deviation` is [0]; it must be positive");
}

TEST(AugmentOptions, NameTheFieldThatIsWrong) {
  STOA_EXPECT_CONTAINS(refusal("augment.crop_area = [0.5, 0.2]"), "`data.augment.crop_area` is [0.5, 0.2]");
  STOA_EXPECT_CONTAINS(refusal("augment.crop_area = [0.5]"), "`data.augment.crop_area` is [0.5]");
  STOA_EXPECT_CONTAINS(refusal("augment.crop_aspect = [0.0, 1.0]"), "data.augment.crop_aspect");
  STOA_EXPECT_CONTAINS(refusal("augment.crop_padding = -1"), "`data.augment.crop_padding` is -1");
  STOA_EXPECT_CONTAINS(refusal("augment.randaugment_operations = -2"),
                       "`data.augment.randaugment_operations` is -2");
  STOA_EXPECT_CONTAINS(refusal("augment.randaugment_magnitude = 31"),
                       "`data.augment.randaugment_magnitude` is 31");
  STOA_EXPECT_CONTAINS(refusal("augment.erasing = 1.5"), "`data.augment.erasing` is 1.5");
  STOA_EXPECT_CONTAINS(refusal("augment.mixup = -0.1"), "`data.augment.mixup` is -0.1");
  STOA_EXPECT_CONTAINS(refusal("augment.cutmix = nan"), "`data.augment.cutmix` is nan");
}

TEST(ImageDataOptions, SyntheticImagesNeedNoPath) {
  EXPECT_EQ(read("format = \"synthetic\"").format, ImageFormat::kSynthetic);
}

}  // namespace
}  // namespace stoa
