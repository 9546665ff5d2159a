#include "stoa/systems/text_transformer/model.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/nn/init.h"
#include "stoa/systems/wide_net/text.h"
#include "support/thrown.h"

namespace stoa::text_transformer {
namespace {

TextTransformerOptions preset(const std::string& text, TextTransformerOptions options = {}) {
  read_fields(Config::from_text(text, "recipe"), [&](FieldVisitor& v) { options.visit(v); });
  return options;
}

TextModelInput asked(TextHead head, std::int64_t vocabulary, bool pairs = false) {
  TextModelInput input;
  input.head = head;
  input.vocabulary = vocabulary;
  input.sentence_pairs = pairs;
  input.length = 16;
  return input;
}

std::int64_t count(const TextTransformerOptions& options, const TextModelInput& input) {
  const nn::SkipInitialisation skip;
  return nn::count_parameters(*TextTransformer(options, input));
}

/// Without the heads for tokens and pairs.
std::int64_t count_encoder(const TextTransformerOptions& options, std::int64_t vocabulary) {
  const nn::SkipInitialisation skip;
  const TextTransformer model(options, asked(TextHead::kMasked, vocabulary, true));
  return nn::count_parameters(*model) - nn::count_parameters(*model->mask_dense) -
         nn::count_parameters(*model->mask_norm) - model->mask_bias.numel() -
         nn::count_parameters(*model->pair_head);
}

TEST(TextTransformerCounts, BertWithBothHeads) {
  const auto both = asked(TextHead::kMasked, 30522, true);
  EXPECT_EQ(count(preset("preset = \"bert\""), both), 110106428);
  EXPECT_EQ(count_encoder(preset("preset = \"bert\""), 30522), 109482240);
  EXPECT_EQ(count(preset("preset = \"bert\"\ndim = 1024\ndepth = 24\nheads = 16\nmlp_dim = 4096"), both),
            336226108);
}

TEST(TextTransformerCounts, MegatronsModels) {
  EXPECT_EQ(count(preset("preset = \"megatron\""), asked(TextHead::kMasked, 30522, true)), 110106428);
  EXPECT_EQ(
      count(preset("preset = \"megatron\"\ndim = 128\ndepth = 4\nheads = 4\nmlp_dim = 512\npositions = 128\n"
                   "segments = 0"),
            asked(TextHead::kMasked, 30528)),
      4764608);
}

TEST(TextTransformerCounts, AlbertAndWideNet) {
  EXPECT_EQ(count_encoder(preset("preset = \"albert\""), 30000), 11683584);
  for (const auto& [experts, parameters] : {std::pair{4, 25887744}, {8, 44780544}, {16, 82566144}})
    EXPECT_EQ(
        count_encoder(preset(format("router.experts = {}", experts), wide_net::WideNetTextOptions()), 30000),
        parameters);
}

TEST(TextTransformerCounts, DescriptionsAddUpToTheModel) {
  const nn::SkipInitialisation skip;
  for (const char* name : {"bert", "megatron", "albert", "distilbert", "wide_net"})
    for (const auto head : {TextHead::kMasked, TextHead::kClasses, TextHead::kSpans}) {
      const TextTransformer model(preset(format("preset = \"{}\"", name)), asked(head, 1000));
      EXPECT_EQ(model->describe().parameters(), nn::count_parameters(*model)) << name;
    }
}

constexpr const char* kTiny =
    "dim = 12\ndepth = 2\nheads = 3\nmlp_dim = 20\ndropout = 0\nattention_dropout = 0\n";

at::Tensor some_ids(std::int64_t sequences, std::int64_t tokens) {
  return at::randint(0, 50, {sequences, tokens}, at::kLong);
}

TEST(TextTransformer, PaddingChangesNothing) {
  for (const char* name : {"bert", "megatron", "albert", "wide_net"}) {
    torch::manual_seed(2);
    TextTransformer model(preset(format("preset = \"{}\"\n{}", name, kTiny)),
                          asked(TextHead::kMasked, 50, true));
    model->to(at::kDouble);
    model->eval();
    const auto ids = some_ids(3, 7), lengths = at::tensor({7, 4, 2}, at::kLong);
    const auto short_batch = nn::pack_tokens(ids, lengths);
    const auto wide = at::cat({ids, some_ids(3, 9)}, 1);
    const auto long_batch = nn::pack_tokens(wide, lengths);
    EXPECT_TRUE(model->forward(short_batch).hidden.equal(model->forward(long_batch).hidden)) << name;
    const auto alone = nn::pack_tokens(ids.slice(0, 1, 2).slice(1, 0, 4), {});
    EXPECT_TRUE(model->forward(short_batch)
                    .hidden.slice(0, 7, 11)
                    .allclose(model->forward(alone).hidden, 1e-12, 1e-12))
        << name;
  }
}

TEST(TextTransformer, DropoutIsOffInEvaluation) {
  TextTransformer model(
      preset("dim = 12\ndepth = 2\nheads = 3\nmlp_dim = 20\ndropout = 0.5\nattention_dropout = 0.5"),
      asked(TextHead::kMasked, 50));
  const auto tokens = nn::pack_tokens(some_ids(2, 6), {});
  model->eval();
  EXPECT_TRUE(model->forward(tokens).hidden.equal(model->forward(tokens).hidden));
  model->train();
  EXPECT_FALSE(model->forward(tokens).hidden.equal(model->forward(tokens).hidden));
}

TEST(TextTransformer, CachedTokensEqualTheFullForward) {
  for (const char* name : {"gpt2", "bert", "wide_net"}) {
    torch::manual_seed(4);
    auto options = preset(format("preset = \"{}\"\n{}", name, kTiny));
    options.embedding_dim = 0;
    TextTransformer model(options, asked(TextHead::kCausal, 50));
    model->to(at::kDouble);
    model->eval();
    const auto ids = some_ids(2, 11);
    const auto whole = nn::pack_tokens(ids, {});
    const auto hidden = model->forward(whole).hidden.view({2, 11, 12});
    TextCache cache;
    cache.capacity = 11;
    std::int64_t done = 0;
    for (const std::int64_t more : {4, 1, 3, 1, 2}) {  // a prompt, single tokens and several at once
      const auto last = model->continued(ids.slice(1, done, done + more), cache);
      done += more;
      EXPECT_TRUE(last.allclose(hidden.select(1, done - 1), 1e-11, 1e-11)) << name << " at " << done;
    }
  }
}

TEST(TextTransformer, LaterTokensDoNotReachACausalModel) {
  TextTransformer model(preset(format("preset = \"gpt2\"\n{}", kTiny)), asked(TextHead::kCausal, 50));
  model->eval();
  auto ids = some_ids(1, 9);
  const auto before = model->forward(nn::pack_tokens(ids, {})).hidden;
  ids[0][6] = (ids[0][6] + 1) % 50;
  const auto after = model->forward(nn::pack_tokens(ids, {})).hidden;
  EXPECT_TRUE(before.slice(0, 0, 6).equal(after.slice(0, 0, 6)));
  EXPECT_FALSE(before.slice(0, 6).equal(after.slice(0, 6)));
}

TEST(TextTransformer, RecomputedLayersGiveTheSameGradients) {
  for (const char* name : {"bert", "wide_net"}) {
    std::vector<at::Tensor> gradients;
    for (const bool again : {false, true}) {
      torch::manual_seed(5);
      auto options = preset(format("preset = \"{}\"\n{}", name, kTiny));
      options.recompute = again;
      options.dropout = options.attention_dropout = 0.2;
      TextTransformer model(options, asked(TextHead::kMasked, 50));
      const auto output = model->forward(nn::pack_tokens(some_ids(2, 6), at::tensor({6, 3}, at::kLong)));
      auto loss = output.hidden.square().sum();
      for (const auto& side : output.side.losses) loss = loss + side.value;
      loss.backward();
      gradients.push_back(model->word.grad());
    }
    EXPECT_TRUE(gradients[0].allclose(gradients[1], 1e-5, 1e-6)) << name;
  }
}

TEST(TextTransformer, TheTiedMatrixGetsTheGradientsOfBothItsUses) {
  torch::manual_seed(6);
  TextTransformer model(preset(kTiny), asked(TextHead::kMasked, 50));
  model->to(at::kDouble);
  const auto tokens = nn::pack_tokens(some_ids(2, 5), {});
  const auto loss = [&] {
    const auto scores = model->language_scores(model->forward(tokens).hidden);
    return (scores.rows.matmul(scores.weight.t()) + scores.bias).sin().sum();
  };
  loss().backward();
  const auto gradient = model->word.grad().clone();
  at::NoGradGuard no_grad;
  constexpr double kStep = 1e-6;
  for (const auto& [row, column] : {std::pair{tokens.ids[0].item<std::int64_t>(), 3}, {7, 0}}) {
    auto number = model->word[row][column];
    number += kStep;
    const double above = loss().item<double>();
    number -= 2 * kStep;
    const double below = loss().item<double>();
    number += kStep;
    EXPECT_NEAR((above - below) / (2 * kStep), gradient[row][column].item<double>(), 1e-6);
  }
}

TEST(TextTransformerOptions, AreRefusedByName) {
  const auto refused = [](const std::string& text, const TextModelInput& input) {
    return test::thrown<ConfigError>([&] { preset(text).validate(input); });
  };
  const auto masked = asked(TextHead::kMasked, 50);
  STOA_EXPECT_CONTAINS(refused("heads = 5", masked), "`model.heads` is 5 but must divide `model.dim` = 768");
  STOA_EXPECT_CONTAINS(refused("positions = 8", masked), "`data.length` is 16 but the model has 8 positions");
  STOA_EXPECT_CONTAINS(refused("vocabulary = 40", masked), "the tokenizer has 50 tokens");
  STOA_EXPECT_CONTAINS(refused("preset = \"gpt2\"", masked), "use it with task causal_text");
  STOA_EXPECT_CONTAINS(refused("preset = \"albert\"", asked(TextHead::kCausal, 50)),
                       "`model.embedding_dim` is 128");
  STOA_EXPECT_CONTAINS(refused("segments = 0", asked(TextHead::kMasked, 50, true)), "`model.segments` is 0");
  STOA_EXPECT_CONTAINS(refused("dropout = 1.0", masked), "`model.dropout` is 1");
}

}  // namespace
}  // namespace stoa::text_transformer
