#include "stoa/data/image/pipeline.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <set>

#include "stoa/base/errors.h"
#include "support/test_data.h"
#include "support/thrown.h"

namespace stoa {
namespace {

using Bytes = std::vector<std::uint8_t>;

/// Plain images whose colour is their number, which is their label too.
class Numbered final : public ImageDataset {
 public:
  explicit Numbered(std::int64_t size, std::int64_t side = 8) : size_(size), side_(side) {}
  std::int64_t size() const override { return size_; }
  LabeledImage get(std::int64_t i) const override {
    return {{side_, side_, 3, Bytes(side_ * side_ * 3, static_cast<std::uint8_t>(i))}, i};
  }
  std::vector<std::string> class_names() const override { return {}; }
  std::string name(std::int64_t i) const override { return std::to_string(i); }

 private:
  std::int64_t size_, side_;
};

ImageDataOptions options_for(std::int64_t classes) {
  ImageDataOptions options;
  options.format = ImageFormat::kSynthetic;
  options.image_size = 8;
  options.classes = classes;
  options.mean = {0};
  options.deviation = {1.0 / 255};  // values are the 8-bit samples
  return options;
}

std::vector<Batch> train(const ImageDataOptions& options, const BatchPlan& plan, int count,
                         std::int64_t size = 50) {
  const auto source = train_image_batches(std::make_shared<Numbered>(size), options, plan);
  std::vector<Batch> batches;
  for (int i = 0; i < count; ++i) batches.push_back(source->next());
  return batches;
}

void expect_same(const std::vector<Batch>& a, const std::vector<Batch>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i)
    for (const auto& [name, tensor] : a[i].tensors)
      EXPECT_TRUE(at::equal(tensor, b[i][name])) << name << " of batch " << i;
}

ImageDataOptions everything() {
  auto options = options_for(50);
  options.augment.crop = TrainCrop::kPadded;
  options.augment.flip = true;
  options.augment.randaugment_operations = 2;
  options.augment.erasing = 0.3;
  options.augment.mixup = 0.5;
  options.augment.cutmix = 1;
  return options;
}

TEST(TrainImageBatches, HaveImagesAndLabelsThatBelongTogether) {
  for (const Batch& batch : train(options_for(50), {.batch_size = 7}, 10)) {
    EXPECT_EQ(batch.samples, 7);
    EXPECT_EQ(batch["images"].sizes(), (at::IntArrayRef{7, 3, 8, 8}));
    EXPECT_EQ(batch["images"].scalar_type(), at::kFloat);
    EXPECT_EQ(batch["labels"].scalar_type(), at::kLong);
    EXPECT_TRUE(at::allclose(batch["images"],
                             batch["labels"].to(at::kFloat).reshape({7, 1, 1, 1}).expand({7, 3, 8, 8})));
    EXPECT_FALSE(batch.has("share"));
  }
}

TEST(TrainImageBatches, AreTheSameForAnyNumberOfWorkersWithAllAugmentation) {
  const auto alone = train(everything(), {.batch_size = 7, .seed = 3}, 12);
  for (int workers : {1, 3})
    expect_same(alone, train(everything(), {.batch_size = 7, .seed = 3, .workers = workers}, 12));
}

TEST(TrainImageBatches, ResumeExactly) {
  const auto whole = train(everything(), {.batch_size = 7, .seed = 3}, 20);  // epochs end within batches
  for (int first : {1, 7, 8, 15})
    expect_same({whole.begin() + first, whole.end()},
                train(everything(), {.batch_size = 7, .seed = 3, .first_step = first}, 20 - first));
}

TEST(TrainImageBatches, AugmentASampleDifferentlyInEachEpoch) {
  auto options = options_for(1);
  options.augment.crop = TrainCrop::kPadded;
  std::set<double> sums;
  const auto source = train_image_batches(std::make_shared<Numbered>(2), options, {.batch_size = 2});
  for (int i = 0; i < 20; ++i) {
    const Batch batch = source->next();
    sums.insert(batch["images"].sum().item<double>());
  }
  EXPECT_GT(sums.size(), 5u);
}

TEST(TrainImageBatches, MixupSharesImagesAsItSharesLabels) {
  auto options = options_for(50);
  options.augment.mixup = 0.5;
  double mean = 0;
  for (const Batch& batch : train(options, {.batch_size = 50}, 20)) {
    const auto share = batch["share"], own = batch["labels"].to(at::kFloat),
               other = batch["labels_mixed"].to(at::kFloat);
    EXPECT_EQ(share.scalar_type(), at::kFloat);
    const auto expected = share * own + (1 - share) * other;
    EXPECT_TRUE(
        at::allclose(batch["images"], expected.reshape({50, 1, 1, 1}).expand({50, 3, 8, 8}), 1e-4, 1e-3));
    EXPECT_GT(share.std().item<double>(), 0.2);  // one for each sample, Beta(0.5, 0.5): sd 0.354
    EXPECT_GE(share.min().item<double>(), 0);
    EXPECT_LE(share.max().item<double>(), 1);
    mean += share.mean().item<double>() / 20;
  }
  EXPECT_NEAR(mean, 0.5, 0.05);
}

TEST(TrainImageBatches, CutmixSharesImagesAsItSharesLabels) {
  auto options = options_for(50);
  options.augment.cutmix = 1;
  for (const Batch& batch : train(options, {.batch_size = 50}, 10)) {
    const auto own = batch["labels"].to(at::kFloat).reshape({50, 1, 1, 1}),
               other = batch["labels_mixed"].to(at::kFloat).reshape({50, 1, 1, 1});
    const auto images = batch["images"];
    EXPECT_TRUE(
        at::logical_or((images - own).abs() < 1e-3, (images - other).abs() < 1e-3).all().item<bool>());
    const auto kept = ((images - own).abs() < 1e-3).to(at::kFloat).mean({1, 2, 3});
    const auto mixes_another = batch["labels"] != batch["labels_mixed"];
    EXPECT_TRUE(at::allclose(kept.masked_select(mixes_another), batch["share"].masked_select(mixes_another),
                             1e-5, 1e-5));
  }
}

TEST(TrainImageBatches, WithMixupAndCutmixUseBoth) {
  auto options = options_for(50);
  options.augment.mixup = options.augment.cutmix = 1;
  int plain = 0, cut = 0;
  for (const Batch& batch : train(options, {.batch_size = 50}, 10))
    for (int i = 0; i < 50; ++i) {
      const auto image = batch["images"][i];
      (image.max() - image.min()).item<double>() < 1e-3 ? ++plain : ++cut;
    }
  EXPECT_GT(plain, 150);
  EXPECT_GT(cut, 150);
}

TEST(TrainImageBatches, MixEverySampleInOnceAnEpoch) {
  auto options = options_for(50);
  options.augment.mixup = 0.2;
  const auto epochs = train(options, {.batch_size = 50}, 2);
  for (const Batch& batch : epochs) {
    EXPECT_TRUE(at::equal(std::get<0>(batch["labels_mixed"].sort()), at::arange(50)));
    EXPECT_FALSE(at::equal(batch["labels"], batch["labels_mixed"]));
  }
  const auto pairs = [](const Batch& b) {
    return std::get<0>((b["labels"] * 50 + b["labels_mixed"]).sort());
  };
  EXPECT_FALSE(at::equal(pairs(epochs[0]), pairs(epochs[1])));
}

TEST(TestImageBatches, PassAllInOrderUnchanged) {
  for (int workers : {0, 2}) {
    const auto source = test_image_batches(std::make_shared<Numbered>(10), everything(),
                                           {.batch_size = 4, .workers = workers});
    std::int64_t next = 0;
    for (Batch batch = source->next(); batch.samples > 0; batch = source->next())
      for (int i = 0; i < batch.samples; ++i, ++next) {
        EXPECT_EQ(batch["index"][i].item<std::int64_t>(), next);
        EXPECT_EQ(batch["labels"][i].item<std::int64_t>(), next);
        EXPECT_NEAR(batch["images"][i].mean().item<double>(), static_cast<double>(next), 1e-3);
        EXPECT_FALSE(batch.has("share"));
      }
    EXPECT_EQ(next, 10);
  }
}

TEST(ImageToTensor, NormalisesEachChannel) {
  auto options = options_for(1);
  options.image_size = 1;
  options.mean = {0, 0.5, 1};
  options.deviation = {1, 0.5, 0.25};
  const auto tensor = image_to_tensor({1, 1, 3, {255, 0, 51}}, options);
  EXPECT_TRUE(at::allclose(tensor.flatten(), at::tensor({1.0f, -1.0f, -3.2f})));
}

TEST(ImageToTensor, PutsChannelsFirst) {
  auto options = options_for(1);
  options.image_size = 2;
  Image image{2, 2, 3, Bytes(12)};
  for (int i = 0; i < 12; ++i) image.pixels[i] = static_cast<std::uint8_t>(i);
  EXPECT_TRUE(at::allclose(image_to_tensor(image, options),
                           at::arange(12, at::kFloat).reshape({2, 2, 3}).permute({2, 0, 1})));
}

TEST(ImageToTensor, StretchesOrCutsTheCentre) {
  auto options = options_for(1);
  options.channels = 1;
  options.image_size = 1;
  const Image wide{1, 3, 1, {0, 90, 0}};
  options.resize = Resize::kCenterCrop;
  EXPECT_FLOAT_EQ(image_to_tensor(wide, options).item<float>(), 90);
  options.resize = Resize::kStretch;  // distances 1, 0, 1 of reach 3: weights 2/3, 1, 2/3
  EXPECT_NEAR(image_to_tensor(wide, options).item<float>(), 90 / (7.0 / 3), 0.6);
}

TEST(ImageToTensor, ConvertsChannels) {
  auto options = options_for(1);
  options.image_size = 1;
  EXPECT_TRUE(at::allclose(image_to_tensor({1, 1, 1, {9}}, options).flatten(), at::full({3}, 9.0f)));
  options.channels = 1;
  EXPECT_FLOAT_EQ(image_to_tensor({1, 1, 3, {255, 0, 0}}, options).item<float>(), 76);
}

TEST(TensorToImage, IsTheReverse) {
  ImageDataOptions options;
  options.image_size = 16;
  options.mean = {0.485, 0.456, 0.406};
  options.deviation = {0.229, 0.224, 0.225};
  Image image{16, 16, 3, Bytes(768)};
  for (int i = 0; i < 768; ++i) image.pixels[i] = static_cast<std::uint8_t>(i);
  EXPECT_EQ(tensor_to_image(image_to_tensor(image, options), options).pixels, image.pixels);
  STOA_EXPECT_CONTAINS(test::thrown<ShapeError>([&] {
                         tensor_to_image(at::zeros({1, 4, 4}), options);
                       }),
                       "[3, height, width]");
}

TEST(ImageBatches, OfFashionMnistHaveItsMean) {
  STOA_NEEDS_TEST_DATA("fashion-mnist");
  ImageDataOptions options;
  options.format = ImageFormat::kIdx;
  options.path = test::test_data("fashion-mnist").string();
  options.image_size = 28;
  options.channels = 1;
  options.classes = 10;
  options.mean = {0};
  options.deviation = {1};
  const std::shared_ptr<const ImageDataset> data = open_image_dataset(options, Split::kTest);
  const Batch all = test_image_batches(data, options, {.batch_size = 10'000})->next();
  EXPECT_NEAR(all["images"].mean().item<double>(), 0.2868, 5e-4);
  EXPECT_NEAR(all["images"].std().item<double>(), 0.3524, 5e-4);
  // the way without a copy gives what the other gives
  EXPECT_TRUE(at::equal(all["images"][17], image_to_tensor(data->get(17).image, options)));
}

}  // namespace
}  // namespace stoa
