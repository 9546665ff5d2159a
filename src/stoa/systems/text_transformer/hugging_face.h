#pragma once

#include <filesystem>
#include <map>
#include <string>

#include <ATen/core/Tensor.h>

#include "stoa/base/json.h"
#include "stoa/systems/text_transformer/config.h"

// Weights of BERT, DistilBERT, ALBERT and GPT-2 in Hugging Face's form: config.json and safetensors, in one
// file or in shards, with or without the model's name in front of tensors, LayerNorm's weights by either of
// their two names.
namespace stoa::text_transformer {

/// Family of the weights in a folder, as its config.json says. Throws IoError, or DataError for an
/// architecture that is none of the four.
Preset read_family(const std::filesystem::path& folder);

/// Sets sizes, dropout and function from config.json; what it leaves open is as the family's preset. Throws
/// DataError naming the key that is wrong or asks for what there is not.
void read_shape(const std::filesystem::path& folder, TextTransformerOptions& options);

/// Reads the tensors of a folder into those of `own` that have a counterpart there, in place. Heads that the
/// files lack stay as they are, and their names are returned; other heads are skipped. Throws IoError, and
/// DataError naming the tensor that is missing, misshapen or unknown, or the shard.
std::vector<std::string> read_tensors(const std::filesystem::path& folder,
                                      const TextTransformerOptions& options,
                                      const std::map<std::string, at::Tensor>& own);

/// Writes config.json and model.safetensors. Throws ConfigError where the model's shape is none of the four.
void write_pretrained(const std::filesystem::path& folder, const TextTransformerOptions& options,
                      const TextModelInput& input, const std::map<std::string, at::Tensor>& own);

}  // namespace stoa::text_transformer
