// Finite differences in double through every network, penalty included, to all weights and all rows.
#include <gtest/gtest.h>

#include "support/numeric_gradient.h"
#include "systems/cow_clip/problem.h"

namespace stoa::cow_clip {
namespace {

class CowClipGradient : public testing::TestWithParam<Network> {};

TEST_P(CowClipGradient, EqualsDifferences) {
  const auto model = make(tiny(GetParam()));
  const Rows batch(5);
  const auto labels = at::tensor({1, 0, 0, 1, 1}, at::kDouble);
  const auto loss = [&] {
    return at::binary_cross_entropy_with_logits(model->score(batch.rows, batch.numerics), labels) +
           model->penalty(0.1);
  };
  std::vector<at::Tensor> inputs = {batch.rows.embeddings, batch.rows.linear};
  for (const auto& parameter : nn::distinct_parameters(*model)) inputs.push_back(parameter.tensor);
  EXPECT_LT(test::gradient_error(loss, inputs), 1e-8);
}

INSTANTIATE_TEST_SUITE_P(Networks, CowClipGradient, testing::ValuesIn(kNetworks));

}  // namespace
}  // namespace stoa::cow_clip
