#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "stoa/systems/text_transformer/config.h"

// Names of tensors and config.json; internal to hugging_face*.cpp.
namespace stoa::text_transformer {

/// One tensor of ours and where it is in Hugging Face's files.
struct TensorName {
  std::string ours;
  std::vector<std::string> theirs;  ///< without the model's name; several are stacked along dimension 0
  bool turned = false;              ///< theirs is transposed (GPT-2 keeps [in, out])
  bool head = false;                ///< files may lack it; it has no model's name in front
};

/// The tensors of a family's models with any head.
std::vector<TensorName> tensor_names(Preset family, const TextTransformerOptions& options);

/// What stands in front of the names of a family's encoder.
std::string name_prefix(Preset family);

/// Whether a name is known to be of no use here: heads, copies of tied weights, constant buffers.
bool is_skipped(Preset family, const std::string& name);

std::string family_name(Preset family);
void write_config(const std::filesystem::path& folder, Preset family, const TextTransformerOptions& options,
                  const TextModelInput& input);

}  // namespace stoa::text_transformer
