// How embedding tables are stored: what a checkpoint holds of them, what is refused, and warm starts.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <set>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/nn/embedding_serving.h"
#include "stoa/nn/embedding_state.h"
#include "stoa/tensor/shape.h"

namespace stoa::nn {

namespace {

constexpr const char* kStepsName = "tables.steps";
constexpr const char* kUpdateName = "tables.update";  // lr, l2, beta1, beta2, eps, mode of absent rows
constexpr const char* kNormsName = "tables.gradient_norms";
constexpr const char* kVocabularyName = "tables.vocabulary";  // the bytes of a hash
std::string rows_name(std::int64_t field) {
  return format("tables.rows.{}", field);
}

at::Tensor bytes_of(const std::string& text) {
  const auto bytes = at::empty({std::ssize(text)}, at::kByte);
  std::ranges::copy(text, bytes.mutable_data_ptr<std::uint8_t>());
  return bytes;
}

std::string text_of(const at::Tensor& bytes) {
  const auto values = bytes.to(at::kByte).contiguous();
  const auto* const begin = values.const_data_ptr<std::uint8_t>();
  return {begin, begin + values.numel()};
}

/// Refuses a stored tensor that does not fit in `target`'s place; with `fewer`, less rows do.
void check_stored(const std::map<std::string, at::Tensor>& stored, const std::string& name,
                  const at::Tensor& target, bool fewer, const std::string& source) {
  const auto found = stored.find(name);
  const auto fail = [&](const std::string& fault) {
    throw DataError(
        format("{}: tensor `{}` {}; the file belongs to tables of other fields, vocabularies or widths",
               source, name, fault));
  };
  if (found == stored.end()) fail("is missing");
  const auto& tensor = found->second;
  const bool fits = tensor.sizes() == target.sizes() ||
                    (fewer && tensor.dim() == 2 && target.dim() == 2 && tensor.size(0) <= target.size(0) &&
                     tensor.size(1) == target.size(1));
  if (!fits)
    fail(format("has shape {}, {}{} is needed", shape_text(tensor.sizes()), shape_text(target.sizes()),
                fewer ? " with as many rows or fewer" : ""));
  if (tensor.scalar_type() != target.scalar_type())
    fail(format("is of type {}, {} is needed", at::toString(tensor.scalar_type()),
                at::toString(target.scalar_type())));
}

/// Refuses rows that say they have had steps which have not been.
void check_last_steps(const at::Tensor& rows, std::int64_t steps, const ops::RowFormat& format,
                      const std::string& name, const std::string& source) {
  const auto last = rows.contiguous().view(at::kInt).select(1, format.last_step());
  const auto [least, most] = last.aminmax();
  if (least.item<std::int64_t>() < 0 || most.item<std::int64_t>() > steps)
    throw DataError(
        stoa::format("{}: tensor `{}` has rows at steps {} to {}, but {} steps have been made; the file "
                     "is damaged or of another program",
                     source, name, least.item<std::int64_t>(), most.item<std::int64_t>(), steps));
}

at::Tensor update_tensor(const EmbeddingOptions& o) {
  return at::tensor({o.lr, o.l2, o.betas[0], o.betas[1], o.eps, static_cast<double>(o.absent)}, at::kDouble);
}

/// Options that make the updates which stored rows have put off.
EmbeddingOptions stored_update(const std::map<std::string, at::Tensor>& stored, EmbeddingOptions options,
                               const std::string& source) {
  check_stored(stored, kUpdateName, update_tensor(options), false, source);
  const auto tensor = stored.at(kUpdateName).contiguous();
  const auto* const numbers = tensor.const_data_ptr<double>();
  options.lr = numbers[0];
  options.l2 = numbers[1];
  options.betas = {numbers[2], numbers[3]};
  options.eps = numbers[4];
  const double mode = numbers[5];
  if (!(mode >= 0 && mode <= static_cast<double>(AbsentRows::kLazy)))
    throw DataError(format("{}: tensor `{}` names mode {}, which there is not", source, kUpdateName, mode));
  options.absent = static_cast<AbsentRows>(static_cast<int>(mode));
  options.clip = RowClip::kNone;
  try {
    options.validate();
  } catch (const ConfigError& error) {
    throw DataError(format("{}: tensor `{}`: {}", source, kUpdateName, error.what()));
  }
  return options;
}

}  // namespace

std::map<std::string, at::Tensor> EmbeddingTables::state() const {
  const auto& s = drawn();
  if (!s.served.empty()) return served_state(s.served);
  auto result = s.beside_rows();
  for (std::int64_t field = 0; field < s.fields(); ++field)
    result[rows_name(field)] = s.exchange ? s.gathered(field) : s.tables[static_cast<std::size_t>(field)];
  if (s.split.rank != 0) return {};
  return result;
}

StreamedTensors EmbeddingTables::streamed_state() const {
  const auto& s = drawn();
  if (!s.exchange) return streamed(state());
  auto tensors = streamed(s.beside_rows());
  for (std::int64_t field = 0; field < s.fields(); ++field) {
    const auto bring = [&s, field](const PutElements& put) {
      s.gather(field, [&](std::int64_t, const at::Tensor& rows) { put(rows); });
    };
    tensors.emplace(rows_name(field),
                    StreamedTensor{at::kFloat, {s.size(field), s.rule.format.stride()}, {}, bring});
  }
  return tensors;
}

std::map<std::string, at::Tensor> EmbeddingTables::State::beside_rows() const {
  std::map<std::string, at::Tensor> result = {{kStepsName, at::full({1}, steps, at::kLong)},
                                              {kUpdateName, update_tensor(options)},
                                              {kNormsName, at::tensor(last_norms.rows, at::kLong)}};
  if (!vocabulary.empty()) result[kVocabularyName] = bytes_of(vocabulary);
  return result;
}

std::int64_t EmbeddingTables::State::check_state(const std::map<std::string, at::Tensor>& stored, bool fewer,
                                                 const std::string& source) const {
  check_vocabulary(stored, fewer, source);
  check_stored(stored, kStepsName, at::empty({1}, at::kLong), false, source);
  const auto made = stored.at(kStepsName).item<std::int64_t>();
  if (made < 0 || made >= kMost)
    throw DataError(
        format("{}: tensor `{}` is {}; a step count from 0 to 2^31 - 2 is needed", source, kStepsName, made));
  for (std::int64_t field = 0; field < fields(); ++field) {
    const auto name = rows_name(field);
    const auto whole =
        at::empty({size(field), rule.format.stride()}, at::device(at::kMeta).dtype(at::kFloat));
    check_stored(stored, name, whole, fewer, source);
    check_last_steps(stored.at(name), made, rule.format, name, source);
  }
  stored_update(stored, options, source);
  check_stored(stored, kNormsName, at::empty({std::ssize(last_norms.rows)}, at::kLong), false, source);
  std::set<std::string> names = {kStepsName, kUpdateName, kNormsName, kVocabularyName};
  for (std::int64_t field = 0; field < fields(); ++field) names.insert(rows_name(field));
  for (const auto& item : stored)
    if (names.count(item.first) == 0)
      throw DataError(
          format("{}: tensor `{}` has no place in these embedding tables; the file belongs to other tables",
                 source, item.first));
  return made;
}

void EmbeddingTables::State::check_vocabulary(const std::map<std::string, at::Tensor>& stored, bool grown,
                                              const std::string& source) const {
  const auto found = stored.find(kVocabularyName);
  if (vocabulary.empty() || found == stored.end()) return;
  const auto theirs = text_of(found->second);
  if (theirs == vocabulary || (grown && theirs == grown_from)) return;
  throw DataError(format(
      "{}: its rows are of vocabulary {}, the data have {}{}, so the same ids mean other things; {}", source,
      theirs, vocabulary, grown_from.empty() ? "" : format(" (grown from {})", grown_from),
      grown ? "prepare the data with --vocabulary-of those that it was trained with, which keeps their ids"
            : "take the data that it was trained with"));
}

void EmbeddingTables::name_vocabulary(std::string own, std::string grown_from) {
  state_->vocabulary = std::move(own);
  state_->grown_from = std::move(grown_from);
}

void EmbeddingTables::load(const std::map<std::string, at::Tensor>& stored, const std::string& source) {
  auto& s = *state_;
  if (is_served(stored)) return s.load_served(stored, source);
  s.require_trainable();
  const auto made = s.check_state(stored, false, source);
  at::NoGradGuard no_grad;
  s.make_tables();
  for (std::int64_t field = 0; field < s.fields(); ++field)
    s.tables[static_cast<std::size_t>(field)].copy_(s.own_rows(field, stored.at(rows_name(field))));
  s.drawn = true;
  const auto norms = stored.at(kNormsName).contiguous();
  std::copy_n(norms.const_data_ptr<std::int64_t>(), norms.numel(), s.last_norms.rows.begin());
  s.steps = made;
  s.extend(made);
  s.clear_gradients();
}

void EmbeddingTables::start_from(const std::map<std::string, at::Tensor>& stored, const std::string& source) {
  auto& s = *state_;
  s.require_trainable();
  if (is_served(stored))
    throw DataError(
        format("{}: its embedding tables were exported; start from the run they came from", source));
  const auto made = s.check_state(stored, true, source);
  const auto width = s.rule.format.width();
  at::NoGradGuard no_grad;
  // what the stored rows have put off is done as their training would have done it
  const auto theirs = stored_update(stored, s.options, source);
  auto rule = rule_for(theirs);
  AdamNumbers numbers(theirs.lr, theirs.betas[0], theirs.betas[1]);
  numbers.extend(made);
  numbers.set(rule);
  s.make_tables();
  for (std::int64_t field = 0; field < s.fields(); ++field) {
    const auto& table = s.tables[static_cast<std::size_t>(field)];
    const auto rows = s.own_rows(field, stored.at(rows_name(field)));
    if (!s.drawn) s.draw_rows(field, table, rows.size(0));
    table.narrow(0, 0, rows.size(0)).copy_(rows);
    at::parallel_for(0, rows.size(0), kBlock, [&](std::int64_t begin, std::int64_t end) {
      ops::table_row_kernels().advance_range(s.row(field, begin), end - begin, made, rule);
    });
    table.narrow(1, width, 2 * width).zero_();
    set_last_steps(table, 0, 0, s.rule.format);
  }
  s.drawn = true;
  s.steps = 0;
  s.clear_gradients();
}

}  // namespace stoa::nn
