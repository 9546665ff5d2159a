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

std::shared_ptr<WideNetImpl> make(const WideNetOptions& options, const ImageClassifierInput& input = kInput) {
  torch::manual_seed(1);
  auto model = std::make_shared<WideNetImpl>(options, input);
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

TEST(Adapt, OneBlockSpreadsIntoGroupsUnchanged) {
  auto options = with_mixtures(shared(vit()));
  const auto one = make(options);
  options.groups = 2;
  EXPECT_LT(difference(*one, *converted(*one, options)), 1e-12);
}

std::string refusal(const WideNetOptions& from, const WideNetOptions& to,
                    const nn::AdaptOptions& options = {}) {
  const auto trained = make(from);
  return test::thrown<ConfigError>([&] { converted(*trained, to, options); });
}

TEST(Adapt, OtherSizesAreNamedByTheirKeys) {
  const auto trained = with_mixtures(shared(vit()));
  const auto refused = [&](auto change) {
    auto options = trained;
    change(options);
    return refusal(trained, options);
  };
  EXPECT_TRUE(refused([](auto& o) {
                o.router.experts = 5;
              }).starts_with("`model.router.experts` is 5, the weights have 3; "));
  EXPECT_TRUE(refused([](auto& o) { o.dim = 8; }).starts_with("`model.dim` is 8, the weights have 12; "));
  EXPECT_TRUE(refused([](auto& o) { o.patch = 2; }).starts_with("`model.patch` is 2, the weights have 4; "));
  EXPECT_TRUE(
      refused([](auto& o) { o.mlp_dim = 20; }).starts_with("`model.mlp_dim` is 20, the weights have 16; "));
  EXPECT_TRUE(refused([](auto& o) {
                o.expert_dim = 9;
              }).starts_with("`model.expert_dim` is 9, the weights have 16; "));
  EXPECT_TRUE(refused([](auto& o) {
                o.class_slot = ClassSlot::kZero;
              }).starts_with("the model has 5 positions, the weights have 4; "));
}

TEST(Adapt, AnotherDepthIsNamedWithTheOneChoiceThereIs) {
  const auto message = refusal(with_mixtures(shared(vit(4))), with_mixtures(shared(vit(6))));
  EXPECT_TRUE(message.starts_with("`model.depth` is 6, the weights have 4 layers; set it to 4")) << message;
  STOA_EXPECT_CONTAINS(message, "`initial.tie` = \"interpolate\"");
  EXPECT_EQ(message.find("average"), std::string::npos) << message;
}

TEST(Adapt, OtherClassesAskForAFreshHead) {
  const auto trained = make(shared(vit()));
  const auto other = make(shared(vit()), {1, 8, 7});
  const auto message = test::thrown<ConfigError>([&] { other->adapt(nn::module_state(*trained), {}); });
  EXPECT_TRUE(message.starts_with("`data.classes` is 7, the weights have 5; ")) << message;
  STOA_EXPECT_CONTAINS(message, "`initial.fresh` = [\"head\"]");
}

TEST(Adapt, ExpertsDoNotBecomeAPerceptron) {
  const auto wide = with_mixtures(shared(vit()));
  STOA_EXPECT_CONTAINS(refusal(wide, vit()), "`model.mixture_layers` is 0, but the weights have mixtures");
  auto some = wide;
  some.mixture_layers = 2;
  STOA_EXPECT_CONTAINS(refusal(wide, some), "`model.mixture_layers` is 2, but the weights have mixtures");
}

TEST(Adapt, ChoicesThatWereNotMadeAreAskedFor) {
  STOA_EXPECT_CONTAINS(refusal(vit(), shared(vit())), "`initial.tie`");
  STOA_EXPECT_CONTAINS(refusal(vit(), with_mixtures(vit())), "`initial.upcycle`");
  STOA_EXPECT_CONTAINS(refusal(vit(2), shared(vit(4)), {nn::Tying::kAverage}), "interpolate");
  auto two = shared(vit()), four = shared(vit());
  two.groups = 2;
  four.groups = 4;
  STOA_EXPECT_CONTAINS(refusal(two, four), "only `initial.tie` = \"interpolate\"");
}

}  // namespace
}  // namespace stoa::wide_net
