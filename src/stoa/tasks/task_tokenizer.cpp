#include "stoa/tasks/task_tokenizer.h"

#include <cstdlib>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/tasks/text_recipe.h"

namespace stoa {

namespace fs = std::filesystem;

namespace {

constexpr const char* kFolder = "tokenizer";  // within the files of a run
constexpr const char* kBytes = "bytes";       // has no file

fs::path find_place(const fs::path& place) {
  if (place == kBytes || fs::exists(place)) return place;
  if (const char* const root = std::getenv("STOA_DATA"); root != nullptr && place.is_relative())
    if (auto below = fs::path(root) / place; fs::exists(below)) return below;
  throw DataError(
      format("the tokenizer {} does not exist; correct `data.tokenizer` or, where that is empty, "
             "`model.weights`, or set STOA_DATA to the folder that holds it",
             place.string()));
}

/// The folder in which weights lie, which may hold a tokenizer too.
fs::path folder_of(const fs::path& weights) {
  return weights.extension() == ".safetensors" ? weights.parent_path() : weights;
}

}  // namespace

TaskTokenizer::TaskTokenizer(const std::string& place, const std::string& weights, std::int64_t vocabulary,
                             const BuildContext& context)
    : vocabulary_(vocabulary > 0 ? vocabulary : kUsualVocabulary) {
  if (context.metadata.is_object()) known_ = context.metadata.value("tokenizer", Json());
  const fs::path kept = context.files / kFolder;
  if (!context.files.empty() && fs::exists(kept))
    place_ = kept;
  else if (!place.empty())
    place_ = place;
  else if (!weights.empty())
    place_ = folder_of(weights);
  else if (known_.is_object())
    place_ = known_.value("place", "");
  if (place_ == kBytes) get();  // it has no file that could be missing
}

const std::shared_ptr<const Tokenizer>& TaskTokenizer::get() {
  if (tokenizer_) return tokenizer_;
  if (place_.empty())
    throw ConfigError(
        "`data.tokenizer` is not set; name a vocab.txt, a tokenizer.json, a SentencePiece .model, a folder "
        "that holds one, or \"bytes\"");
  place_ = find_place(place_);
  auto tokenizer = load_tokenizer(place_);
  if (known_.is_object() && known_.value("fingerprint", "") != tokenizer->fingerprint())
    throw DataError(
        format("{}: this is not the tokenizer that the run was trained with (fingerprint {}, needed is {})",
               place_.string(), tokenizer->fingerprint(), known_.value("fingerprint", "")));
  tokenizer_ = std::move(tokenizer);
  return tokenizer_;
}

std::int64_t TaskTokenizer::vocabulary() const {
  if (tokenizer_) return tokenizer_->size();
  return known_.is_object() ? known_.value("vocabulary", vocabulary_) : vocabulary_;
}

Json TaskTokenizer::metadata() const {
  if (!tokenizer_) return known_;
  return {{"kind", tokenizer_->kind()},
          {"vocabulary", tokenizer_->size()},
          {"fingerprint", tokenizer_->fingerprint()},
          {"place", place_ == kBytes ? place_.string() : fs::absolute(place_).lexically_normal().string()}};
}

void TaskTokenizer::save(const fs::path& folder) {
  if (get()->kind() == kBytes) return;
  fs::create_directories(folder / kFolder);
  tokenizer_->save(folder / kFolder);
}

}  // namespace stoa
