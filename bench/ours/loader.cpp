// Training batches from a folder of JPEG files, decoded, resized (antialiased), flipped at random,
// normalised; optionally cropped at random. A repetition starts the loader and reads `images` images.
//   {"path": "FOLDER", "classes": 8, "batch": 64, "images": 256, "crop": false}
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "bench/support/worker.h"
#include "stoa/data/image/pipeline.h"

namespace {

using namespace stoa;

constexpr std::int64_t kReferenceImages = 16;

class Loading final : public bench::Work {
 public:
  explicit Loading(const Json& spec)
      : batch_(bench::integer(spec, "batch")), images_(bench::integer(spec, "images")) {
    options_.path = spec.at("path").get<std::string>();
    options_.classes = bench::integer(spec, "classes");
    options_.augment.flip = true;
    if (spec.value("crop", false)) options_.augment.crop = TrainCrop::kDistorted;
    dataset_ = open_image_dataset(options_, Split::kTrain);
  }

  void run() override {
    const auto batches = train_image_batches(dataset_, options_, plan(batch_));
    for (std::int64_t read = 0; read < images_; read += batch_) batches->next();
  }

  Json describe() override { return {{"amount", static_cast<double>(images_) / at::get_num_threads()}}; }

  TensorFile reference() override {
    return {{{"images", test_image_batches(dataset_, options_, plan(kReferenceImages))->next()["images"]}},
            {}};
  }

 private:
  static BatchPlan plan(std::int64_t batch) {
    return {batch, /*seed=*/1, /*first_step=*/0, at::get_num_threads()};
  }

  std::int64_t batch_, images_;
  ImageDataOptions options_;
  std::shared_ptr<const ImageDataset> dataset_;
};

}  // namespace

int main(int argc, char** argv) {
  return bench::serve(argc, argv, [](const Json& spec) { return std::make_unique<Loading>(spec); });
}
