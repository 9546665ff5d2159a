// What embedding tables hold: how it begins, how it is read, replaced and made larger.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <array>
#include <cmath>
#include <limits>
#include <mutex>
#include <numbers>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/random.h"
#include "stoa/nn/embedding_state.h"
#include "stoa/nn/table_memory.h"
#include "stoa/tensor/shape.h"

namespace stoa::nn {

namespace {

ops::MissedSteps missed_steps(AbsentRows absent) {
  switch (absent) {
    case AbsentRows::kLazy:
      return ops::MissedSteps::kSkip;
    case AbsentRows::kStrided:
      return ops::MissedSteps::kStrided;
    default:
      return ops::MissedSteps::kExact;
  }
}

const EmbeddingOptions& validated(const EmbeddingOptions& options) {
  options.validate();
  return options;
}

void check_size(std::int64_t field, std::int64_t size) {
  if (size < 1 || size > kMost)
    throw DataError(format("field {} has a vocabulary of {} ids; 1 to 2^31 - 1 are needed", field, size));
}

/// Draws an embedding from N(0, std^2), pair by pair (Box-Muller).
void draw_row(float* row, std::int64_t dim, double std, RandomStream random) {
  for (std::int64_t i = 0; i < dim; i += 2) {
    const double radius = std * std::sqrt(-2 * std::log(1 - random.uniform()));
    const double angle = 2 * std::numbers::pi * random.uniform();
    row[i] = static_cast<float>(radius * std::cos(angle));
    if (i + 1 < dim) row[i + 1] = static_cast<float>(radius * std::sin(angle));
  }
}

double square_sum(const float* numbers, std::int64_t count) {
  double sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += static_cast<double>(numbers[i]) * numbers[i];
  return sum;
}

NormHistogram empty_histogram() {
  constexpr int kLowest = -16, kHighest = 4;  // half powers of ten: 1e-8 to 100
  NormHistogram histogram;
  histogram.edges.push_back(0);
  for (int half = kLowest; half <= kHighest; ++half) histogram.edges.push_back(std::pow(10.0, half / 2.0));
  histogram.edges.push_back(std::numeric_limits<double>::infinity());
  histogram.rows.resize(histogram.edges.size() - 1);
  return histogram;
}

void count_norm(NormHistogram& histogram, double norm) {
  const auto& edges = histogram.edges;
  const auto bin = std::ranges::upper_bound(edges.begin() + 1, edges.end() - 1, norm) - edges.begin() - 1;
  ++histogram.rows[static_cast<std::size_t>(bin)];
}

}  // namespace

ops::RowRule rule_for(const EmbeddingOptions& options) {
  ops::RowRule rule;
  rule.format.dim = options.dim;
  rule.pull = static_cast<float>(2 * options.l2);
  rule.beta1 = static_cast<float>(options.betas[0]);
  rule.fresh1 = static_cast<float>(1 - options.betas[0]);
  rule.beta2 = static_cast<float>(options.betas[1]);
  rule.fresh2 = static_cast<float>(1 - options.betas[1]);
  rule.eps = static_cast<float>(options.eps);
  rule.missed = missed_steps(options.absent);
  // without L2 a touch's momentum is all there is: 0.9^150 is rounding
  constexpr std::int64_t kExact = 24, kExactWithoutL2 = 150;
  rule.exact = options.l2 > 0 ? kExact : kExactWithoutL2;
  return rule;
}

void set_last_steps(const at::Tensor& table, std::int64_t first, std::int64_t step,
                    const ops::RowFormat& format) {
  table.view(at::kInt).select(1, format.last_step()).narrow(0, first, table.size(0) - first).fill_(step);
}

NormHistogram histogram_of(std::span<const float> norms) {
  auto histogram = empty_histogram();
  for (const float norm : norms) count_norm(histogram, norm);
  return histogram;
}

AdamNumbers::AdamNumbers(double lr, double beta1, double beta2) : lr_(lr), beta1_(beta1), beta2_(beta2) {
  // below 2^-31 a power no longer shows in the rate
  const auto gone = [](double beta) {
    return beta == 0 ? std::int64_t{1}
                     : static_cast<std::int64_t>(std::min(31 * std::log(2.0) / -std::log(beta), 1e9)) + 1;
  };
  settled_ = std::max(gone(beta1), gone(beta2));
  for (int n = 0; n < 256; ++n) {
    fine_.push_back(static_cast<float>(std::pow(beta2, n)));
    fade_.push_back(static_cast<float>(std::pow(beta1, n)));
  }
  rates_.push_back(0);
  extend(0);
}

void AdamNumbers::extend(std::int64_t step) {
  for (auto t = static_cast<std::int64_t>(rates_.size()); t <= std::min(step, settled_); ++t) {
    const auto power = static_cast<double>(t);
    const double rate = lr_ * std::sqrt(1 - std::pow(beta2_, power)) / (1 - std::pow(beta1_, power));
    rates_.push_back(static_cast<float>(t == settled_ ? lr_ : rate));
  }
  for (auto n = static_cast<std::int64_t>(coarse_.size()); n <= step / 256; ++n) {
    const auto power = static_cast<float>(std::pow(beta2_, 256.0 * static_cast<double>(n)));
    if (power < std::numeric_limits<float>::min()) break;
    coarse_.push_back(power);
  }
}

void AdamNumbers::set(ops::RowRule& rule) const {
  rule.rates = rates_.data();
  rule.last_rate = static_cast<std::int64_t>(rates_.size()) - 1;
  rule.fine = fine_.data();
  rule.fade = fade_.data();
  rule.coarse = coarse_.data();
  rule.coarse_size = static_cast<std::int64_t>(coarse_.size());
}

EmbeddingTables::State::State(std::vector<std::int64_t> field_sizes, EmbeddingOptions row_options,
                              std::uint64_t row_seed)
    : sizes(std::move(field_sizes)),
      options(validated(row_options)),
      seed(row_seed),
      numbers(options.lr, options.betas[0], options.betas[1]),
      rule(rule_for(options)),
      tables(sizes.size()),
      data(sizes.size()),
      last_norms(empty_histogram()) {
  extend(0);
  for (std::int64_t field = 0; field < fields(); ++field) check_size(field, size(field));
}

void EmbeddingTables::State::make_tables() {
  if (tables.empty() || tables.front().defined()) return;
  for (std::int64_t field = 0; field < fields(); ++field) set_table(field, make_table(held(field)));
}

at::Tensor EmbeddingTables::State::make_table(std::int64_t rows) const {
  if (rows == 0) return at::zeros({0, rule.format.stride()}, at::kFloat);  // there are no pages of no bytes
  return map_table(rows, rule.format.stride(), options.storage, options.absent != AbsentRows::kDense);
}

void EmbeddingTables::State::draw_rows(std::int64_t field, const at::Tensor& table,
                                       std::int64_t first) const {
  if (options.init_std == 0) return;
  const auto stride = rule.format.stride();
  const auto stream = static_cast<std::uint64_t>(options.same_rows ? 0 : field);
  float* const begin = table.mutable_data_ptr<float>();
  at::parallel_for(first, table.size(0), kBlock, [&](std::int64_t from, std::int64_t to) {
    for (auto place = from; place < to; ++place)
      draw_row(begin + place * stride, options.dim, options.init_std,
               RandomStream(mix_seed({seed, stream, static_cast<std::uint64_t>(split.id(field, place))})));
  });
}

void EmbeddingTables::State::draw() {
  if (drawn) return;
  make_tables();
  drawn = true;
  for (std::int64_t field = 0; field < fields(); ++field)
    draw_rows(field, tables[static_cast<std::size_t>(field)], 0);
}

void EmbeddingTables::State::set_table(std::int64_t field, const at::Tensor& table) {
  const auto i = static_cast<std::size_t>(field);
  tables[i] = table;
  data[i] = table.mutable_data_ptr<float>();
}

void EmbeddingTables::State::extend(std::int64_t step) {
  numbers.extend(step);
  numbers.set(rule);
}

void EmbeddingTables::State::advance_all(std::int64_t now) {
  if (!served.empty()) return;  // all updates were done then
  const auto& kernels = ops::table_row_kernels();
  for (std::int64_t field = 0; field < fields(); ++field)
    at::parallel_for(0, held(field), kBlock, [&](std::int64_t begin, std::int64_t end) {
      kernels.advance_range(row(field, begin), end - begin, now, rule);
    });
}

void EmbeddingTables::State::read(std::int64_t field, std::int64_t begin, std::int64_t end,
                                  const ops::RowOutput& out) const {
  constexpr std::int64_t kAtOnce = 128;
  std::array<const float*, kAtOnce> places;
  for (auto i = begin; i < end; i += kAtOnce) {
    const auto count = std::min(kAtOnce, end - i);
    for (std::int64_t k = 0; k < count; ++k) places[static_cast<std::size_t>(k)] = row(field, i + k);
    const auto done = i - begin;
    ops::table_row_kernels().read(places.data(), count, steps, rule,
                                  {out.embeddings + done * out.embedding_stride, out.embedding_stride,
                                   out.linear + done * out.linear_stride, out.linear_stride});
  }
}

EmbeddingTables::EmbeddingTables(std::vector<std::int64_t> sizes, EmbeddingOptions options,
                                 std::uint64_t seed)
    : state_(std::make_unique<State>(std::move(sizes), std::move(options), seed)) {}

EmbeddingTables::~EmbeddingTables() = default;

void EmbeddingTables::draw() {
  state_->draw();
}

EmbeddingTables::State& EmbeddingTables::drawn() const {
  if (state_->given_up)
    throw Error("all rows of these embedding tables have gone to process 0; use them there");
  state_->draw();
  return *state_;
}

void EmbeddingTables::flush() {
  auto& s = drawn();
  s.advance_all(s.steps);
}

std::int64_t EmbeddingTables::steps() const {
  return state_->steps;
}

const std::vector<std::int64_t>& EmbeddingTables::sizes() const {
  return state_->sizes;
}

const EmbeddingOptions& EmbeddingTables::options() const {
  return state_->options;
}

at::Tensor EmbeddingTables::embeddings(std::int64_t field) {
  const auto& s = drawn();
  s.require_whole("copied");
  return s.read_field(field).first;
}

at::Tensor EmbeddingTables::linear(std::int64_t field) {
  const auto& s = drawn();
  s.require_whole("copied");
  return s.read_field(field).second;
}

std::pair<at::Tensor, at::Tensor> EmbeddingTables::State::read_field(std::int64_t field) const {
  if (!served.empty()) return served.read(field, at::arange(size(field)));
  const auto dim = options.dim;
  const auto embeddings = at::empty({size(field), dim}, at::kFloat),
             linear = at::empty({size(field)}, at::kFloat);
  float* const to = embeddings.mutable_data_ptr<float>();
  float* const to_linear = linear.mutable_data_ptr<float>();
  at::parallel_for(0, size(field), kBlock, [&](std::int64_t begin, std::int64_t end) {
    read(field, begin, end, {to + begin * dim, dim, to_linear + begin, 1});
  });
  return {embeddings, linear};
}

void EmbeddingTables::set_weights(std::int64_t field, const at::Tensor& embeddings,
                                  const at::Tensor& linear) {
  auto& s = drawn();
  s.require_trainable();
  const auto width = s.rule.format.width();
  check_shape(embeddings, {s.size(field), s.options.dim}, format("embeddings of field {}", field));
  check_shape(linear, {s.size(field)}, format("linear weights of field {}", field));
  at::NoGradGuard no_grad;
  const auto& table = s.tables[static_cast<std::size_t>(field)];
  table.narrow(1, 0, s.options.dim).copy_(s.own_rows(field, embeddings));
  table.select(1, s.options.dim).copy_(s.own_rows(field, linear));
  table.narrow(1, width, 2 * width).zero_();
  set_last_steps(table, 0, s.steps, s.rule.format);
}

void EmbeddingTables::grow(const std::vector<std::int64_t>& sizes) {
  auto& s = drawn();
  s.require_trainable();
  s.require_whole("made larger");
  if (sizes.size() != s.sizes.size())
    throw DataError(
        format("embedding tables of {} fields cannot grow to {} fields", s.sizes.size(), sizes.size()));
  for (std::int64_t field = 0; field < s.fields(); ++field) {
    const auto size = sizes[static_cast<std::size_t>(field)];
    check_size(field, size);
    if (size < s.size(field))
      throw DataError(
          format("field {}: a table of {} rows cannot become one of {}; ids that are in it keep their "
                 "rows",
                 field, s.size(field), size));
  }
  s.clear_gradients();
  at::NoGradGuard no_grad;
  for (std::int64_t field = 0; field < s.fields(); ++field) {
    const auto before = s.size(field), after = sizes[static_cast<std::size_t>(field)];
    if (after == before) continue;
    const auto table = s.make_table(after);
    s.draw_rows(field, table, before);
    table.narrow(0, 0, before).copy_(s.tables[static_cast<std::size_t>(field)]);
    set_last_steps(table, before, s.steps, s.rule.format);
    s.set_table(field, table);
    s.sizes[static_cast<std::size_t>(field)] = after;
  }
}

void EmbeddingTables::State::for_all_rows(
    std::int64_t field,
    const std::function<void(std::int64_t block, const float* rows, std::int64_t count)>& f) const {
  const auto width = rule.format.width(), rows_here = held(field), blocks = (rows_here + kBlock - 1) / kBlock;
  at::parallel_for(0, blocks, 1, [&](std::int64_t first, std::int64_t last) {
    std::vector<float> rows(static_cast<std::size_t>(kBlock * width));
    for (auto block = first; block < last; ++block) {
      const auto begin = block * kBlock, end = std::min(rows_here, begin + kBlock);
      if (served.empty()) {
        read(field, begin, end, {rows.data(), width, rows.data() + options.dim, width});
        f(block, rows.data(), end - begin);
      } else {
        const auto [embeddings, linear] = served.read(field, at::arange(begin, end));
        const auto both = at::cat({embeddings, linear.unsqueeze(1)}, 1);
        f(block, both.const_data_ptr<float>(), end - begin);
      }
    }
  });
}

double EmbeddingTables::penalty() {
  const auto& s = drawn();
  std::vector<double> sum = {0};
  for (std::int64_t field = 0; field < s.fields(); ++field) {
    std::vector<double> sums(static_cast<std::size_t>((s.held(field) + kBlock - 1) / kBlock));
    s.for_all_rows(field, [&](std::int64_t block, const float* rows, std::int64_t count) {
      sums[static_cast<std::size_t>(block)] = square_sum(rows, count * s.rule.format.width());
    });
    for (const double part : sums) sum[0] += part;
  }
  s.sum_over_processes(sum);
  return s.options.l2 * sum[0];
}

NormHistogram EmbeddingTables::weight_norms(std::int64_t field) {
  const auto& s = drawn();
  auto result = empty_histogram();
  std::mutex mutex;
  s.for_all_rows(field, [&](std::int64_t, const float* rows, std::int64_t count) {
    auto part = empty_histogram();
    for (std::int64_t i = 0; i < count; ++i)
      count_norm(part, std::sqrt(square_sum(rows + i * s.rule.format.width(), s.options.dim)));
    const std::scoped_lock lock(mutex);
    for (std::size_t bin = 0; bin < part.rows.size(); ++bin) result.rows[bin] += part.rows[bin];
  });
  std::vector<double> rows(result.rows.begin(), result.rows.end());
  s.sum_over_processes(rows);
  std::ranges::transform(rows, result.rows.begin(), [](double n) { return static_cast<std::int64_t>(n); });
  return result;
}

const NormHistogram& EmbeddingTables::gradient_norms() const {
  return state_->last_norms;
}

}  // namespace stoa::nn
