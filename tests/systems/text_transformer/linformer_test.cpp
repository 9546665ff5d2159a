// Linformer as a choice of the text model, in one process.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/dist/sequence/linformer.h"
#include "stoa/nn/init.h"
#include "stoa/ops/dropout.h"
#include "stoa/systems/text_transformer/model.h"
#include "stoa/train/plan_model.h"
#include "support/temp_dir.h"
#include "support/text_runs.h"
#include "support/thrown.h"

namespace stoa::text_transformer {
namespace {

constexpr const char* kTiny =
    "dim = 12\ndepth = 2\nheads = 3\nmlp_dim = 20\npositions = 16\ndropout = 0\nattention_dropout = 0\n";

TextTransformerOptions read(const std::string& text) {
  TextTransformerOptions options;
  read_fields(Config::from_text(text, "recipe"), [&](FieldVisitor& v) { options.visit(v); });
  return options;
}

TextModelInput asked(TextHead head = TextHead::kMasked) {
  TextModelInput input;
  input.head = head;
  input.vocabulary = 50;
  input.length = 16;
  return input;
}

TextTransformer make(const std::string& more, double attention_dropout = 0) {
  torch::manual_seed(3);
  auto options = read(kTiny + more);
  options.attention_dropout = attention_dropout;
  const auto input = asked();
  options.validate(input);
  TextTransformer model(options, input);
  model->to(at::kDouble);
  return model;
}

ProjectionsImpl& projections_of(TextTransformerImpl& model, std::size_t layer) {
  return *model.projections->ptr<ProjectionsImpl>(layer);
}

at::Tensor some_ids(std::int64_t sequences, std::int64_t tokens) {
  return at::randint(0, 50, {sequences, tokens}, at::kLong);
}

TEST(TextLinformer, OfTheIdentityIsFullAttention) {
  auto full = make(""), projected = make("linformer = 16\n");
  const at::NoGradGuard no_grad;
  nn::load_module_state(
      *projected,
      [&] {
        auto state = nn::module_state(*full);
        for (const auto& [name, tensor] : nn::module_state(*projected))
          if (name.starts_with("projections.")) state[name] = at::eye(16, at::kDouble);
        return state;
      }(),
      "a test");
  const auto ids = some_ids(3, 16);
  const auto tokens = nn::pack_tokens(ids, {});
  EXPECT_TRUE(projected->forward(tokens).hidden.allclose(full->forward(tokens).hidden, 1e-12, 1e-12));
}

/// The attention of one layer written out: softmax(q (E k)^T / sqrt(A)) (F v) over the tokens that are there.
TEST(TextLinformer, AttendsToProjectedRowsOfRealTokens) {
  torch::manual_seed(4);
  const std::int64_t heads = 3, width = 4, rows = 5;
  const auto e = at::randn({rows, 9}, at::kDouble), f = at::randn({rows, 9}, at::kDouble);
  const auto lengths = at::tensor({7, 4, 2}, at::kLong);
  const auto tokens = dist::with_linformer(nn::pack_tokens(some_ids(3, 8), lengths), e, f);
  const auto qkv = at::randn({13, 3 * heads * width}, at::kDouble);
  ops::PackedAttentionOptions options;
  options.heads = heads;
  const auto found = tokens.exchange->attend(qkv, options);
  ASSERT_EQ(found.sizes(), (std::vector<std::int64_t>{13, heads * width}));
  for (std::int64_t s = 0, first = 0; s < 3; ++s) {
    const auto length = lengths[s].item<std::int64_t>();
    const auto parts = qkv.narrow(0, first, length).view({length, 3, heads, width}).unbind(1);
    const auto keys = at::einsum("kl,lha->hka", {e.narrow(1, 0, length), parts[1]});
    const auto values = at::einsum("kl,lha->hka", {f.narrow(1, 0, length), parts[2]});
    const auto scores = at::einsum("qha,hka->hqk", {parts[0], keys}) / std::sqrt(4.0);
    const auto wanted = at::einsum("hqk,hka->qha", {scores.softmax(2), values}).flatten(1);
    EXPECT_TRUE(found.narrow(0, first, length).allclose(wanted, 1e-12, 1e-12)) << s;
    first += length;
  }
}

TEST(TextLinformer, PaddingChangesNothing) {
  auto model = make("linformer = 4\n");
  const auto ids = some_ids(3, 7), lengths = at::tensor({7, 4, 2}, at::kLong);
  const auto hidden = model->forward(nn::pack_tokens(ids, lengths)).hidden;
  const auto wide = model->forward(nn::pack_tokens(at::cat({ids, some_ids(3, 20)}, 1), lengths)).hidden;
  EXPECT_TRUE(hidden.equal(wide));
  const auto alone = model->forward(nn::pack_tokens(ids.slice(0, 1, 2).slice(1, 0, 4), {})).hidden;
  EXPECT_TRUE(hidden.slice(0, 7, 11).allclose(alone, 1e-12, 1e-12));
}

TEST(TextLinformer, HasTheGradientsOfItsFiniteDifferences) {
  auto model = make("linformer = 4\n");
  const auto tokens = nn::pack_tokens(some_ids(3, 9), at::tensor({9, 5, 3}, at::kLong));
  const auto weights = at::randn({17, 12}, at::kDouble);
  const auto loss = [&] { return (model->forward(tokens).hidden * weights).sum(); };
  loss().backward();
  for (const auto& [name, at] :
       std::vector<std::pair<std::string, std::vector<std::int64_t>>>{{"projections.0.e", {1, 2}},
                                                                      {"projections.0.f", {3, 8}},
                                                                      {"projections.1.e", {0, 0}},
                                                                      {"projections.1.f", {2, 4}},
                                                                      {"attention.0.qkv_weight", {14, 3}},
                                                                      {"attention.0.qkv_weight", {26, 5}}}) {
    const auto parameter = model->named_parameters()[name];
    const at::NoGradGuard no_grad;
    const auto number = parameter.select(0, at[0]).select(0, at[1]);
    const auto found = parameter.grad().select(0, at[0]).select(0, at[1]).item<double>();
    constexpr double kStep = 1e-5;
    number.add_(kStep);
    const auto above = loss().item<double>();
    number.sub_(2 * kStep);
    const auto below = loss().item<double>();
    number.add_(kStep);
    EXPECT_NEAR(found, (above - below) / (2 * kStep), 1e-7 * (1 + std::abs(found))) << name;
    EXPECT_NE(found, 0) << name;
  }
  // no token has these places
  EXPECT_EQ(model->named_parameters()["projections.0.e"].grad().slice(1, 9).abs().max().item<double>(), 0);
}

/// Twice in one process: the same micro-batch cut in two drops the same weights.
TEST(TextLinformer, DropsTheSameWeightsHoweverABatchIsCut) {
  auto model = make("linformer = 4\n", 0.5);
  const auto ids = some_ids(4, 8);
  const auto run = [&](std::int64_t first, std::int64_t count) {
    ops::BatchPart part;
    part.first_sample = first;
    part.seed = 9;
    const ops::BatchPartScope scope(part);
    return model->forward(nn::pack_tokens(ids.narrow(0, first, count), {})).hidden;
  };
  const auto whole = run(0, 4);
  EXPECT_TRUE(whole.allclose(at::cat({run(0, 1), run(1, 3)}), 1e-12, 1e-12));
  model->eval();
  EXPECT_GT((run(0, 4) - whole).abs().max().item<double>(), 1e-3);
}

TEST(TextLinformer, CountsItsProjectionsWhateverSharesThem) {
  const nn::SkipInitialisation skip;
  const auto more = [](const std::string& options) {
    const auto model = make(options), full = make("");
    EXPECT_EQ(model->describe().parameters(), nn::count_parameters(*model)) << options;
    return nn::count_parameters(*model) - nn::count_parameters(*full);
  };
  EXPECT_EQ(more("linformer = 4\n"), 2 * 2 * 4 * 16);
  EXPECT_EQ(more("linformer = 4\nlinformer_sharing = \"keys_values\"\n"), 2 * 4 * 16);
  EXPECT_EQ(more("linformer = 4\nlinformer_sharing = \"layers\"\n"), 4 * 16);
  const auto model = make("linformer = 4\n");
  const auto parts = model->describe().parts;
  const auto part = [&](const char* name) {
    return *std::ranges::find(parts, std::string(name), &nn::ModelPart::name);
  };
  EXPECT_EQ(part("attention").macs, 2 * (16 * 4 * 12 * 12 + 2 * 16 * 4 * 12));
  EXPECT_EQ(part("projections").macs, 2 * 2 * 16 * 4 * 12);
}

TEST(TextLinformer, ProjectionsBelongToTheLayersThatUseThem) {
  const auto own = make("linformer = 4\n"), shared = make("linformer = 4\nlinformer_sharing = \"layers\"\n");
  EXPECT_EQ(own->users().at("projections.1.f"), std::vector<std::int64_t>{1});
  EXPECT_EQ(own->layer_parameters().at("projections.1.f"), 1);
  EXPECT_EQ(shared->users().at("projections.0.e"), (std::vector<std::int64_t>{0, 1}));
  EXPECT_FALSE(shared->layer_parameters().contains("projections.0.e"));
}

TEST(TextLinformer, BeginsWithKeysOfTheirOwnSize) {
  const auto options =
      read("dim = 12\ndepth = 1\nheads = 3\nmlp_dim = 20\npositions = 400\nlinformer = 100\n");
  torch::manual_seed(5);
  TextTransformer model(options, asked());
  const auto& own = projections_of(*model, 0);
  EXPECT_NEAR(own.e.std().item<double>() * 20, 0.88, 0.02);  // of a normal distribution cut at two deviations
  EXPECT_NE(own.e[0][0].item<double>(), own.f[0][0].item<double>());
}

TEST(TextLinformer, IsRefusedWhereItDoesNotApply) {
  const auto refused = [](const std::string& more, const TextModelInput& input = asked()) {
    return test::thrown<ConfigError>([&] { read(kTiny + more).validate(input); });
  };
  STOA_EXPECT_CONTAINS(refused("linformer = 17\n"), "`model.linformer` is 17");
  STOA_EXPECT_CONTAINS(refused("linformer = -1\n"), "`model.linformer` is -1");
  STOA_EXPECT_CONTAINS(refused("linformer = 4\n", asked(TextHead::kCausal)), "see only those before them");
  STOA_EXPECT_CONTAINS(refused("linformer = 4\npreset = \"gpt2\"\n", asked(TextHead::kClasses)),
                       "see only those before them");
  STOA_EXPECT_CONTAINS(refused("linformer = 4\nweights = \"somewhere\"\n"), "have no projections");
  STOA_EXPECT_CONTAINS(refused("linformer_sharing = \"heds\"\n"), "did you mean \"heads\"?");
  const test::TempDir folder;
  const auto model = make("linformer = 4\n");
  STOA_EXPECT_CONTAINS(test::thrown<ConfigError>([&] { model->save_pretrained(folder.path()); }),
                       "Linformer's projections");
  const auto e = at::zeros({2, 5}, at::kDouble);
  STOA_EXPECT_CONTAINS(
      test::thrown<ConfigError>([&] { dist::with_linformer(nn::pack_tokens(some_ids(1, 6), {}), e, e); }),
      "a sequence of 6 tokens, but Linformer's E and F have 5 columns");
  const auto tokens = dist::with_linformer(nn::pack_tokens(some_ids(1, 5), {}), e, e);
  STOA_EXPECT_CONTAINS(
      test::thrown<ConfigError>([&] {
        tokens.exchange->attend(at::zeros({5, 12}, at::kDouble), {.heads = 2, .causal = true});
      }),
      "no causal form");
}

/// Each rank sends 8 (N-1) / N numbers for each of those projected, whatever the length.
TEST(TextLinformer, IsKnownToThePlanner) {
  const test::TempDir folder;
  test::write_text(folder.path());
  const auto plan = [&](const std::string& rows) {
    Config config = Config::from_file(folder / "masked_text.toml");
    config.set("model.linformer=" + rows);
    Recipe recipe = read_recipe(config, catalog());
    const auto task = recipe.task->build({true, nullptr, {}});
    return plan_model(recipe, *task);
  };
  const auto full = plan("0"), projected = plan("8");
  EXPECT_EQ(full.tokens, 30);
  EXPECT_EQ(projected.tokens, 30);
  EXPECT_EQ(full.projected, 0);
  EXPECT_EQ(projected.projected, 8);
  EXPECT_TRUE(projected.splits_sequences);
  EXPECT_EQ(projected.attention_macs, 2 * 2 * 30 * 8 * 24);
  EXPECT_EQ(projected.learned - full.learned, 2 * 2 * 8 * 30);
}

/// Saves at step 10, goes on to 20: the same to the bit as without a break; and the run can be opened again.
TEST(TextLinformer, GoesOnFromACheckpoint) {
  const test::TempDir folder;
  test::write_text(folder.path());
  const auto run = folder / "run", again = folder / "again";
  test::train_text(folder / "masked_text.toml", run, {"model.linformer=8", "checkpoint.every=10"});
  std::filesystem::copy(run, again, std::filesystem::copy_options::recursive);
  run_training({.recipe = {}, .out = {}, .resume = again, .resume_step = 10}, catalog());
  EXPECT_EQ(read_events(again).back().at("loss"), read_events(run).back().at("loss"));
  const auto loaded = load_run(run, catalog(), "last", /*open_data=*/true);
  loaded.task->model().eval();
  EXPECT_EQ(loaded.task->model().named_parameters()["projections.1.f"].sizes(),
            (std::vector<std::int64_t>{8, 30}));
  EXPECT_LT(read_events(run).back().at("loss").get<double>(),
            read_events(run).front().at("loss").get<double>());
}

}  // namespace
}  // namespace stoa::text_transformer
