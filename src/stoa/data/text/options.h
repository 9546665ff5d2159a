#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "stoa/base/options.h"
#include "stoa/data/text/documents.h"

namespace stoa {

/// What is asked of a sequence.
enum class TextObjective {
  kMasked,  ///< which tokens stood at hidden places
  kCausal,  ///< which token comes next
};

/// What is hidden together.
enum class MaskingRule { kToken, kWholeWord, kNGram };

/// What the two segments of a sequence are.
enum class PairTask {
  kNone,           ///< there is one segment
  kNextSentence,   ///< the second follows in the text, or is from another document (BERT)
  kSentenceOrder,  ///< both follow one another, in this order or swapped (ALBERT)
};

/// Which tokens are asked for (bamboo.md 2.12).
struct MaskingOptions {
  MaskingRule rule = MaskingRule::kToken;
  double share = 0.15;            ///< of a sequence's tokens
  std::int64_t most = 0;          ///< targets a sequence at most; 0 sets no bound
  double hidden = 0.8;            ///< of the targets, that read as the mask token
  double random = 0.1;            ///< of the targets, that read as any token; the others are left as they are
  std::int64_t longest_gram = 3;  ///< words, with kNGram

  void visit(FieldVisitor& v);
  void validate() const;  ///< throws ConfigError naming the field
};

/// Where text comes from and how it is cut into sequences: the table [data].
struct TextDataOptions {
  std::vector<std::string> train;  ///< files and folders of text, or one prepared folder or Megatron prefix
  std::vector<std::string> eval;   ///< the same; empty to hold out a share of the training text
  double eval_share = 0.05;        ///< of the documents; of the sentences where there is one document
  std::string tokenizer;           ///< empty for that of the prepared folder
  TextRules rules;                 ///< of text that is not prepared
  std::int64_t length = 128;       ///< tokens of a sequence, special ones included
  TextObjective objective = TextObjective::kMasked;  ///< set by the task, not by recipes
  PairTask pairs = PairTask::kNone;
  double short_share = 0.1;  ///< of the sequences, that aim at a shorter, random length
  MaskingOptions masking;

  void visit(FieldVisitor& v);
  void validate() const;  ///< throws ConfigError naming the field
};

}  // namespace stoa
