#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "stoa/base/options.h"
#include "stoa/data/batch.h"
#include "stoa/data/text/glue.h"
#include "stoa/data/text/sequence.h"

namespace stoa {

enum class TextFormat { kCola, kSst2, kMrpc, kStsb, kQqp, kMnli, kQnli, kRte, kWnli, kTable };

/// The sentences: the table [data] of text classification.
struct TextRowsOptions {
  TextFormat format = TextFormat::kTable;
  std::string path;           ///< folder of the files; a relative one is also looked for below $STOA_DATA
  std::string tokenizer;      ///< as load_tokenizer() takes it; empty: beside the model's weights
  std::int64_t length = 128;  ///< tokens of the longest sequence; the rest is cut off
  bool skip_bad = false;      ///< rows that do not fit are left out and counted
  std::string train = "train.tsv", dev = "dev.tsv", test;  ///< files of a table; no test file if empty
  TextTableForm table;                                     ///< of those files

  void visit(FieldVisitor& v);
  void validate() const;

  /// The GLUE task; nothing for a table.
  const GlueLayout* glue() const;
  /// Columns and classes of training and development rows.
  TextTableForm form() const;
};

/// A set of sentences with labels, tokenised when it is first needed.
class TextRows {
 public:
  /// `name` is what tells its metrics from those of other sets; empty for the first.
  TextRows(std::string name, LabelledTexts texts, const TextTableForm& form)
      : name_(std::move(name)), texts_(std::move(texts)), pair_(form.pair()), numbers_(form.numbers) {}

  const std::string& name() const { return name_; }
  std::int64_t size() const { return std::ssize(texts_.rows); }
  const std::vector<LabelledText>& rows() const { return texts_.rows; }
  const std::vector<std::string>& classes() const { return texts_.classes; }

  /// Tokenises all rows, in parallel, unless that was done.
  void tokenize(const Tokenizer& tokenizer, std::int64_t length);
  /// Numbers of the rows, shorter ones first: batches of like lengths.
  std::vector<std::int64_t> by_length() const;
  /// As sequence_batch() makes it, with "labels" [batch], int64 classes or fp32 values. tokenize() was
  /// called.
  Batch batch(const std::vector<std::int64_t>& numbers) const;

 private:
  std::string name_;
  LabelledTexts texts_;
  bool pair_, numbers_;
  std::vector<TokenSequence> sequences_;
  std::int32_t pad_ = 0;
};

/// Training and development rows as the options name them. Throws DataError.
struct TextSplits {
  TextRows train;
  std::vector<TextRows> dev;
};
TextSplits open_text_rows(const TextRowsOptions& options);

/// Rows without labels whose answers are handed in: their set, and the file's name. Throws DataError where
/// there are none.
struct TestRows {
  std::string file;
  TextRows rows;
};
std::vector<TestRows> open_test_rows(const TextRowsOptions& options);

}  // namespace stoa
