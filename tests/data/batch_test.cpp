#include "stoa/data/batch.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "stoa/base/errors.h"
#include "support/thrown.h"

namespace stoa {
namespace {

Batch make() {
  return {{{"images", at::arange(12).reshape({4, 3})}, {"labels", at::arange(4)}}, 4};
}

TEST(Batch, FindsTensorsByName) {
  const Batch batch = make();
  EXPECT_EQ(batch["images"].size(1), 3);
  EXPECT_TRUE(batch.has("labels"));
  EXPECT_FALSE(batch.has("share"));
}

TEST(Batch, NamesWhatItHasWhenATensorIsMissing) {
  const auto message = test::thrown<Error>([] { make()["share"]; });
  STOA_EXPECT_CONTAINS(message, "`share`");
  STOA_EXPECT_CONTAINS(message, "images, labels");
}

TEST(Batch, SlicesAreViewsOfTheSameSamples) {
  Batch batch = make();
  const Batch part = batch.slice(1, 3);
  EXPECT_EQ(part.samples, 2);
  EXPECT_TRUE(at::equal(part["labels"], at::tensor({1, 2}, at::kLong)));
  batch.tensors["images"].fill_(7);
  EXPECT_EQ(part["images"].sum().item<std::int64_t>(), 7 * 6);
}

TEST(Batch, RefusesASliceThatIsNotWithin) {
  STOA_EXPECT_CONTAINS(test::thrown<Error>([] { make().slice(2, 5); }), "samples 2 to 5 of a batch of 4");
}

TEST(Batch, MovesAllTensors) {
  const Batch moved = make().to(at::kCPU);
  EXPECT_EQ(moved.samples, 4);
  EXPECT_TRUE(at::equal(moved["images"], make()["images"]));
}

}  // namespace
}  // namespace stoa
