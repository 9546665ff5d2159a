#include "stoa/systems/text_transformer/hugging_face.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "stoa/base/errors.h"
#include "support/thrown.h"
#include "systems/text_transformer/problem.h"

namespace stoa::text_transformer {
namespace {

namespace fs = std::filesystem;
using test::distance;
using test::TextGolden;
using test::thrown;

constexpr std::pair<const char*, TextHead> kFamilies[] = {{"bert", TextHead::kMasked},
                                                          {"albert", TextHead::kMasked},
                                                          {"distilbert", TextHead::kMasked},
                                                          {"gpt2", TextHead::kCausal}};

at::Tensor hidden_of(TextTransformer& model, const TextGolden& golden) {
  at::NoGradGuard no_grad;
  return model->forward(golden.tokens(false)).hidden;
}

/// The message of reading the golden folder as it now is.
std::string refusal(const TextGolden& golden, TextHead head = TextHead::kMasked) {
  return thrown<DataError>([&] { golden.model(head); });
}

TEST(HuggingFace, WhatWasWrittenReadsBackTheSame) {
  for (const auto& [name, head] : kFamilies) {
    const TextGolden golden(name);
    auto model = golden.model(head);
    const test::TempDir folder;
    model->to(at::kFloat);
    model->save_pretrained(folder.path());
    auto options = TextGolden::text_transformer_options(folder.path());
    EXPECT_EQ(options.preset, golden.options().preset) << name;
    TextTransformer again(options, model->input());
    again->load_pretrained();
    again->eval();
    EXPECT_EQ(distance(hidden_of(model, golden), hidden_of(again, golden)), 0) << name;
  }
}

TEST(HuggingFace, TheNamesWrittenAreThoseOfTheRecordedModel) {
  for (const auto& [name, head] : kFamilies) {
    const TextGolden golden(name);
    const bool pairs = golden.has("pair");
    auto model = golden.model(head, pairs);
    const test::TempDir folder;
    model->save_pretrained(folder.path());
    const auto written = load_safetensors(folder.path() / "model.safetensors").tensors;
    for (const auto& [tensor, value] : golden.weights) {
      ASSERT_EQ(written.count(tensor), 1U) << name << " lacks " << tensor;
      EXPECT_EQ(distance(written.at(tensor), value), 0) << tensor;
    }
    EXPECT_EQ(written.size(), golden.weights.size()) << name;
  }
}

TEST(HuggingFace, OlderNamesWithoutPrefixAndShardsAreTheSame) {
  TextGolden golden("bert");
  auto before = golden.model(TextHead::kMasked);
  const auto wanted = hidden_of(before, golden);
  TensorFile shards[2];
  Json map = Json::object();
  int number = 0;
  for (const auto& [name, tensor] : golden.weights) {
    auto older = name.starts_with("bert.") ? name.substr(5) : name;
    if (const auto at = older.find("LayerNorm."); at != std::string::npos)
      older = older.substr(0, at + 10) + (older.ends_with("weight") ? "gamma" : "beta");
    const int shard = number++ % 2;
    shards[shard].tensors[older] = tensor;
    map[older] = format("model-{}.safetensors", shard);
  }
  shards[0].tensors["embeddings.position_ids"] = at::arange(24).unsqueeze(0);
  for (int i = 0; i < 2; ++i)
    save_safetensors(golden.folder.path() / format("model-{}.safetensors", i), shards[i]);
  fs::remove(golden.folder.path() / "model.safetensors");
  write_file_atomically(golden.folder.path() / "model.safetensors.index.json",
                        Json{{"weight_map", map}}.dump());
  auto model = golden.model(TextHead::kMasked);
  EXPECT_EQ(distance(hidden_of(model, golden), wanted), 0);

  fs::remove(golden.folder.path() / "model-1.safetensors");
  STOA_EXPECT_CONTAINS(refusal(golden), "model-1.safetensors is missing");
}

TEST(HuggingFace, HeadsThatAreMissingAreDrawnAndOthersSkipped) {
  const TextGolden golden("bert");
  auto options = golden.options();
  TextModelInput input;
  input.vocabulary = 61;
  input.head = TextHead::kClasses;
  input.classes = 3;
  input.length = 12;
  TextTransformer model(options, input);
  const auto drawn = read_tensors(golden.folder.path(), options, nn::module_state(*model));
  EXPECT_EQ(drawn, (std::vector<std::string>{"class_head.weight", "class_head.bias"}));
}

/// The recorded GPT-2 with a head for two classes: what GPT2ForSequenceClassification saves.
struct GptClassifierGolden : TextGolden {
  GptClassifierGolden() : TextGolden("gpt2") {
    weights["score.weight"] = at::linspace(-1, 1, 32, at::kDouble).view({2, 16});
    save();
  }
};

TEST(HuggingFace, AGptClassifierScoresTheRecordedHiddenStateOfTheLastToken) {
  const GptClassifierGolden golden;
  auto model = golden.model(TextHead::kClasses);
  const auto tokens = golden.tokens(false);
  at::NoGradGuard no_grad;
  const auto last = (golden["lengths"] - 1).view({-1, 1, 1}).expand({-1, 1, 16});
  const auto wanted =
      golden["hidden/3"].gather(1, last).squeeze(1).matmul(golden.weights.at("score.weight").t());
  EXPECT_LT(distance(model->class_scores(model->forward(tokens).hidden, tokens), wanted), 1e-11);
}

TEST(HuggingFace, AGptClassifierIsWrittenAsPythonNamesIt) {
  const GptClassifierGolden golden;
  const auto model = golden.model(TextHead::kClasses);
  const test::TempDir folder;
  model->save_pretrained(folder.path());
  const auto written = load_safetensors(folder.path() / "model.safetensors").tensors;
  EXPECT_EQ(written.size(), golden.weights.size());
  for (const auto& [name, value] : golden.weights) {
    ASSERT_EQ(written.count(name), 1U) << name;
    EXPECT_EQ(distance(written.at(name), value), 0) << name;
  }
  const auto config = read_json(folder.path() / "config.json");
  EXPECT_EQ(config.at("architectures"), Json::array({"GPT2ForSequenceClassification"}));
  EXPECT_EQ(config.at("id2label").size(), 2U);
}

TEST(HuggingFace, AGptOfOneKindBecomesTheOther) {
  const TextGolden causal("gpt2");
  const GptClassifierGolden classes;
  auto model_of_classes = classes.model(TextHead::kCausal), plain = causal.model(TextHead::kCausal);
  EXPECT_EQ(distance(hidden_of(model_of_classes, causal), hidden_of(plain, causal)), 0);
  TextModelInput input;
  input.vocabulary = 61;
  input.head = TextHead::kClasses;
  TextTransformer model(causal.options(), input);
  EXPECT_EQ(read_tensors(causal.folder.path(), causal.options(), nn::module_state(*model)),
            (std::vector<std::string>{"score"}));
}

TEST(HuggingFace, AMissingTensorIsNamed) {
  TextGolden golden("bert");
  golden.weights.erase("bert.encoder.layer.1.attention.self.key.bias");
  golden.save();
  STOA_EXPECT_CONTAINS(refusal(golden), "tensor `encoder.layer.1.attention.self.key.bias` is missing");
}

TEST(HuggingFace, AMisshapenTensorIsNamed) {
  TextGolden golden("bert");
  golden.weights["bert.encoder.layer.2.intermediate.dense.weight"] = at::zeros({28, 15});
  golden.save();
  STOA_EXPECT_CONTAINS(
      refusal(golden),
      "tensor `encoder.layer.2.intermediate.dense.weight` has shape [28, 15], config.json and the "
      "recipe make it [28, 16]");
}

TEST(HuggingFace, ATensorTooManyIsNamed) {
  TextGolden golden("bert");
  golden.weights["bert.encoder.layer.3.output.dense.bias"] = at::zeros({16});
  golden.save();
  STOA_EXPECT_CONTAINS(refusal(golden), "tensor `bert.encoder.layer.3.output.dense.bias` has no place");
}

TEST(HuggingFace, AnotherArchitectureIsRefused) {
  const TextGolden golden("bert");
  write_file_atomically(golden.folder.path() / "config.json", R"({"model_type": "llama", "vocab_size": 61})");
  STOA_EXPECT_CONTAINS(refusal(golden),
                       "`model_type` is \"llama\"; bert, distilbert, albert and gpt2 can be read");
}

TEST(HuggingFace, ATruncatedFileIsRefused) {
  const TextGolden golden("bert");
  fs::resize_file(golden.folder.path() / "model.safetensors", 5000);
  STOA_EXPECT_CONTAINS(refusal(golden), "model.safetensors");
}

TEST(HuggingFace, WeightsOfPythonsOwnFormAreNamed) {
  const TextGolden golden("bert");
  fs::rename(golden.folder.path() / "model.safetensors", golden.folder.path() / "pytorch_model.bin");
  STOA_EXPECT_CONTAINS(refusal(golden), "safe_serialization=True");
}

TEST(HuggingFace, AModelOfAnotherFormCannotBeWritten) {
  TextTransformerOptions options;
  options.dim = 8;
  options.heads = 2;
  options.depth = 1;
  options.norm = NormPlace::kPre;
  TextModelInput input;
  input.vocabulary = 11;
  const TextTransformer model(options, input);
  const test::TempDir folder;
  STOA_EXPECT_CONTAINS(test::thrown<ConfigError>([&] { model->save_pretrained(folder.path()); }),
                       "no form that Hugging Face's transformers know");
}

}  // namespace
}  // namespace stoa::text_transformer
