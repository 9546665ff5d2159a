#include "stoa/data/text/options.h"

#include "stoa/base/errors.h"
#include "stoa/base/format.h"

namespace stoa {
namespace {

void require(bool holds, const char* field, const std::string& found, const char* needed) {
  if (!holds) throw ConfigError(format("`data.{}` is {}; {}", field, found, needed));
}

void require(bool holds, const char* field, double found, const char* needed) {
  require(holds, field, format("{}", found), needed);
}

bool is_share(double value) {
  return value >= 0 && value <= 1;
}

}  // namespace

void MaskingOptions::visit(FieldVisitor& v) {
  v.choice("rule", rule,
           {{"token", MaskingRule::kToken},
            {"whole_word", MaskingRule::kWholeWord},
            {"n_gram", MaskingRule::kNGram}},
           "what is chosen together: single tokens, all tokens of a word, or runs of words");
  v.field("share", share,
          "share of a sequence's tokens that are asked for, half rounded to even, at least one");
  v.field("most", most, "at most so many tokens a sequence; 0 sets no bound");
  v.field("hidden", hidden, "share of these that read as the mask token");
  v.field("random", random,
          "share of these that read as any token of the vocabulary; the others stay as they are");
  v.when(rule == MaskingRule::kNGram, "rule = \"n_gram\"", [&] {
    v.field("longest_gram", longest_gram, "words of the longest run; a run of n words has a chance of 1/n");
  });
}

void MaskingOptions::validate() const {
  require(share > 0 && share <= 1, "masking.share", share, "it must be above 0, at most 1");
  require(most >= 0, "masking.most", static_cast<double>(most), "it must be 0 (no bound) or more");
  require(is_share(hidden), "masking.hidden", hidden, "it must be a share, 0 to 1");
  require(is_share(random) && hidden + random <= 1 + 1e-9, "masking.random", random,
          "it must be a share, 0 to 1, and together with `hidden` at most 1");
  require(longest_gram >= 1 && longest_gram <= 64, "masking.longest_gram", static_cast<double>(longest_gram),
          "it must be within 1 to 64");
}

void TextDataOptions::visit(FieldVisitor& v) {
  v.field("train", train,
          "files and folders of text, or one folder of `stoa data prepare text` or PREFIX of a Megatron pair "
          "(.bin, .idx); relative places are also looked for below $STOA_DATA");
  v.field("eval", eval, "the same for evaluation; empty to hold out a share of the training text");
  v.field("eval_share", eval_share,
          "without `eval`: share of the documents that is held out, chosen by a hash; where there is one "
          "document, "
          "the last part of it");
  v.field("tokenizer", tokenizer,
          "\"bytes\", a vocab.txt, tokenizer.json or SentencePiece model, or a folder with one; empty for "
          "that of "
          "the prepared folder");
  v.choice(
      "sentences", rules.sentences,
      {{"lines", SentenceRule::kLines}, {"split", SentenceRule::kSplit}, {"whole", SentenceRule::kWhole}},
      "a line is a sentence, or a paragraph that is split into sentences, blank lines part documents; or the "
      "text is one document, kept with its line breaks");
  v.field("key", rules.key, "of JSON lines: the key of the text");
  v.choice("broken_utf8", rules.broken, {{"replace", BrokenUtf8::kReplace}, {"refuse", BrokenUtf8::kRefuse}},
           "text that is not UTF-8 reads as U+FFFD, or is refused");
  v.field("length", length, "tokens of a sequence, special ones included");
  if (objective == TextObjective::kMasked) {
    v.choice(
        "pairs", pairs,
        {{"none", PairTask::kNone},
         {"next_sentence", PairTask::kNextSentence},
         {"sentence_order", PairTask::kSentenceOrder}},
        "one segment; two of which the second follows or is from another document; two in order or swapped");
    v.field("short_share", short_share, "share of the sequences that aim at a random shorter length");
    v.group("masking", masking, "which tokens are asked for");
  }
}

void TextDataOptions::validate() const {
  require(!train.empty(), "train", "[]", "name the text to train on");
  for (const auto* places : {&train, &eval})
    for (const std::string& place : *places)
      require(!place.empty(), places == &train ? "train" : "eval", "\"\"", "a place has no name");
  require(!eval.empty() || (eval_share > 0 && eval_share < 1), "eval_share", eval_share,
          "it must be between 0 and 1 where `data.eval` names nothing");
  require(!rules.key.empty(), "key", "\"\"", "name the key that holds the text");
  const bool masked = objective == TextObjective::kMasked;
  const std::int64_t least = !masked ? 1 : pairs == PairTask::kNone ? 3 : 5;
  require(length >= least && length <= (std::int64_t{1} << 24), "length", static_cast<double>(length),
          "it must hold the special tokens and one of each segment, and be at most 16,777,216");
  if (!masked) return;
  require(is_share(short_share), "short_share", short_share, "it must be a share, 0 to 1");
  masking.validate();
}

}  // namespace stoa
