#include "stoa/ops/dropout.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include "stoa/base/errors.h"
#include "stoa/ops/attention.h"
#include "support/thrown.h"

namespace stoa::ops {
namespace {

/// Samples `begin` to `end` - 1 through `call`, as a part of the batch.
template <class Call>
at::Tensor of_part(const at::Tensor& x, std::int64_t begin, std::int64_t end, const Call& call) {
  const BatchPartScope part({begin, 17});
  return call(x.slice(0, begin, end));
}

TEST(Dropout, KeepsTheShareAndDividesByIt) {
  at::manual_seed(1);
  const auto y = dropout(at::ones({500, 400}), 0.3);
  const double zeros = y.eq(0).to(at::kDouble).mean().item<double>();
  EXPECT_NEAR(zeros, 0.3, 0.005);
  EXPECT_TRUE(at::allclose(y.masked_select(y.ne(0)), at::full({1}, 1 / 0.7F)));
}

TEST(Dropout, IsTheIdentityAtRateZeroAndDrawsNothing) {
  at::manual_seed(1);
  const auto next = at::rand({1});
  at::manual_seed(1);
  const auto x = at::ones({3, 4});
  EXPECT_TRUE(dropout(x, 0).is_same(x));
  EXPECT_TRUE(at::equal(at::rand({1}), next));
}

TEST(Dropout, DropsOthersInEachCallAndTheSameFromTheSameSeed) {
  const auto x = at::ones({50, 40});
  at::manual_seed(2);
  const auto first = dropout(x, 0.5), second = dropout(x, 0.5);
  at::manual_seed(2);
  EXPECT_TRUE(at::equal(dropout(x, 0.5), first));
  EXPECT_FALSE(at::equal(first, second));
}

TEST(Dropout, DropsTheSameHoweverABatchIsCut) {
  const auto x = at::rand({7, 3, 40});
  const auto twice = [](const at::Tensor& part) { return dropout(dropout(part, 0.3), 0.2); };
  const auto whole = of_part(x, 0, 7, twice);
  EXPECT_TRUE(
      at::equal(at::cat({of_part(x, 0, 2, twice), of_part(x, 2, 3, twice), of_part(x, 3, 7, twice)}), whole));
}

TEST(Dropout, OfAttentionIsTheSameHoweverABatchIsCut) {
  const auto qkv = at::randn({5, 6, 3 * 32});
  const auto mixed = [](const at::Tensor& part) { return attention(part, 4, 0.4); };
  const auto whole = of_part(qkv, 0, 5, mixed);
  EXPECT_TRUE(at::equal(at::cat({of_part(qkv, 0, 1, mixed), of_part(qkv, 1, 5, mixed)}), whole));
}

TEST(Dropout, DropsTheSameHoweverColumnsAndHeadsAreCut) {
  const auto x = at::rand({7, 40}), qkv = at::randn({5, 6, 3, 4, 8});
  const auto columns = [&](std::int64_t begin, std::int64_t count) {
    const BatchPartScope part({2, 17});
    return dropout(x.narrow(1, begin, count), 0.3, {}, begin);
  };
  EXPECT_TRUE(at::equal(at::cat({columns(0, 13), columns(13, 27)}, 1), columns(0, 40)));
  const auto heads = [&](std::int64_t begin, std::int64_t count) {
    const BatchPartScope part({2, 17});
    return attention(qkv.narrow(3, begin, count).flatten(2).contiguous(), count, 0.4, begin);
  };
  EXPECT_TRUE(at::allclose(at::cat({heads(0, 1), heads(1, 3)}, 2), heads(0, 4), 1e-5, 1e-6));
}

TEST(Dropout, FollowsTheKeysOfRows) {
  const auto x = at::ones({6, 40}), keys = at::tensor({9, 4, 7, 0, 5, 1}, at::kLong);
  const auto order = at::tensor({3, 1, 5, 0, 2, 4}, at::kLong);
  at::manual_seed(3);
  const auto y = dropout(x, 0.5, keys);
  at::manual_seed(3);
  EXPECT_TRUE(at::equal(dropout(x, 0.5, keys.index_select(0, order)), y.index_select(0, order)));
  EXPECT_FALSE(at::equal(y[0], y[1]));
}

TEST(Dropout, GivesGradientsOnlyToWhatStays) {
  const auto x = at::rand({20, 30}).requires_grad_();
  const auto y = dropout(x, 0.4);
  y.backward(at::ones_like(y));
  EXPECT_TRUE(at::equal(x.grad(), y.detach().ne(0).to(at::kFloat) / 0.6F));
}

TEST(Dropout, IsItsReferenceInEveryType) {
  const auto seeds = row_seeds(5, at::arange(12));
  const auto x = at::rand({3, 4, 10}, at::kDouble);
  at::Tensor y;
  {
    const BatchPartScope part({0, 8});
    y = dropout(x, 0.25);
  }
  const BatchPartScope part({0, 8});
  const auto reference = dropout_reference(x, 0.25, row_seeds(dropout_seed(0.25), at::arange(12)));
  EXPECT_TRUE(at::equal(y, reference));
  EXPECT_TRUE(at::equal(dropout_reference(at::ones({12, 10}), 0.25, seeds).eq(0),
                        dropout_reference(at::ones({12, 10}, at::kDouble), 0.25, seeds).eq(0)));
}

TEST(Dropout, DoesNotDependOnTheNumberOfThreads) {
  const auto x = at::rand({300, 500});
  const int threads = at::get_num_threads();
  at::manual_seed(4);
  const auto y = dropout(x, 0.3);
  at::set_num_threads(threads == 1 ? 3 : 1);
  at::manual_seed(4);
  EXPECT_TRUE(at::equal(dropout(x, 0.3), y));
  at::set_num_threads(threads);
}

TEST(Dropout, RefusesARateOfOne) {
  EXPECT_EQ(test::thrown<ShapeError>([] {
              dropout(at::ones({2, 2}), 1);
            }),
            "dropout: the rate is 1, it must be at least 0 and below 1");
}

}  // namespace
}  // namespace stoa::ops
