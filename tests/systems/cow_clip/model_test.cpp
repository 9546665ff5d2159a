#include "stoa/systems/cow_clip/model.h"

#include <gtest/gtest.h>

#include <cmath>

#include "stoa/base/config.h"
#include "stoa/base/errors.h"
#include "stoa/nn/init.h"
#include "stoa/tensor/runtime.h"
#include "support/thrown.h"
#include "systems/cow_clip/problem.h"

namespace stoa::cow_clip {
namespace {

constexpr ClickModelInput kCriteo{26, 13, 10}, kAvazu{22, 0, 10};

std::int64_t macs_of(const nn::ModelDescription& model, const std::string& part) {
  for (const auto& p : model.parts)
    if (p.name == part) return p.macs;
  ADD_FAILURE() << "no part " << part;
  return 0;
}

nn::ModelDescription describe(Network network, const ClickModelInput& input = kCriteo) {
  CowClipOptions options;
  options.network = network;
  const nn::SkipInitialisation only_counted;
  const CowClipImpl model(options, input);
  const auto description = model.describe();
  EXPECT_EQ(description.parameters(), nn::count_parameters(model)) << "parts do not add up";
  return description;
}

TEST(CowClipCounts, ParametersArePublishedOnes) {
  EXPECT_EQ(describe(Network::kWideDeep).parameters(), 430814);
  EXPECT_EQ(describe(Network::kDeepFm).parameters(), 430814);
  EXPECT_EQ(describe(Network::kDcn).parameters(), 432725);
  EXPECT_EQ(describe(Network::kDcnV2Mix).parameters(), 654950);
  EXPECT_EQ(describe(Network::kWideDeep, kAvazu).parameters(), 409601);
  EXPECT_EQ(describe(Network::kDeepFm, kAvazu).parameters(), 409601);
}

TEST(CowClipCounts, OtherNetworksFollowTheirFormulas) {
  // DCN's, with three matrices [273, 273] in place of three vectors
  EXPECT_EQ(describe(Network::kDcnV2).parameters(), 432725 + 3 * (273 * 273 - 273));
  // first order; two gates 273-64-273; two perceptrons 273-400-400-400; their output vectors; ten blocks 40 x
  // 40
  EXPECT_EQ(describe(Network::kFinalMlp).parameters(),
            14 + 2 * (273 * 64 + 64 + 64 * 273 + 273) + 2 * 430400 + 2 * 400 + 10 * 40 * 40);
}

TEST(CowClipCounts, MultiplyAddsArePublishedOnes) {
  const auto deepfm = describe(Network::kDeepFm);
  EXPECT_EQ(macs_of(deepfm, "perceptron") + macs_of(deepfm, "output"), 429600);
  EXPECT_EQ(macs_of(describe(Network::kDcn), "cross network"), 1638);
  EXPECT_EQ(macs_of(describe(Network::kDcnV2Mix), "cross network"), 225228);
}

TEST(CowClip, FmTermIsTheSumOverPairs) {
  const Rows batch(5);
  const auto& e = batch.rows.embeddings;
  auto pairs = at::zeros({5}, at::kDouble);
  for (int f = 0; f < 4; ++f)
    for (int g = 0; g < f; ++g) pairs = pairs + (e.select(1, f) * e.select(1, g)).sum(1);
  EXPECT_LT(largest_difference(fm_term(e), pairs), 1e-13);
}

TEST(CowClip, DeepFmIsWideDeepAndTheFmTerm) {
  const Rows batch(5);
  const auto deepfm = make(tiny(Network::kDeepFm)), wide = make(tiny(Network::kWideDeep));
  EXPECT_LT(largest_difference(deepfm->score(batch.rows, batch.numerics),
                               wide->score(batch.rows, batch.numerics) + fm_term(batch.rows.embeddings)),
            1e-13);
}

TEST(CowClip, WideDeepIsItsFormula) {
  const Rows batch(5);
  const auto model = make(tiny(Network::kWideDeep));
  auto h = at::cat({batch.rows.embeddings.flatten(1), batch.numerics}, 1);
  for (const auto& layer : model->mlp->layers) h = at::relu(at::linear(h, layer->weight, layer->bias));
  const auto logits = batch.rows.linear.sum(1) + at::mv(batch.numerics, model->numeric_weight) +
                      at::mv(h, model->output_weight) + model->bias;
  EXPECT_LT(largest_difference(model->score(batch.rows, batch.numerics), logits), 1e-13);
}

/// x_L layer by layer, as cowclip.md 2.2 writes it.
at::Tensor vector_cross(const VectorCrossImpl& cross, const at::Tensor& x0) {
  auto x = x0;
  for (std::int64_t l = 0; l < cross.weight.size(0); ++l)
    x = x0 * at::mv(x, cross.weight[l]).unsqueeze(1) + cross.bias[l] + x;
  return x;
}

TEST(VectorCross, EqualsItsRecursion) {
  for (const std::int64_t layers : {1, 2, 3, 5}) {
    torch::manual_seed(3);
    VectorCross cross(7, layers);
    cross->to(at::kDouble);
    const torch::NoGradGuard no_grad;
    cross->bias.normal_();
    const auto x = at::randn({6, 7}, at::kDouble), k = at::randn({7}, at::kDouble);
    const auto expected = vector_cross(*cross, x);
    EXPECT_LT(largest_difference(cross->forward(x), expected), 1e-12) << layers;
    EXPECT_LT(largest_difference(cross->project(x, k), at::mv(expected, k)), 1e-12) << layers;
  }
}

TEST(VectorCross, WithoutWeightsIsTheInput) {
  VectorCross cross(7, 3);
  const torch::NoGradGuard no_grad;
  cross->weight.zero_();
  const auto x = at::randn({6, 7});
  EXPECT_TRUE(cross->forward(x).equal(x));
}

TEST(MatrixCross, EqualsItsRecursion) {
  torch::manual_seed(3);
  MatrixCross cross(7, 3);
  cross->to(at::kDouble);
  const auto x0 = at::randn({6, 7}, at::kDouble);
  auto x = x0;
  for (const auto& layer : cross->layers) x = x0 * at::linear(x, layer->weight, layer->bias) + x;
  EXPECT_LT(largest_difference(cross->forward(x0), x), 1e-13);
}

/// o_i = x_0 * (U_i tanh(C_i tanh(V_i x)) + b) of every expert, [experts, batch, d].
at::Tensor expert_answers(const MixtureCrossLayerImpl& layer, const at::Tensor& x0, const at::Tensor& x) {
  std::vector<at::Tensor> answers;
  for (std::int64_t i = 0; i < layer.v.size(0); ++i) {
    const auto low = at::tanh(at::linear(at::tanh(at::linear(x, layer.v[i])), layer.c[i]));
    answers.push_back(x0 * (at::linear(low, layer.u.select(1, i)) + layer.bias));
  }
  return at::stack(answers);
}

MixtureCross mixture(std::int64_t experts) {
  torch::manual_seed(3);
  MixtureCross cross(7, 3, experts, 2);
  cross->to(at::kDouble);
  const torch::NoGradGuard no_grad;
  for (auto& layer : cross->layers) layer->bias.normal_();
  return cross;
}

TEST(MixtureCross, EqualsItsRecursion) {
  auto cross = mixture(4);
  const auto x0 = at::randn({6, 7}, at::kDouble);
  auto x = x0;
  for (const auto& layer : cross->layers) {
    const auto shares = at::softmax(at::linear(x, cross->gate), 1).t().unsqueeze(2);
    x = (shares * expert_answers(*layer, x0, x)).sum(0) + x;
  }
  EXPECT_LT(largest_difference(cross->forward(x0), x), 1e-13);
}

TEST(MixtureCross, EqualGatesGiveTheMeanOfTheExperts) {
  auto cross = mixture(4);
  const torch::NoGradGuard no_grad;
  cross->gate.zero_();
  const auto x0 = at::randn({6, 7}, at::kDouble);
  auto x = x0;
  for (const auto& layer : cross->layers) x = expert_answers(*layer, x0, x).mean(0) + x;
  EXPECT_LT(largest_difference(cross->forward(x0), x), 1e-13);
}

TEST(MixtureCross, OneExpertLeavesTheGateWithoutGradient) {
  auto cross = mixture(1);
  cross->forward(at::randn({6, 7}, at::kDouble)).square().sum().backward();
  EXPECT_TRUE(cross->gate.grad().eq(0).all().item<bool>());
  EXPECT_GT(cross->layers[0]->u.grad().abs().max().item<double>(), 0);
}

TEST(TwoStream, EqualsItsFormula) {
  const auto model = make(tiny(Network::kFinalMlp));
  auto& streams = *model->two_stream;
  const auto x = at::randn({6, 14}, at::kDouble);
  const auto stream = [&](FeatureGate& gate, Tower& tower) {
    const auto hidden = at::relu(at::linear(x, gate->in->weight, gate->in->bias));
    auto y = x * 2 * at::sigmoid(at::linear(hidden, gate->out->weight, gate->out->bias));
    for (const auto& layer : tower->layers) y = at::relu(at::linear(y, layer->weight, layer->bias));
    return y;
  };
  const auto y = stream(streams.gate_1, streams.stream_1), z = stream(streams.gate_2, streams.stream_2);
  auto expected = at::mv(y, streams.weight_1) + at::mv(z, streams.weight_2);
  for (int h = 0; h < 2; ++h)
    expected =
        expected + (at::matmul(y.narrow(1, 2 * h, 2), streams.bilinear[h]) * z.narrow(1, 3 * h, 3)).sum(1);
  EXPECT_LT(largest_difference(streams.forward(x), expected), 1e-13);
}

TEST(CowClip, OrderOfTheRowsDoesNotMatter) {
  const Rows batch(6);
  const auto order = at::tensor({3, 0, 5, 1, 4, 2}, at::kLong);
  for (const auto network : kNetworks) {
    const auto model = make(tiny(network));
    const auto logits = model->score(batch.rows, batch.numerics);
    const nn::EmbeddingRows turned{batch.rows.embeddings.index_select(0, order),
                                   batch.rows.linear.index_select(0, order)};
    EXPECT_LT(largest_difference(model->score(turned, batch.numerics.index_select(0, order)),
                                 logits.index_select(0, order)),
              1e-13);
  }
}

TEST(CowClip, WorksWithoutNumerics) {
  constexpr ClickModelInput input{4, 0, 3};
  const Rows batch(3, at::kDouble, input);
  for (const auto network : kNetworks) {
    const auto model = make(tiny(network), at::kDouble, input);
    EXPECT_FALSE(model->numeric_weight.defined());
    EXPECT_EQ(model->score(batch.rows, {}).sizes(), at::IntArrayRef({3}));
    EXPECT_TRUE(model->score(batch.rows, {}).equal(model->score(batch.rows, batch.numerics)));
  }
}

TEST(CowClip, LogitsStayInFloatUnderAutocast) {
  Runtime runtime;
  runtime.bf16 = true;
  const Rows batch(6, at::kFloat);
  for (const auto network : kNetworks) {
    const auto model = make(tiny(network), at::kFloat);
    const auto exact = model->score(batch.rows, batch.numerics);
    const AutocastScope scope(runtime);
    const auto logits = model->score(batch.rows, batch.numerics);
    EXPECT_EQ(logits.scalar_type(), at::kFloat);
    EXPECT_LT(largest_difference(logits, exact), 0.02 * exact.abs().max().item<double>());
    logits.sum().backward();
    EXPECT_EQ(model->bias.grad().item<float>(), 6);
  }
}

TEST(CowClip, DropoutActsInTrainingOnly) {
  auto options = tiny(Network::kDeepFm);
  options.dropout = 0.5;
  const auto model = make(options);
  const Rows batch(6);
  model->eval();
  EXPECT_TRUE(model->score(batch.rows, batch.numerics).equal(model->score(batch.rows, batch.numerics)));
  model->train();
  EXPECT_FALSE(model->score(batch.rows, batch.numerics).equal(model->score(batch.rows, batch.numerics)));
}

TEST(CowClip, PenaltyCoversNumericAndCrossKernels) {
  const auto squares = [](const at::Tensor& t) { return t.square().sum().item<double>(); };
  const auto wide = make(tiny(Network::kWideDeep));
  EXPECT_NEAR(wide->penalty(0.3).item<double>(), 0.3 * squares(wide->numeric_weight), 1e-14);
  auto options = tiny(Network::kDcnV2Mix);
  options.cross_l2 = 0.7;
  const auto mix = make(options);
  double kernels = 0;
  for (const auto& [name, tensor] : nn::module_state(*mix))
    if (name.ends_with(".u") || name.ends_with(".v") || name.ends_with(".c")) kernels += squares(tensor);
  EXPECT_NEAR(mix->penalty(0).item<double>(), 0.7 * kernels, 1e-12);
  options.network = Network::kDcn;
  const auto dcn = make(options);
  const auto state = nn::module_state(*dcn);
  EXPECT_NEAR(dcn->penalty(0.3).item<double>(),
              0.3 * squares(dcn->numeric_weight) + 0.7 * squares(state.at("cross.weight")), 1e-12);
}

TEST(CowClip, GradientOfTheFirstOrderWeightsSumsToThatOfTheBias) {
  // cowclip.md 7: for every field, over the rows of its table
  const auto labels = at::tensor({1, 0, 0, 1, 1, 0}, at::kDouble);
  for (const auto network : kNetworks) {
    const auto model = make(tiny(network));
    const Rows batch(6);
    at::binary_cross_entropy_with_logits(model->score(batch.rows, batch.numerics), labels).backward();
    const auto by_field = batch.rows.linear.grad().sum(0);
    EXPECT_LT(largest_difference(by_field, model->bias.grad().expand({4})), 1e-15);
  }
}

TEST(CowClip, StartsAsThePublishedModels) {
  torch::manual_seed(4);
  CowClipOptions options;
  options.network = Network::kDcnV2Mix;
  const CowClipImpl model(options, kCriteo);
  const auto state = nn::module_state(model);
  const auto deviation = [&](const char* name) { return state.at(name).std().item<double>(); };
  EXPECT_NEAR(deviation("mlp.0.weight"), std::sqrt(2.0 / (273 + 400)), 1e-3);
  EXPECT_NEAR(deviation("mlp.2.weight"), std::sqrt(2.0 / 800), 1e-3);
  EXPECT_NEAR(deviation("cross.0.v"), std::sqrt(2.0 / (4 * 273 + 128)), 1e-3);
  EXPECT_NEAR(deviation("cross.1.u"), std::sqrt(2.0 / (4 * 273 + 128)), 1e-3);
  EXPECT_NEAR(deviation("cross.2.c"), std::sqrt(2.0 / 256), 3e-3);
  EXPECT_NEAR(state.at("cross.gate").abs().max().item<double>(), std::sqrt(6.0 / 274), 2e-3);
  for (const auto& [name, tensor] : state)
    EXPECT_TRUE(!name.ends_with("bias") || tensor.eq(0).all().item<bool>()) << name;
}

TEST(CowClip, RefusesRowsOfAnotherShape) {
  const auto model = make(tiny(Network::kDeepFm));
  const Rows batch(4), other(4, at::kDouble, {5, 2, 3}), numbers(4, at::kDouble, {4, 3, 3});
  STOA_EXPECT_CONTAINS(test::thrown<ShapeError>([&] { model->score(other.rows, batch.numerics); }),
                       "embeddings");
  STOA_EXPECT_CONTAINS(test::thrown<ShapeError>([&] { model->score(batch.rows, numbers.numerics); }),
                       "numerics");
}

/// The message of validate() for options read from `text`.
std::string refused(const std::string& text, const ClickModelInput& input = kCriteo) {
  return test::thrown<ConfigError>([&] {
    CowClipOptions options;
    read_options(Config::from_text(text, "recipe.toml"), options);
    options.validate(input);
  });
}

TEST(CowClipOptions, RefusesWhatCannotBe) {
  STOA_EXPECT_CONTAINS(refused("hidden = []"), "`model.hidden` is empty");
  STOA_EXPECT_CONTAINS(refused("hidden = [400, 0]"), "`model.hidden` has a layer of 0");
  STOA_EXPECT_CONTAINS(refused("dropout = 1.0"), "`model.dropout` is 1");
  STOA_EXPECT_CONTAINS(refused("network = \"dcn\"\ncross_layers = 0"), "`model.cross_layers` is 0");
  STOA_EXPECT_CONTAINS(refused("network = \"dcn\"\ncross_l2 = -1.0"), "`model.cross_l2` is -1");
  STOA_EXPECT_CONTAINS(refused("network = \"dcn_v2_mix\"\nexperts = 0"), "`model.experts` is 0");
  STOA_EXPECT_CONTAINS(refused("network = \"dcn_v2_mix\"\nrank = 0"), "`model.rank` is 0");
  STOA_EXPECT_CONTAINS(refused("network = \"final_mlp\"\nfusion_heads = 7"),
                       "must divide the last layer of `model.hidden`, 400");
  STOA_EXPECT_CONTAINS(refused("network = \"final_mlp\"\nhidden_2 = [32]"), "`model.hidden_2`, 32");
  STOA_EXPECT_CONTAINS(refused("", {0, 13, 10}), "`data.fields` is 0");
  STOA_EXPECT_CONTAINS(refused("", {26, 13, 0}), "`embedding.dim` is 0");
}

TEST(CowClipOptions, RefusesKeysOfOtherNetworks) {
  STOA_EXPECT_CONTAINS(refused("rank = 16"), "network = \"dcn_v2_mix\"");
  STOA_EXPECT_CONTAINS(refused("network = \"xdeepfm\""), "deepfm");
}

}  // namespace
}  // namespace stoa::cow_clip
