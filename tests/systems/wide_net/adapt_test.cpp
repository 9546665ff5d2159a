#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include "stoa/base/errors.h"
#include "stoa/systems/wide_net/model.h"
#include "support/thrown.h"

namespace stoa::wide_net {
namespace {

const ImageClassifierInput kInput{1, 8, 5};

WideNetOptions vit(std::int64_t depth = 4) {
  WideNetOptions o;
  o.patch = 4;
  o.dim = 12;
  o.depth = depth;
  o.heads = 2;
  o.mlp_dim = 16;
  o.mixture_layers = 0;
  o.share_attention = o.share_mlp = false;
  return o;
}

WideNetOptions shared(WideNetOptions o) {
  o.share_attention = o.share_mlp = true;
  return o;
}

WideNetOptions with_mixtures(WideNetOptions o) {
  o.mixture_layers = -1;
  o.router.experts = o.router.top_k = 3;  // all experts answer: the gates sum to 1
  return o;
}

std::shared_ptr<WideNetImpl> make(const WideNetOptions& options) {
  torch::manual_seed(1);
  auto model = std::make_shared<WideNetImpl>(options, kInput);
  model->to(at::kDouble);
  torch::NoGradGuard no_grad;
  for (auto& parameter : nn::distinct_parameters(*model))
    parameter.tensor.add_(at::randn_like(parameter.tensor), 0.2);
  model->eval();
  return model;
}

/// `to`'s model with the weights of `from`.
std::shared_ptr<WideNetImpl> converted(const WideNetImpl& from, const WideNetOptions& to,
                                       const nn::AdaptOptions& options = {}) {
  auto model = make(to);
  nn::load_module_state(*model, model->adapt(nn::module_state(from), options), "source");
  return model;
}

double difference(WideNetImpl& a, WideNetImpl& b) {
  torch::manual_seed(2);
  const auto x = at::randn({3, 1, 8, 8}, at::kDouble);
  return (a.classify(x).logits - b.classify(x).logits).abs().max().item<double>();
}

at::Tensor query(const WideNetImpl& model, std::size_t module) {
  return model.attention->ptr(module)->as<nn::Attention>()->qkv_weight.detach();
}

TEST(Adapt, UntyingChangesNothing) {
  const auto tied = make(shared(vit()));
  EXPECT_LT(difference(*tied, *converted(*tied, vit())), 1e-12);
}

class Ties : public ::testing::TestWithParam<nn::Tying> {};

TEST_P(Ties, EqualLayersBecomeOneUnchanged) {
  const auto tied = make(shared(vit()));
  const auto untied = converted(*tied, vit());
  EXPECT_LT(difference(*tied, *converted(*untied, shared(vit()), {GetParam()})), 1e-12);
}
INSTANTIATE_TEST_SUITE_P(All, Ties,
                         ::testing::Values(nn::Tying::kAverage, nn::Tying::kFirst, nn::Tying::kInterpolate));

TEST(Adapt, AverageFirstAndInterpolateTakeWhatTheirNamesSay) {
  const auto trained = make(vit());
  auto options = shared(vit());
  options.groups = 2;
  const auto average = converted(*trained, options, {nn::Tying::kAverage});
  EXPECT_TRUE(query(*average, 1).allclose((query(*trained, 2) + query(*trained, 3)) / 2, 0, 1e-14));
  const auto first = converted(*trained, options, {nn::Tying::kFirst});
  EXPECT_TRUE(query(*first, 1).equal(query(*trained, 2)));
  options.groups = 1;
  const auto middle = converted(*trained, options, {nn::Tying::kInterpolate});
  EXPECT_TRUE(query(*middle, 0).allclose((query(*trained, 1) + query(*trained, 2)) / 2, 0, 1e-14));
}

TEST(Adapt, GroupsInTurnTakeTheirOwnLayers) {
  const auto trained = make(vit());
  auto options = shared(vit());
  options.groups = 2;
  options.group_order = GroupOrder::kCycle;
  const auto average = converted(*trained, options, {nn::Tying::kAverage});
  EXPECT_TRUE(query(*average, 1).allclose((query(*trained, 1) + query(*trained, 3)) / 2, 0, 1e-14));
}

TEST(Adapt, InterpolationReachesOtherDepths) {
  const auto trained = make(vit(2));
  const auto deeper = converted(*trained, vit(4), {nn::Tying::kInterpolate});
  EXPECT_TRUE(query(*deeper, 0).equal(query(*trained, 0)));
  EXPECT_TRUE(query(*deeper, 1).allclose(0.75 * query(*trained, 0) + 0.25 * query(*trained, 1), 0, 1e-14));
  EXPECT_TRUE(query(*deeper, 3).equal(query(*trained, 1)));
}

TEST(Adapt, UpcycledExpertsAnswerAsThePerceptronDid) {
  const auto dense = make(shared(vit()));
  EXPECT_LT(difference(*dense, *converted(*dense, with_mixtures(shared(vit())), {nn::Tying::kRefuse, true})),
            1e-12);
  const auto untied = converted(*dense, vit());
  EXPECT_LT(
      difference(*dense, *converted(*untied, with_mixtures(shared(vit())), {nn::Tying::kAverage, true})),
      1e-12);
}

TEST(Adapt, LastLayersAloneMayBeUpcycled) {
  const auto dense = make(vit());
  auto options = vit();
  options.mixture_layers = 1;
  options.router.experts = options.router.top_k = 2;
  EXPECT_LT(difference(*dense, *converted(*dense, options, {nn::Tying::kRefuse, true})), 1e-12);
}

TEST(Adapt, ChoicesThatWereNotMadeAreAskedFor) {
  const auto refusal = [](const WideNetOptions& from, const WideNetOptions& to,
                          const nn::AdaptOptions& options = {}) {
    const auto trained = make(from);
    return test::thrown<ConfigError>([&] { converted(*trained, to, options); });
  };
  STOA_EXPECT_CONTAINS(refusal(vit(), shared(vit())), "`initial.tie`");
  STOA_EXPECT_CONTAINS(refusal(vit(), with_mixtures(vit())), "`initial.upcycle`");
  STOA_EXPECT_CONTAINS(refusal(vit(2), shared(vit(4)), {nn::Tying::kAverage}), "interpolate");
}

}  // namespace
}  // namespace stoa::wide_net
