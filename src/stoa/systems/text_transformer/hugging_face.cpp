#include "stoa/systems/text_transformer/hugging_face.h"

#include <ATen/ATen.h>
#include <torch/types.h>

#include <set>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/progress.h"
#include "stoa/base/text.h"
#include "stoa/systems/text_transformer/hugging_face_names.h"
#include "stoa/systems/text_transformer/model.h"
#include "stoa/tensor/safetensors.h"
#include "stoa/tensor/shape.h"

namespace stoa::text_transformer {

namespace fs = std::filesystem;

namespace {

using Tensors = std::map<std::string, at::Tensor>;

/// Files of the shards that the index names.
std::set<std::string> shard_names(const fs::path& index) {
  const Json json = read_json(index);
  const auto map = json.is_object() ? json.value("weight_map", Json()) : Json();
  if (!map.is_object() || map.empty())
    throw DataError(
        format("{}: `weight_map` is missing or empty; it names the file of each tensor", index.string()));
  std::set<std::string> names;
  for (const auto& [tensor, file] : map.items()) {
    if (!file.is_string() || fs::path(file.get<std::string>()).filename() != file.get<std::string>())
      throw DataError(
          format("{}: the file of tensor `{}` must be a name within the folder", index.string(), tensor));
    names.insert(file);
  }
  return names;
}

/// All tensors of a folder, mapped.
Tensors stored_tensors(const fs::path& folder) {
  const auto whole = folder / "model.safetensors", index = folder / "model.safetensors.index.json";
  if (fs::exists(whole)) return map_safetensors(whole).tensors;
  if (!fs::exists(index))
    throw DataError(format("{}: there is neither model.safetensors nor model.safetensors.index.json{}",
                           folder.string(),
                           fs::exists(folder / "pytorch_model.bin")
                               ? "; save the model again in Python with safe_serialization=True"
                               : ""));
  Tensors all;
  for (const auto& name : shard_names(index)) {
    if (!fs::exists(folder / name))
      throw DataError(format("{}: shard {} is missing", index.string(), (folder / name).string()));
    all.merge(map_safetensors(folder / name).tensors);
  }
  return all;
}

/// Takes tensors out by any of the names they go by.
class Taker {
 public:
  Taker(Tensors tensors, Preset family, std::string source)
      : tensors_(std::move(tensors)), family_(family), source_(std::move(source)) {}

  /// The tensor, or an undefined one.
  at::Tensor take(const std::string& name) {
    for (const auto& form : {name, older(name)})
      for (const auto& full : {name_prefix(family_) + form, form})
        if (const auto found = tensors_.find(full); found != tensors_.end()) {
          const auto tensor = found->second;
          tensors_.erase(found);
          return tensor;
        }
    return {};
  }
  /// Refuses what is left and not known to be of no use.
  void finish() const {
    const auto prefix = name_prefix(family_);
    for (const auto& [full, tensor] : tensors_) {
      const auto name = full.starts_with(prefix) ? full.substr(prefix.size()) : full;
      if (!is_skipped(family_, name))
        throw DataError(
            format("{}: tensor `{}` has no place in a model of config.json's sizes; the files are of "
                   "another model",
                   source_, full));
    }
  }

