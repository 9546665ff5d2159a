#include "stoa/systems/wide_net/model.h"

#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include "stoa/base/errors.h"
#include "stoa/systems/shared_layers.h"
#include "support/thrown.h"

namespace stoa::wide_net {
namespace {

const ImageClassifierInput kInput{1, 8, 5};

WideNetOptions tiny() {
  WideNetOptions o;
  o.patch = 4;
  o.dim = 12;
  o.depth = 3;
  o.heads = 2;
  o.mlp_dim = 16;
  o.router.experts = 4;
  o.router.top_k = 2;
  return o;
}

std::shared_ptr<WideNetImpl> make(const WideNetOptions& options, at::ScalarType type = at::kDouble) {
  torch::manual_seed(1);
  auto model = std::make_shared<WideNetImpl>(options, kInput);
  model->to(type);
  // larger weights than the initial ones, so that every part matters
  torch::NoGradGuard no_grad;
  for (auto& parameter : nn::distinct_parameters(*model))
    parameter.tensor.add_(at::randn_like(parameter.tensor), 0.2);
  return model;
}

at::Tensor images(std::int64_t batch, at::ScalarType type = at::kDouble) {
  torch::manual_seed(2);
  return at::randn({batch, 1, 8, 8}, type);
}

TEST(WideNet, EvaluationDoesNotDependOnTheBatch) {
  auto model = make(tiny());
  model->eval();
  const auto x = images(6);
  const auto whole = model->classify(x).logits;
  const auto parts =
      at::cat({model->classify(x.narrow(0, 0, 1)).logits, model->classify(x.narrow(0, 1, 5)).logits});
  EXPECT_LT((whole - parts).abs().max().item<double>(), 1e-12);
  const auto order = at::tensor({3, 0, 5, 1, 4, 2}, at::kLong);
  EXPECT_LT((whole.index_select(0, order) - model->classify(x.index_select(0, order)).logits)
                .abs()
                .max()
                .item<double>(),
            1e-12);
}

TEST(WideNet, TwoEvaluationsAreBitEqual) {
  auto model = make(tiny(), at::kFloat);
  model->eval();
  EXPECT_TRUE(
      model->classify(images(4, at::kFloat)).logits.equal(model->classify(images(4, at::kFloat)).logits));
}

TEST(WideNet, TrainingNoiseChangesTheForwardPass) {
  auto model = make(tiny());
  model->train();
  const auto x = images(4);
  EXPECT_FALSE(model->classify(x).logits.equal(model->classify(x).logits));
}

/// Copies of the shared blocks, each layer's of its group, in an unshared model of the same depth.
std::shared_ptr<WideNetImpl> unrolled(const WideNetImpl& shared) {
  auto options = shared.options();
  options.share_attention = options.share_mlp = false;
  options.groups = 1;
  auto model = make(options);
  torch::NoGradGuard no_grad;
  const auto from = nn::module_state(shared);
  for (auto& [name, tensor] : nn::module_state(*model)) {
    auto source = name;
    for (const std::string list : {"attention.", "mixture."}) {
      if (!name.starts_with(list)) continue;
      const auto layer = std::stoll(name.substr(list.size()));
      source =
          list + std::to_string(shared.options().group_of(layer)) + name.substr(name.find('.', list.size()));
    }
    tensor.copy_(from.at(source));
  }
  return model;
}

TEST(WideNet, GroupsInEitherOrderEqualTheUnrolledModel) {
  auto options = tiny();
  options.depth = 4;
  options.groups = 2;
  at::Tensor logits[2];
  for (const auto order : {GroupOrder::kBlocks, GroupOrder::kCycle}) {
    options.group_order = order;
    const auto shared = make(options);
    const auto copies = unrolled(*shared);
    shared->eval();
    copies->eval();
    auto& own = logits[order == GroupOrder::kCycle];
    own = shared->classify(images(3)).logits;
    EXPECT_LT((own - copies->classify(images(3)).logits).abs().max().item<double>(), 1e-12);
  }
  EXPECT_GT((logits[0] - logits[1]).abs().max().item<double>(),
            1e-3);  // of the same weights: AABB is not ABAB
}

TEST(WideNet, UnrollingIntoCopiesChangesNothing) {
  auto shared = make(tiny());
  auto copies = unrolled(*shared);
  shared->eval();
  copies->eval();
  const auto x = images(3);
  auto a = shared->classify(x), b = copies->classify(x);
  EXPECT_LT((a.logits - b.logits).abs().max().item<double>(), 1e-12);
  (a.logits.square().sum() + a.side.losses.at(0).value).backward();
  (b.logits.square().sum() + b.side.losses.at(0).value).backward();
  // the shared gradient is the sum of the copies'
  std::map<std::string, at::Tensor> sums;
  for (const auto& parameter : nn::distinct_parameters(*copies)) {
    auto name = parameter.name;
    for (const char* list : {"attention.", "mixture."})
      if (name.starts_with(list))
        name = list + std::string("0") + name.substr(name.find('.', std::string(list).size()));
    const auto& gradient = parameter.tensor.grad();
    sums[name] = sums.count(name) != 0 ? sums[name] + gradient : gradient;
  }
  for (const auto& parameter : nn::distinct_parameters(*shared)) {
    const double scale = std::max(1.0, sums.at(parameter.name).abs().max().item<double>());
    EXPECT_LT((parameter.tensor.grad() - sums.at(parameter.name)).abs().max().item<double>() / scale, 1e-10)
        << parameter.name;
  }
}

TEST(WideNet, OneLayerEqualsViTMoeOfOneLayer) {
  auto options = tiny();
  options.depth = 1;
  auto wide = make(options);
  options.share_attention = options.share_mlp = false;
  auto vit_moe = make(options);
  wide->eval();
  vit_moe->eval();
  EXPECT_TRUE(wide->classify(images(2)).logits.equal(vit_moe->classify(images(2)).logits));
}

TEST(WideNet, LossesAreOneForEachWeightThatIsSet) {
  auto options = tiny();
  options.router.z_weight = 1e-3;
  const auto output = make(options)->classify(images(2));
  ASSERT_EQ(output.side.losses.size(), 2u);
  EXPECT_EQ(output.side.losses[0].name, "balance");
  EXPECT_EQ(output.side.losses[1].name, "router_z");
}

TEST(WideNet, DenseModelsHaveNoSideLosses) {
  auto options = tiny();
  options.mixture_layers = 0;
  EXPECT_TRUE(make(options)->classify(images(2)).side.losses.empty());
}

TEST(WideNet, StatisticsHaveARowForEachMixtureLayer) {
  auto options = tiny();
  options.mixture_layers = 2;
  const auto output = make(options)->classify(images(2));
  ASSERT_EQ(output.side.statistics.at(0).name, "router.load");
  EXPECT_EQ(output.side.statistics.at(0).value.sizes(), (std::vector<std::int64_t>{2, 4}));
}

TEST(WideNet, GroupsFollowTheirOrder) {
  WideNetOptions o = tiny();
  o.depth = 6;
  o.groups = 2;
  std::vector<std::int64_t> blocks, cycle;
  for (std::int64_t i = 0; i < 6; ++i) blocks.push_back(o.group_of(i));
  o.group_order = GroupOrder::kCycle;
  for (std::int64_t i = 0; i < 6; ++i) cycle.push_back(o.group_of(i));
  EXPECT_EQ(blocks, (std::vector<std::int64_t>{0, 0, 0, 1, 1, 1}));
  EXPECT_EQ(cycle, (std::vector<std::int64_t>{0, 1, 0, 1, 0, 1}));
}

TEST(WideNet, SharedTensorsAreStoredOnce) {
  auto options = tiny();
  options.depth = 12;
  const auto state = nn::module_state(*make(options));
  std::int64_t attentions = 0;
  for (const auto& [name, tensor] : state)
    attentions += name.starts_with("attention.") && name.ends_with("qkv_weight");
  EXPECT_EQ(attentions, 1);
}

/// The largest entry of a uniformly drawn tensor reaches its bound, and no more.
void expect_uniform(const at::Tensor& tensor, double bound, const char* name) {
  const double largest = tensor.abs().max().item<double>();
  EXPECT_LE(largest, bound * (1 + 1e-6)) << name;
  EXPECT_GT(largest, 0.99 * bound) << name;
  EXPECT_NEAR(tensor.mean().item<double>(), 0, 0.1 * bound) << name;
}

TEST(WideNet, EveryPartBeginsWithinTheBoundsOfThePaper) {
  auto options = tiny();
  options.dim = 192;
  options.representation = true;
  torch::manual_seed(3);
  const WideNetImpl model(options, kInput);  // 1 channel, 5 classes
  expect_uniform(model.patch->weight, std::sqrt(6.0 / (4 * 4 * (1 + 192))), "patch");
  expect_uniform(model.representation->weight, std::sqrt(6.0 / (192 + 192)), "representation");
  expect_uniform(model.head->weight, std::sqrt(6.0 / (192 + 5)), "head");
  EXPECT_NEAR(model.position.std().item<double>(), 0.02, 0.002);
  for (const auto& bias : {model.patch->bias, model.representation->bias, model.head->bias})
    EXPECT_EQ(bias.abs().max().item<double>(), 0);
}

TEST(WideNet, AttentionMayBeginAsOneFusedMatrix) {
  auto options = tiny();
  options.dim = 96;
  options.attention_init = nn::AttentionInit::kFused;
  torch::manual_seed(3);
  WideNetImpl model(options, kInput);
  const auto& attention = *model.attention[0]->as<nn::Attention>();
  expect_uniform(attention.qkv_weight, std::sqrt(6.0 / (96 + 3 * 96)), "q, k, v");
  expect_uniform(attention.out->weight, std::sqrt(6.0 / (96 + 96)), "out");
}

TEST(WideNet, AttentionBeginsAsTheOriginalProgramDoes) {
  auto options = tiny();
  options.dim = 96;
  options.heads = 6;
  options.attention_init = nn::AttentionInit::kCode;
  torch::manual_seed(3);
  WideNetImpl model(options, kInput);
  const auto& attention = *model.attention[0]->as<nn::Attention>();
  const double qkv = std::sqrt(6.0 / (96 * (6 + 16))), out = std::sqrt(6.0 / (96 * (1 + 6)));
  EXPECT_NEAR(attention.qkv_weight.abs().max().item<double>(), qkv, 0.002 * qkv);
  EXPECT_NEAR(attention.out->weight.abs().max().item<double>(), out, 0.002 * out);
}

TEST(WideNet, PresetsSetTheirSwitchesAndKeysOverrideThem) {
  WideNetOptions o;
  read_options(Config::from_text("preset = \"code\"\ndropout = 0.3", "r"), o);
  EXPECT_EQ(o.ffn_output_activation, ops::Activation::kGeluTanh);
  EXPECT_EQ(o.router.fill, nn::FillOrder::kToken);
  EXPECT_TRUE(o.router.reserve_first_slot);
  EXPECT_EQ(o.router.eval_capacity_factor, -1);
  EXPECT_EQ(o.dropout, 0.3);
  WideNetOptions paper;
  read_options(Config::from_text("preset = \"paper\"", "r"), paper);
  EXPECT_EQ(paper.class_slot, ClassSlot::kZero);
  EXPECT_TRUE(paper.representation);
  EXPECT_EQ(paper.ffn_output_activation, ops::Activation::kNone);
  EXPECT_EQ(paper.router.eval_capacity_factor, 0);
}

TEST(WideNet, PresetCodeEvaluatesWithTheCapacityOfTraining) {
  const auto drop_rate = [](const std::string& router) {
    WideNetOptions o = tiny();
    read_options(Config::from_text("preset = \"code\"\n[router]\n" + router, "r"), o);
    auto model = make(o);
    model->eval();
    for (const auto& item : model->classify(images(6)).side.statistics)
      if (item.name == "router.drop_rate") return item.value.sum().item<double>();
    return -1.0;
  };
  EXPECT_EQ(drop_rate("capacity_factor = 2.0"),
            drop_rate("capacity_factor = 1.2\neval_capacity_factor = 2.0"));
  EXPECT_LT(drop_rate("capacity_factor = 2.0"), drop_rate("capacity_factor = 1.2"));
}

TEST(WideNet, DropPathAndLayerScaleTrain) {
  auto options = tiny();
  options.drop_path = 0.5;
  options.layer_scale = 0.1;
  options.class_slot = ClassSlot::kZero;
  options.pooling = Pooling::kMap;
  auto model = make(options);
  model->train();
  model->classify(images(4)).logits.sum().backward();
  for (const auto& parameter : nn::distinct_parameters(*model))
    EXPECT_TRUE(parameter.tensor.grad().defined()) << parameter.name;
}

/// Logits, losses, statistics, then all gradients of a training pass.
std::vector<at::Tensor> training_pass(WideNetOptions options, bool recompute) {
  options.recompute = recompute;
  auto model = make(options, at::kFloat);
  model->train();
  torch::manual_seed(5);
  const auto output = model->classify(images(4, at::kFloat));
  auto loss = output.logits.square().sum();
  std::vector<at::Tensor> all = {output.logits.detach()};
  for (const auto& side : output.side.losses) {
    loss = loss + side.value;
    all.push_back(side.value.detach());
  }
  for (const auto& statistic : output.side.statistics) all.push_back(statistic.value.detach());
  loss.backward();
  for (const auto& parameter : nn::distinct_parameters(*model)) all.push_back(parameter.tensor.grad());
  return all;
}

TEST(WideNet, RecomputedLayersTrainAlike) {
  auto mixtures = tiny();  // with noise in the router, all losses, and layers that share their weights
  mixtures.dropout = 0.2;
  mixtures.drop_path = 0.3;
  mixtures.router.noise = 1;
  mixtures.router.z_weight = 0.1;
  mixtures.router.importance_weight = mixtures.router.load_weight = 0.1;
  auto dense = tiny();
  dense.mixture_layers = 1;
  dense.share_attention = dense.share_mlp = false;
  for (const auto& options : {mixtures, dense}) {
    const auto kept = training_pass(options, false), again = training_pass(options, true);
    ASSERT_EQ(kept.size(), again.size());
    for (std::size_t i = 0; i < kept.size(); ++i) EXPECT_TRUE(kept[i].allclose(again[i], 1e-5, 1e-6)) << i;
  }
}

TEST(LnSpread, IsZeroForEqualLayersAndTheMeanSquareOtherwise) {
  EXPECT_EQ(ln_spread(at::ones({4, 3})).abs().max().item<double>(), 0);
  // two layers that differ by 2 in every coordinate: ordered pairs give 2 * 4 * d over d * 2^2
  EXPECT_TRUE(
      ln_spread(at::stack({at::zeros({3}), at::full({3}, 2.0)})).equal(at::full({2}, 2.0, at::kDouble)));
}

TEST(LnSpread, OfALayerIsItsMeanSquareDistanceFromAll) {
  torch::manual_seed(3);
  const auto norms = at::randn({5, 7}, at::kDouble);
  const auto pairs = (norms.unsqueeze(0) - norms.unsqueeze(1)).square().mean(2);  // [layers, layers]
  EXPECT_TRUE(ln_spread(norms).allclose(pairs.mean(1), 0, 1e-14));
}

TEST(WideNet, TrainingReportsTheSpreadOfNormsByDepth) {
  auto model = make(tiny());
  model->train();
  for (const auto& item : model->classify(images(2)).side.statistics)
    if (item.name == "norm2.spread") {
      EXPECT_EQ(item.value.numel(), 3);
      EXPECT_GT(item.value.min().item<double>(), 0);
      return;
    }
  FAIL() << "no norm2.spread";
}

TEST(WideNetOptions, RefusalsNameTheField) {
  const auto refusal = [](auto change) {
    WideNetOptions o = tiny();
    change(o);
    return test::thrown<ConfigError>([&] { o.validate(kInput); });
  };
  EXPECT_NE(refusal([](auto& o) { o.heads = 5; }).find("`model.heads` is 5 but must divide `model.dim` = 12"),
            std::string::npos);
  EXPECT_NE(refusal([](auto& o) { o.patch = 3; }).find("`model.patch` is 3"), std::string::npos);
  EXPECT_NE(refusal([](auto& o) { o.groups = 2; }).find("`model.groups` is 2"), std::string::npos);
  EXPECT_NE(refusal([](auto& o) { o.mixture_layers = 4; }).find("`model.mixture_layers` is 4"),
            std::string::npos);
  EXPECT_NE(refusal([](auto& o) { o.pooling = Pooling::kToken; }).find("`model.pooling`"), std::string::npos);
  EXPECT_NE(refusal([](auto& o) { o.dropout = 1; }).find("`model.dropout`"), std::string::npos);
  EXPECT_NE(refusal([](auto& o) { o.router.top_k = 5; }).find("top_k"), std::string::npos);
}

}  // namespace
}  // namespace stoa::wide_net
