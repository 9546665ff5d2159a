#include "stoa/dist/gradient_buckets.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "stoa/dist/environment.h"
#include "stoa/dist/world.h"
#include "stoa/nn/recompute.h"
#include "support/processes.h"

namespace stoa::dist {
namespace {

std::vector<nn::NamedParameter> parameters(std::initializer_list<std::vector<std::int64_t>> shapes) {
  std::vector<nn::NamedParameter> made;
  for (const auto& shape : shapes)
    made.push_back({std::to_string(made.size()), at::full(shape, 2.0, at::kDouble).requires_grad_()});
  return made;
}

void clear(std::vector<nn::NamedParameter>& parameters) {
  for (auto& parameter : parameters) parameter.tensor.mutable_grad().reset();
}

/// The sum over i of (rank + 1) (i + 1) p_i, so that the gradient of p_i is (rank + 1) (i + 1).
at::Tensor loss_of(const std::vector<nn::NamedParameter>& parameters, int rank) {
  auto loss = at::zeros({}, at::kDouble);
  for (std::size_t i = 0; i < parameters.size(); ++i)
    loss = loss + parameters[i].tensor.sum() * static_cast<double>(rank + 1) * static_cast<double>(i + 1);
  return loss;
}

double total(int world) {
  return world * (world + 1) / 2.0;
}

STOA_PROCESS_TEST(GradientBuckets, SumWhileTheBackwardPassGoesOn, 1, 2, 3) {
  const auto world = World::join(read_place());
  auto all = parameters({{3}, {}, {4, 5}, {7}});
  GradientBuckets buckets(all, world->all(), 8 * sizeof(double));
  for (int step = 0; step < 3; ++step) {
    clear(all);
    buckets.arm();
    loss_of(all, world->rank()).backward();
    buckets.finish();
    for (std::size_t i = 0; i < all.size(); ++i)
      EXPECT_TRUE(at::equal(all[i].tensor.grad(),
                            at::full_like(all[i].tensor, total(world->size()) * static_cast<double>(i + 1))))
          << "step " << step << ", parameter " << i;
    EXPECT_EQ(buckets.overlapped() > 0, step > 0 && world->size() > 1);
  }
}

STOA_PROCESS_TEST(GradientBuckets, AddWhatEarlierMicroBatchesLeft, 2) {
  const auto world = World::join(read_place());
  auto all = parameters({{3}, {2}});
  GradientBuckets buckets(all, world->all(), 8);
  for (int step = 0; step < 3; ++step) {
    clear(all);
    loss_of(all, world->rank()).backward();
    buckets.arm();
    loss_of(all, world->rank()).backward();
    buckets.finish();
    EXPECT_TRUE(at::equal(all[1].tensor.grad(), at::full({2}, 12.0, at::kDouble)));
  }
}

STOA_PROCESS_TEST(GradientBuckets, WaitForLayersThatShareAModuleOrRunAgain, 2) {
  const auto world = World::join(read_place());
  auto all = parameters({{2}, {2}});
  GradientBuckets buckets(all, world->all(), 8);
  const auto layer = [&](const std::vector<at::Tensor>& x) { return std::vector{x[0] * all[0].tensor}; };
  for (int step = 0; step < 3; ++step) {
    clear(all);
    buckets.arm();
    // y = p0^3 p1, its gradients 3 p0^2 p1 = 24 and p0^3 = 8
    auto x = all[1].tensor;
    for (int i = 0; i < 3; ++i) x = nn::recompute(layer, {x})[0];
    x.sum().backward();
    buckets.finish();
    EXPECT_TRUE(at::equal(all[0].tensor.grad(), at::full({2}, 48.0, at::kDouble))) << all[0].tensor.grad();
    EXPECT_TRUE(at::equal(all[1].tensor.grad(), at::full({2}, 16.0, at::kDouble)));
  }
}

STOA_PROCESS_TEST(GradientBuckets, CountAMissingGradientAsZero, 3) {
  const auto world = World::join(read_place());
  auto all = parameters({{3}, {2}, {4}});
  GradientBuckets buckets(all, world->all(), 8);
  for (int step = 0; step < 3; ++step) {
    clear(all);
    if (world->rank() != 1) {  // which has nothing to learn from
      buckets.arm();
      (all[0].tensor.sum() + all[2].tensor.sum()).backward();
    }
    buckets.finish();
    EXPECT_TRUE(at::equal(all[0].tensor.grad(), at::full({3}, 2.0, at::kDouble)));
    EXPECT_TRUE(at::equal(all[1].tensor.grad(), at::zeros({2}, at::kDouble)));
    EXPECT_TRUE(at::equal(all[2].tensor.grad(), at::full({4}, 2.0, at::kDouble)));
  }
}

STOA_PROCESS_TEST(GradientBuckets, KeepDifferentTypesApart, 2) {
  const auto world = World::join(read_place());
  auto all = parameters({{3}, {2}});
  all.push_back({"float", at::ones({5}).requires_grad_()});
  GradientBuckets buckets(all, world->all());
  for (int step = 0; step < 2; ++step) {
    clear(all);
    buckets.arm();
    (all[0].tensor.sum() + all[1].tensor.sum() + all[2].tensor.sum().to(at::kDouble)).backward();
    buckets.finish();
    EXPECT_TRUE(at::equal(all[2].tensor.grad(), at::full({5}, 2.0F)));
    EXPECT_TRUE(at::equal(all[0].tensor.grad(), at::full({3}, 2.0, at::kDouble)));
  }
}

}  // namespace
}  // namespace stoa::dist
