#include "stoa/systems/text_transformer/model.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>

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

TEST(TextTransformerCounts, GptAndItsClassifier) {
  EXPECT_EQ(count(preset("preset = \"gpt2\""), asked(TextHead::kCausal, 50257)), 124439808);
  EXPECT_EQ(count(preset("preset = \"gpt2\""), asked(TextHead::kClasses, 50257)), 124439808 + 2 * 768);
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
  for (const auto head : {TextHead::kCausal, TextHead::kClasses}) {
    const TextTransformer model(preset("preset = \"gpt2\""), asked(head, 1000));
    EXPECT_EQ(model->describe().parameters(), nn::count_parameters(*model));
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

/// A GPT-2 that tells two classes apart, and three sequences that have no token in common.
struct GptClassifier {
  GptClassifier() {
    torch::manual_seed(8);
    model = TextTransformer(preset(format("preset = \"gpt2\"\n{}", kTiny)), asked(TextHead::kClasses, 50));
    model->to(at::kDouble);
  }
  TextTransformer model{nullptr};
  nn::PackedTokens tokens =
      nn::pack_tokens(at::arange(21, at::kLong).view({3, 7}), at::tensor({4, 7, 1}, at::kLong));
};

TEST(TextTransformerGptClasses, AreScoredByTheLastTokenOfEachSequence) {
  GptClassifier gpt;
  const auto hidden = gpt.model->forward(gpt.tokens).hidden.detach().requires_grad_();
  const auto scores = gpt.model->class_scores(hidden, gpt.tokens);
  const auto last = at::tensor({3, 10, 11}, at::kLong);
  EXPECT_EQ(scores.sizes(), (std::vector<std::int64_t>{3, 2}));
  EXPECT_TRUE(scores.allclose(hidden.index_select(0, last).matmul(gpt.model->score.t()), 1e-12, 1e-12));
  scores.sum().backward();
  const auto reached = hidden.grad().abs().sum(1).ne(0).nonzero().flatten();
  EXPECT_TRUE(reached.equal(last)) << reached;
}

TEST(TextTransformerGptClasses, GradientsReachTheOwnSequenceAlone) {
  GptClassifier gpt;
  const auto scores = gpt.model->class_scores(gpt.model->forward(gpt.tokens).hidden, gpt.tokens);
  scores[1].sum().backward();
  const auto words = gpt.model->word.grad().abs().sum(1).ne(0).nonzero().flatten();
  EXPECT_TRUE(words.equal(at::arange(7, 14))) << words;
  const auto positions = gpt.model->position.grad().abs().sum(1).ne(0).nonzero().flatten();
  EXPECT_TRUE(positions.equal(at::arange(7))) << positions;
}

TEST(TextTransformerGptClasses, ATokenDoesNotSeeThoseBehindIt) {
  GptClassifier gpt;
  at::NoGradGuard no_grad;
  const auto ids = at::arange(7, at::kLong).unsqueeze(0);
  auto other = ids.clone();
  other[0][6] = 40;
  const auto hidden = gpt.model->forward(nn::pack_tokens(ids, {})).hidden,
             changed = gpt.model->forward(nn::pack_tokens(other, {})).hidden;
  EXPECT_TRUE(hidden.slice(0, 0, 6).equal(changed.slice(0, 0, 6)));
  EXPECT_FALSE(hidden[6].equal(changed[6]));
  // so a text that breaks off is scored as its last token was within the whole
  const auto part = nn::pack_tokens(ids.slice(1, 0, 4), {});
  EXPECT_TRUE(gpt.model->class_scores(gpt.model->forward(part).hidden, part)[0].allclose(
      gpt.model->score.matmul(hidden[3]), 1e-12, 1e-12));
}

TEST(TextTransformer, EveryWeightIsDrawnByTheModelsOwnRule) {
  for (const char* name : {"bert", "gpt2", "wide_net"}) {
    const auto head = std::string(name) == "gpt2" ? TextHead::kCausal : TextHead::kMasked;
    auto options = preset(format("preset = \"{}\"\ndim = 64\ndepth = 8\nheads = 4\nmlp_dim = 96", name));
    options.init_std = 0.5;
    const TextTransformer model(options, asked(head, 200));
    for (const auto& item : model->named_parameters()) {
      const auto& parameter = item.key();
      const double largest = item.value().abs().max().item<double>();
      if (parameter.ends_with("bias") || parameter.find(".b_") != std::string::npos) {
        EXPECT_EQ(largest, 0) << name << " " << parameter;
      } else if (item.value().dim() == 1) {
        EXPECT_TRUE(item.value().eq(1).all().item<bool>()) << name << " " << parameter;
      } else {
        const bool ends = parameter.ends_with("out.weight") || parameter.ends_with("w_out");
        const double edge = options.scaled_init && ends ? 1.0 / std::sqrt(2.0 * 8) : 1.0;  // two deviations
        EXPECT_LE(largest, edge * 1.0001) << name << " " << parameter;
        EXPECT_GT(largest, edge * 0.8) << name << " " << parameter;
      }
    }
  }
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
  STOA_EXPECT_CONTAINS(refused("preset = \"gpt2\"", masked),
                       "use it with tasks causal_text and text_classification");
  STOA_EXPECT_CONTAINS(refused("preset = \"albert\"", asked(TextHead::kCausal, 50)),
                       "`model.embedding_dim` is 128");
  STOA_EXPECT_CONTAINS(refused("segments = 0", asked(TextHead::kMasked, 50, true)), "`model.segments` is 0");
  STOA_EXPECT_CONTAINS(refused("dropout = 1.0", masked), "`model.dropout` is 1");
}

}  // namespace
}  // namespace stoa::text_transformer
