#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <string>
#include <vector>

#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/nn/packed_tokens.h"
#include "stoa/systems/text_transformer/hugging_face.h"
#include "stoa/systems/text_transformer/model.h"
#include "stoa/tensor/safetensors.h"
#include "support/temp_dir.h"

namespace stoa::test {

/// A recorded model of Python's transformers (tests/golden/README.md), as a folder that it would save.
struct TextGolden {
  explicit TextGolden(const std::string& name)
      : file(load_safetensors(std::string(STOA_SOURCE_DIR) + "/tests/golden/text_" + name + ".safetensors")) {
    for (const auto& [key, tensor] : file.tensors)
      if (key.starts_with("weights/")) weights[key.substr(8)] = tensor;
    save();
  }
  void save() const {
    save_safetensors(folder.path() / "model.safetensors", {weights, {{"format", "pt"}}});
    write_file_atomically(folder.path() / "config.json", file.metadata.at("config"));
  }
  const at::Tensor& operator[](const std::string& name) const { return file.tensors.at(name); }
  bool has(const std::string& name) const { return file.tensors.count(name) != 0; }

  text_transformer::TextTransformerOptions options() const {
    auto options = text_transformer_options(folder.path());
    options.dropout = options.attention_dropout = 0;
    return options;
  }
  static text_transformer::TextTransformerOptions text_transformer_options(
      const std::filesystem::path& folder) {
    text_transformer::TextTransformerOptions options;
    read_fields(Config::from_text(format("weights = \"{}\"", folder.string()), "recipe"),
                [&](FieldVisitor& v) { options.visit(v); });
    return options;
  }
  /// The model with its recorded weights, in double.
  text_transformer::TextTransformer model(TextHead head, bool pairs = false) const {
    TextModelInput input;
    input.vocabulary = 61;
    input.length = 12;
    input.head = head;
    input.sentence_pairs = pairs;
    const auto chosen = options();
    chosen.validate(input);
    text_transformer::TextTransformer model(chosen, input);
    model->to(at::kDouble);
    model->load_pretrained();
    model->eval();
    return model;
  }
  nn::PackedTokens tokens(bool segments) const {
    return nn::pack_tokens((*this)["ids"], (*this)["lengths"], segments ? (*this)["segments"] : at::Tensor());
  }

  TensorFile file;
  std::map<std::string, at::Tensor> weights;
  TempDir folder;
};

inline double distance(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

}  // namespace stoa::test
