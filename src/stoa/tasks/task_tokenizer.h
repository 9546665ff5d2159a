#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "stoa/base/json.h"
#include "stoa/data/text/tokenizer.h"
#include "stoa/train/task.h"

namespace stoa {

/// The tokenizer of a text task: of a run that is loaded the one it was trained with, which its folder keeps;
/// otherwise what the recipe names, or what lies beside the model's pre-trained weights. Read when it is
/// first needed.
class TaskTokenizer {
 public:
  /// `place` is the recipe's `data.tokenizer`, `weights` the place of the model's pre-trained weights; either
  /// may be empty. A relative place is also looked for below $STOA_DATA. `vocabulary` is the number of tokens
  /// where only sizes are asked for; 0 takes BERT's.
  TaskTokenizer(const std::string& place, const std::string& weights, std::int64_t vocabulary,
                const BuildContext& context);

  /// Throws ConfigError where none is named, what load_tokenizer() throws, and DataError where it is not the
  /// one that the run was trained with.
  const std::shared_ptr<const Tokenizer>& get();
  /// Number of tokens: of the tokenizer once it was read, of the loaded run's, else what was given for sizes.
  std::int64_t vocabulary() const;

  /// `kind`, `vocabulary`, `fingerprint`, `place`
  Json metadata() const;
  /// Writes it where a later TaskTokenizer with `context.files` = `folder` finds it.
  void save(const std::filesystem::path& folder);

 private:
  std::filesystem::path place_;
  std::int64_t vocabulary_;
  Json known_;  // metadata() of the run that is loaded, or null
  std::shared_ptr<const Tokenizer> tokenizer_;
};

}  // namespace stoa
