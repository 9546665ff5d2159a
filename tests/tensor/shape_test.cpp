#include "stoa/tensor/shape.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "stoa/base/errors.h"
#include "support/thrown.h"

namespace stoa {
namespace {

TEST(Shape, AcceptsTheShapeAndAnySizeForMinusOne) {
  const auto x = at::zeros({2, 3});
  EXPECT_NO_THROW(check_shape(x, {2, 3}, "x"));
  EXPECT_NO_THROW(check_shape(x, {-1, 3}, "x"));
  EXPECT_NO_THROW(check_shape(at::zeros({}), {}, "x"));
}

TEST(Shape, RefusalNamesWhatWasFoundAndWhatIsNeeded) {
  const auto message = test::thrown<ShapeError>([] { check_shape(at::zeros({2, 3}), {-1, 4}, "tokens"); });
  EXPECT_EQ(message, "tokens has shape [2, 3]; [*, 4] is needed");
}

TEST(Shape, RefusesAnotherNumberOfDimensions) {
  EXPECT_THROW(check_shape(at::zeros({2, 3}), {2, 3, 1}, "x"), ShapeError);
  EXPECT_THROW(check_shape(at::zeros({2, 3}), {2}, "x"), ShapeError);
}

TEST(Shape, RefusesAnUndefinedTensor) {
  EXPECT_THROW(check_shape(at::Tensor(), {}, "x"), ShapeError);
}

TEST(Shape, TextListsTheSizes) {
  EXPECT_EQ(shape_text({2, 3, 4}), "[2, 3, 4]");
  EXPECT_EQ(shape_text({}), "[]");
}

}  // namespace
}  // namespace stoa