 private:
  /// LayerNorm's weights as TensorFlow called them.
  static std::string older(std::string name) {
    const auto at = name.find("LayerNorm.");
    if (at == std::string::npos) return name;
    return name.substr(0, at + 10) + (name.ends_with("weight") ? "gamma" : "beta");
  }
  Tensors tensors_;
  Preset family_;
  std::string source_;
};

/// What stands in the files as one tensor of ours; undefined where all of it is missing.
at::Tensor assemble(const TensorName& name, Taker& taker, const std::string& source) {
  std::vector<at::Tensor> parts;
  for (const auto& theirs : name.theirs) {
    auto part = taker.take(theirs);
    if (!part.defined() && parts.empty()) return {};
    if (!part.defined()) throw DataError(format("{}: tensor `{}` is missing", source, theirs));
    if (name.turned && part.dim() != 2)
      throw DataError(format("{}: tensor `{}` has shape {}, a matrix is needed", source, theirs,
                             shape_text(part.sizes())));
    parts.push_back(name.turned ? part.t() : part);
    if (part.dim() == 0 || part.sizes().slice(1) != parts.front().sizes().slice(1))
      if (name.theirs.size() > 1)
        throw DataError(format("{}: tensor `{}` has shape {}, which does not go with `{}`", source, theirs,
                               shape_text(part.sizes()), name.theirs.front()));
  }
  return parts.size() == 1 ? parts.front() : at::cat(parts);
}

/// The family whose form a model of these options has.
Preset family_of(const TextTransformerOptions& o, const TextModelInput& input) {
  const bool plain = o.mixture_layers == 0 && !o.share_attention && !o.share_mlp && !o.share_norms &&
                     o.embedding_width() == o.dim;
  const bool shared = o.mixture_layers == 0 && o.share_attention && o.share_mlp && o.share_norms &&
                      o.embedding_width() != o.dim;
  const bool causal = o.causal(input.head);
  if (o.linformer > 0)
    throw ConfigError(
        "this model attends through Linformer's projections (`model.linformer`), for which Hugging Face's "
        "transformers have no form; export it without --form hugging_face");
  const bool post = o.norm == NormPlace::kPost && o.embedding_norm && !causal;
  if (plain && post && o.segments > 0 && o.pooler == ops::Activation::kNone) return Preset::kBert;
  if (shared && post && o.segments > 0 && o.pooler == ops::Activation::kNone) return Preset::kAlbert;
  if (plain && post && o.segments == 0 && o.pooler == ops::Activation::kRelu && !input.sentence_pairs &&
      o.norm_eps == 1e-12)
    return Preset::kDistilBert;
  if (plain && o.norm == NormPlace::kPre && !o.embedding_norm && o.segments == 0 && causal)
    return Preset::kGpt2;
  throw ConfigError(
      "this model has no form that Hugging Face's transformers know: its norms, shared layers, mixtures or "
      "embeddings are not those of BERT, DistilBERT, ALBERT or GPT-2; export it without --form hugging_face");
}

}  // namespace

std::vector<std::string> read_tensors(const fs::path& folder, const TextTransformerOptions& options,
                                      const Tensors& own) {
  const auto family = read_family(folder);
  const auto source = folder.string();
  Taker taker(stored_tensors(folder), family, source);
  std::vector<std::string> drawn;
  at::NoGradGuard no_grad;
  for (const auto& name : tensor_names(family, options)) {
    const auto target = own.find(name.ours);
    const auto stored = assemble(name, taker, source);
    if (target == own.end()) continue;  // a head that is not asked for
    const bool fits = stored.defined() && stored.sizes() == target->second.sizes();
    if (!fits && name.head) {
      drawn.push_back(name.ours);
      continue;
    }
    if (!stored.defined()) throw DataError(format("{}: tensor `{}` is missing", source, name.theirs.front()));
    if (!fits)
      throw DataError(format("{}: tensor `{}` has shape {}, config.json and the recipe make it {}", source,
                             name.theirs.front(), shape_text(stored.sizes()),
                             shape_text(target->second.sizes())));
    target->second.copy_(stored);
  }
  taker.finish();
  return drawn;
}

void write_pretrained(const fs::path& folder, const TextTransformerOptions& options,
                      const TextModelInput& input, const Tensors& own) {
  const auto family = family_of(options, input);
  Tensors theirs;
  for (const auto& name : tensor_names(family, options)) {
    const auto found = own.find(name.ours);
    if (found == own.end()) continue;
    const bool bare =
        name.head && name.theirs.front().find("pooler") != 0;  // BERT's pooler is within the model
    const auto prefix = bare ? "" : name_prefix(family);
    const auto parts =
        found->second.detach().to(at::kCPU).chunk(static_cast<std::int64_t>(name.theirs.size()));
    for (std::size_t i = 0; i < parts.size(); ++i)
      theirs[prefix + name.theirs[i]] =
          (name.turned ? parts[i].t() : parts[i]).clone(at::MemoryFormat::Contiguous);
  }
  save_safetensors(folder / "model.safetensors", {theirs, {{"format", "pt"}}});
  write_config(folder, family, options, input);
}

void TextTransformerImpl::load_pretrained() {
  if (options_.weights.empty()) return;
  if (!fs::is_directory(options_.weights))
    throw ConfigError(format("`model.weights`: there is no folder {}", options_.weights));
  const auto drawn = read_tensors(options_.weights, options_, nn::module_state(*this));
  log_info(format("weights of {}{}", options_.weights,
                  drawn.empty() ? "" : format("; newly drawn: {}", join(drawn, ", "))));
}

void TextTransformerImpl::save_pretrained(const fs::path& folder) const {
  write_pretrained(folder, options_, input_, nn::module_state(*this));
}

}  // namespace stoa::text_transformer
