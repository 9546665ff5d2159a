#include "stoa/base/format.h"
#include "stoa/data/image/readers.h"

namespace stoa {
namespace {

class StoredImagesDataset final : public ImageDataset {
 public:
  explicit StoredImagesDataset(StoredImages images) : images_(std::move(images)) {
    stride_ = images_.height * images_.width * images_.channels;
  }

  std::int64_t size() const override { return static_cast<std::int64_t>(images_.labels.size()); }

  std::optional<LabeledView> view(std::int64_t index) const override {
    return LabeledView{images_.height, images_.width, images_.channels,
                       images_.bytes.data() + images_.start + index * stride_, images_.labels.at(index)};
  }

  LabeledImage get(std::int64_t index) const override {
    const LabeledView seen = *view(index);
    return {{seen.height, seen.width, seen.channels, {seen.pixels, seen.pixels + stride_}}, seen.label};
  }

  std::vector<std::string> class_names() const override { return images_.classes; }
  std::string name(std::int64_t index) const override { return images_.name(index); }

 private:
  StoredImages images_;
  std::int64_t stride_;
};

}  // namespace

void check_label(std::int64_t label, std::int64_t classes, const std::string& where) {
  if (label < 0 || label >= classes)
    throw LabelError(
        format("{}: label {}, but data.classes = {} allows 0 to {}; correct the label or set data.classes",
               where, label, classes, classes - 1));
}

void check_class_count(std::int64_t found, std::int64_t classes, const std::string& where) {
  if (found != classes)
    throw DataError(
        format("{}: {} classes, but data.classes = {}; set data.classes = {} or name another folder", where,
               found, classes, found));
}

std::unique_ptr<ImageDataset> stored_images(StoredImages images) {
  return std::make_unique<StoredImagesDataset>(std::move(images));
}

}  // namespace stoa
