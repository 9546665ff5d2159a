#include "stoa/tasks/text_rows.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/progress.h"
#include "stoa/data/find.h"
#include "stoa/data/parallel.h"

namespace stoa {

namespace fs = std::filesystem;

namespace {

constexpr std::int64_t kShortest = 5;      // tokens: one of each sentence, and the marks
constexpr std::int64_t kRowsAtOnce = 256;  // that a thread tokenises

TextRows read_rows(const std::string& name, const fs::path& file, const TextTableForm& form) {
  auto texts = read_labelled_texts(file, form);
  if (texts.skipped > 0)
    log_warning(format("{}: {} of {} rows were left out, the first for: {}", file.string(), texts.skipped,
                       texts.skipped + std::ssize(texts.rows), texts.skipped_for));
  return {name, std::move(texts), form};
}

fs::path table_file(const fs::path& folder, const std::string& name, const char* key) {
  for (const fs::path& file : {folder / name, folder / (name + ".gz")})
    if (fs::is_regular_file(file)) return file;
  throw DataError(format("{}: there is no such file, nor {}.gz; correct `data.path` or `data.{}`",
                         (folder / name).string(), name, key));
}

}  // namespace

void TextRowsOptions::visit(FieldVisitor& v) {
  v.choice("format", format,
           {{"cola", TextFormat::kCola},
            {"sst2", TextFormat::kSst2},
            {"mrpc", TextFormat::kMrpc},
            {"stsb", TextFormat::kStsb},
            {"qqp", TextFormat::kQqp},
            {"mnli", TextFormat::kMnli},
            {"qnli", TextFormat::kQnli},
            {"rte", TextFormat::kRte},
            {"wnli", TextFormat::kWnli},
            {"table", TextFormat::kTable}},
           "a task of GLUE, whose columns and classes are known; or a table of your own");
  v.field("path", path, "folder of the files; a relative one is also looked for below $STOA_DATA");
  v.field("tokenizer", tokenizer,
          "vocab.txt, tokenizer.json, SentencePiece .model, a folder with one, or \"bytes\"; empty takes the "
          "one beside the model's weights");
  v.field("length", length, "tokens of the longest sequence; what is longer is cut off");
  v.field("skip_bad", skip_bad, "rows that do not fit are counted and left out instead of refused");
  v.when(format == TextFormat::kTable, "format = \"table\"", [&] {
    v.field("train", train, "file of the training rows: tab-separated, or JSON lines (.jsonl); plain or .gz");
    v.field("dev", dev, "file of the rows to evaluate on");
    v.field("test", test, "file of rows without labels, for `stoa eval --save-predictions`; empty for none");
    v.field("columns", table.columns, "names of all columns, for files whose first line does not name them");
    v.field("first", table.first, "column of the sentence");
    v.field("second", table.second, "column of a second sentence; empty for none");
    v.field("label", table.label, "column of the label");
    v.field("numbers", table.numbers, "labels are numbers to be predicted, not classes");
    v.field("classes", table.classes,
            "labels in the order of their classes; empty takes those of the training rows, sorted");
  });
}

void TextRowsOptions::validate() const {
  if (length < kShortest)
    throw ConfigError(stoa::format("`data.length` is {}; it must be at least {}", length, kShortest));
  if (path.empty()) throw ConfigError("`data.path` is not set; name the folder of the data");
  if (glue() != nullptr) return;
  for (const auto& [key, value] :
       {std::pair{"train", &train}, {"dev", &dev}, {"first", &table.first}, {"label", &table.label}})
    if (value->empty()) throw ConfigError(stoa::format("`data.{}` is empty; a name is needed", key));
  if (table.numbers && !table.classes.empty())
    throw ConfigError("`data.classes` is set, but with `data.numbers` there are none; leave one of them out");
  if (table.classes.size() == 1) throw ConfigError("`data.classes` has one class; at least two are needed");
  auto sorted = table.classes;
  std::ranges::sort(sorted);
  if (const auto twice = std::ranges::adjacent_find(sorted); twice != sorted.end())
    throw ConfigError(stoa::format("`data.classes` names \"{}\" twice", *twice));
}

const GlueLayout* TextRowsOptions::glue() const {
  static_assert(static_cast<int>(TextFormat::kWnli) == static_cast<int>(GlueTask::kWnli));
  return format == TextFormat::kTable ? nullptr : &glue_layout(static_cast<GlueTask>(format));
}

TextTableForm TextRowsOptions::form() const {
  auto result = glue() != nullptr ? glue()->form : table;
  result.skip_bad = result.skip_bad || skip_bad;
  return result;
}

void TextRows::tokenize(const Tokenizer& tokenizer, std::int64_t length) {
  if (!sequences_.empty()) return;
  const auto marks = sequence_marks(tokenizer);
  pad_ = marks.pad;
  std::vector<TokenSequence> sequences(texts_.rows.size());
  const auto parts = (size() + kRowsAtOnce - 1) / kRowsAtOnce;
  for_each_parallel(parts, [&](std::int64_t part) {
    std::vector<std::int32_t> first, second;
    for (auto i = part * kRowsAtOnce; i < std::min(size(), (part + 1) * kRowsAtOnce); ++i) {
      const auto& row = texts_.rows[static_cast<std::size_t>(i)];
      first.clear();
      second.clear();
      tokenizer.encode(row.first, first);
      if (pair_) tokenizer.encode(row.second, second);
      sequences[static_cast<std::size_t>(i)] =
          pair_ ? join_sequence(marks, first, second, length) : join_sequence(marks, first, length);
    }
  });
  sequences_ = std::move(sequences);
}

std::vector<std::int64_t> TextRows::by_length() const {
  std::vector<std::int64_t> numbers(static_cast<std::size_t>(size()));
  std::iota(numbers.begin(), numbers.end(), 0);
  std::ranges::stable_sort(
      numbers, {}, [&](std::int64_t i) { return sequences_.at(static_cast<std::size_t>(i)).length(); });
  return numbers;
}

Batch TextRows::batch(const std::vector<std::int64_t>& numbers) const {
  std::vector<const TokenSequence*> sequences;
  auto labels = at::empty({std::ssize(numbers)}, at::kDouble);
  for (std::int64_t i = 0; i < std::ssize(numbers); ++i) {
    const auto row = static_cast<std::size_t>(numbers[static_cast<std::size_t>(i)]);
    sequences.push_back(&sequences_.at(row));
    labels.mutable_data_ptr<double>()[i] = texts_.rows[row].label;
  }
  Batch batch = sequence_batch(sequences, pad_);
  batch.tensors["labels"] = labels.to(numbers_ ? at::kFloat : at::kLong);
  return batch;
}

TextSplits open_text_rows(const TextRowsOptions& options) {
  const fs::path folder = find_data(options.path);
  auto form = options.form();
  if (const auto* const glue = options.glue()) {
    TextSplits splits{read_rows("", find_glue_file(folder, *glue, "train"), form), {}};
    for (const auto& file : glue->dev)
      splits.dev.push_back(read_rows(file.as, find_glue_file(folder, *glue, file.name), form));
    return splits;
  }
  const auto dev = table_file(folder, options.dev, "dev");
  TextSplits splits{read_rows("", table_file(folder, options.train, "train"), form), {}};
  if (!form.numbers) form.classes = splits.train.classes();
  if (!form.numbers && form.classes.size() < 2)
    throw DataError(format("{}: all rows are of the class `{}`; at least two classes are needed",
                           (folder / options.train).string(), form.classes.front()));
  splits.dev.push_back(read_rows("", dev, form));
  return splits;
}

std::vector<TestRows> open_test_rows(const TextRowsOptions& options) {
  const fs::path folder = find_data(options.path);
  std::vector<TestRows> found;
  if (const auto* const glue = options.glue()) {
    for (const auto& file : glue->test)
      if (has_glue_file(folder, *glue, file.name))
        found.push_back(
            {file.as + ".tsv", read_rows(file.as, find_glue_file(folder, *glue, file.name), glue->tests)});
    if (found.empty()) find_glue_file(folder, *glue, glue->test.front().name);
    return found;
  }
  if (options.test.empty())
    throw ConfigError("there is nothing to predict for: `data.test` names no file of rows without labels");
  auto form = options.form();
  form.label.clear();
  form.skip_bad = false;  // each row has its line
  found.push_back({"predictions.tsv", read_rows("", table_file(folder, options.test, "test"), form)});
  return found;
}

}  // namespace stoa
