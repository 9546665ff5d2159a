// Lookups and steps of embedding tables: cowclip.md 2.3 to 2.6.
#include "stoa/nn/embedding_tables.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <atomic>
#include <cmath>
#include <limits>

#include "stoa/nn/embedding_state.h"
#include "stoa/ops/optimizer_kernels.h"

namespace stoa::nn {

namespace {

/// Rows here and there in memory that are worth a thread, and how many are copied while still in the cache.
constexpr std::int64_t kGrain = 256, kAtOnce = 128;

std::size_t index(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

/// Calls f(field, begin, end) for the parts of [begin, end) that lie in one field each.
template <class F>
void by_field(const std::vector<std::int64_t>& first, std::int64_t begin, std::int64_t end, const F& f) {
  auto field = std::ranges::upper_bound(first, begin) - first.begin() - 1;
  for (auto i = begin; i < end; ++field) {
    const auto until = std::min(end, first[index(field + 1)]);
    if (i < until) f(field, i, until);
    i = until;
  }
}

TouchedRows touched_rows(const ops::DistinctIds& where, const at::Tensor& gradients) {
  TouchedRows rows{where.first, where.ids, {}, gradients.contiguous()};
  rows.counts.reserve(where.ids.size());
  for (std::size_t i = 0; i < where.ids.size(); ++i)
    rows.counts.push_back(static_cast<std::int32_t>(where.start[i + 1] - where.start[i]));
  return rows;
}

/// Puts together rows, field by field, their ids being in order in each part.
class Merger {
 public:
  explicit Merger(const std::vector<TouchedRows>& parts)
      : parts_(parts), width_(parts.front().gradients.size(1)), at_(parts.size()) {
    std::size_t most = 0;
    for (const auto& part : parts) most += part.ids.size();
    rows_.ids.reserve(most);
    rows_.counts.reserve(most);
    rows_.gradients = at::empty({static_cast<std::int64_t>(most), width_}, at::kFloat);
    to_ = rows_.gradients.mutable_data_ptr<float>();
  }

  TouchedRows merge() {
    rows_.first.push_back(0);
    for (std::size_t field = 0; field + 1 < parts_.front().first.size(); ++field) {
      merge_field(field);
      rows_.first.push_back(static_cast<std::int64_t>(rows_.ids.size()));
    }
    rows_.gradients = rows_.gradients.narrow(0, 0, rows_.first.back());
    return std::move(rows_);
  }

 private:
  static constexpr std::int64_t kEnd = std::numeric_limits<std::int64_t>::max();

  void merge_field(std::size_t field) {
    for (std::size_t p = 0; p < parts_.size(); ++p) at_[p] = parts_[p].first[field];
    const auto next = [&](std::size_t p) {
      return at_[p] < parts_[p].first[field + 1] ? parts_[p].ids[index(at_[p])] : kEnd;
    };
    while (true) {
      auto id = kEnd;
      for (std::size_t p = 0; p < parts_.size(); ++p) id = std::min(id, next(p));
      if (id == kEnd) return;
      for (std::size_t p = 0; p < parts_.size(); ++p)
        if (next(p) == id) take(parts_[p], id, at_[p]++);
    }
  }
  void take(const TouchedRows& rows, std::int64_t id, std::int64_t i) {
    const float* const from = rows.gradients.const_data_ptr<float>() + i * width_;
    const bool begun = index(rows_.first.back()) < rows_.ids.size() && rows_.ids.back() == id;
    if (begun) {
      rows_.counts.back() += rows.counts[index(i)];
      std::transform(from, from + width_, to_ - width_, to_ - width_, [](float b, float a) { return a + b; });
    } else {
      rows_.ids.push_back(id);
      rows_.counts.push_back(rows.counts[index(i)]);
      to_ = std::copy_n(from, width_, to_);
    }
  }

  const std::vector<TouchedRows>& parts_;
  std::int64_t width_;
  std::vector<std::int64_t> at_;  ///< the next row of each part
  TouchedRows rows_;
  float* to_ = nullptr;
};

/// Sums by field of squares by row, and their sum over all fields last.
std::vector<double> field_sums(const std::vector<double>& squares, const std::vector<std::int64_t>& first) {
  std::vector<double> sums(first.size(), 0);
  for (std::size_t field = 0; field + 1 < first.size(); ++field) {
    for (auto i = first[field]; i < first[field + 1]; ++i) sums[field] += squares[index(i)];
    sums.back() += sums[field];
  }
  return sums;
}

/// What a gradient of norm `norm` is multiplied by so that `limit` holds it.
float factor_for(double norm, double limit) {
  return norm > limit ? static_cast<float>(limit / norm) : 1.0f;
}

}  // namespace

TouchedRows merged(std::vector<TouchedRows> parts) {
  return parts.size() == 1 ? std::move(parts.front()) : Merger(parts).merge();
}

std::vector<float*> EmbeddingTables::State::addresses(const TouchedRows& rows) const {
  std::vector<float*> result(rows.ids.size());
  for (std::int64_t field = 0; field < fields(); ++field)
    for (auto i = rows.first[index(field)]; i < rows.first[index(field + 1)]; ++i)
      result[index(i)] = row(field, rows.ids[index(i)]);
  return result;
}

void EmbeddingTables::State::copy_rows(float* const* places, std::int64_t count, bool bring_up,
                                       float* to) const {
  const auto width = rule.format.width(), dim = rule.format.dim;
  const auto& kernels = ops::table_row_kernels();
  for (std::int64_t i = 0; i < count; i += kAtOnce) {
    const auto some = std::min(kAtOnce, count - i);
    if (bring_up) kernels.advance(places + i, some, steps, rule);
    kernels.read(places + i, some, steps, rule, {to + i * width, width, to + i * width + dim, width});
  }
}

std::pair<at::Tensor, at::Tensor> EmbeddingTables::State::rows_for_training(const at::Tensor& ids) {
  require_trainable();
  const auto where = ops::distinct_ids(ids, sizes);
  const auto width = rule.format.width();
  at::Tensor rows;
  if (exchange) {
    rows = fetch_rows(where->first, where->ids, /*learn=*/true);
  } else {
    rows = at::empty({where->distinct(), width}, at::kFloat);
    float* const to = rows.mutable_data_ptr<float>();
    at::parallel_for(0, where->distinct(), kGrain, [&](std::int64_t begin, std::int64_t end) {
      float* places[kAtOnce];
      by_field(where->first, begin, end, [&](std::int64_t field, std::int64_t i, std::int64_t until) {
        for (; i < until; i += kAtOnce) {
          const auto count = std::min(kAtOnce, until - i);
          for (std::int64_t k = 0; k < count; ++k) places[k] = row(field, where->ids[index(i + k)]);
          copy_rows(places, count, /*bring_up=*/true, to + i * width);
        }
      });
    });
  }
  rows.requires_grad_();
  lookups.push_back({where, rows});
  return ops::spread_rows(rows, where);
}

std::pair<at::Tensor, at::Tensor> EmbeddingTables::State::rows_for_reading(const at::Tensor& ids) {
  if (exchange) {
    const auto where = ops::distinct_ids(ids, sizes);
    return ops::spread_rows(fetch_rows(where->first, where->ids, /*learn=*/false), where);
  }
  const auto values = ids.to(at::kLong).contiguous();
  if (!served.empty()) {
    std::vector<at::Tensor> embeddings, linear;
    for (std::int64_t field = 0; field < fields(); ++field) {
      const auto [e, l] = served.read(field, values.select(1, field));
      embeddings.push_back(e);
      linear.push_back(l);
    }
    return {at::stack(embeddings, 1), at::stack(linear, 1)};
  }
  const auto batch = values.size(0), dim = rule.format.dim;
  const auto embeddings = at::empty({batch, fields(), dim}, at::kFloat),
             linear = at::empty({batch, fields()}, at::kFloat);
  const auto* const from = values.const_data_ptr<std::int64_t>();
  float* const to = embeddings.mutable_data_ptr<float>();
  float* const to_linear = linear.mutable_data_ptr<float>();
  const auto& kernels = ops::table_row_kernels();
  at::parallel_for(0, batch * fields(), 4 * kGrain, [&](std::int64_t begin, std::int64_t end) {
    const float* places[kAtOnce];
    for (auto i = begin; i < end; i += kAtOnce) {
      const auto count = std::min(kAtOnce, end - i);
      for (std::int64_t k = 0; k < count; ++k) places[k] = row((i + k) % fields(), from[i + k]);
      kernels.read(places, count, steps, rule, {to + i * dim, dim, to_linear + i, 1});
    }
  });
  return {embeddings, linear};
}

void EmbeddingTables::State::gather_gradients() {
  std::vector<Lookup> waiting;
  std::vector<TouchedRows> parts;
  for (const auto& lookup : lookups) {
    const auto& gradient = lookup.rows.grad();
    if (gradient.defined())
      parts.push_back(touched_rows(*lookup.where, gradient));
    else
      waiting.push_back(lookup);
  }
  lookups = std::move(waiting);
  if (std::exchange(looked_up, false)) {
    auto own = parts.empty() ? no_rows() : merged(std::move(parts));
    parts.clear();
    parts.push_back(send_gradients(own));
  }
  if (parts.empty()) return;
  if (touched) parts.insert(parts.begin(), std::move(*touched));
  touched = merged(std::move(parts));
}

TouchedRows EmbeddingTables::State::no_rows() const {
  return {
      std::vector<std::int64_t>(sizes.size() + 1), {}, {}, at::empty({0, rule.format.width()}, at::kFloat)};
}

void EmbeddingTables::State::clear_gradients() {
  lookups.clear();
  touched.reset();
  looked_up = false;
}

std::vector<ops::RowLimit> EmbeddingTables::State::limits(const TouchedRows& rows,
                                                          const std::vector<float*>& places) const {
  const double r = std::min(options.clip_ratio, 1e15), zeta = options.clip_floor;
  // the norm that a norm of weights counts as at least, times r
  const double least =
      options.floor == ClipFloor::kCode ? r * r * std::sqrt(static_cast<double>(options.dim)) * zeta : zeta;
  constexpr float kNone = std::numeric_limits<float>::infinity();
  const auto all = [&](const ops::RowLimit& limit) {
    return std::vector<ops::RowLimit>(index(fields()), limit);
  };
  switch (options.clip) {
    case RowClip::kNone:
      return all({0, kNone, 1});
    case RowClip::kIdConst:
      return all({0, static_cast<float>(zeta), 1});
    case RowClip::kCowClip:
      return all({static_cast<float>(r), static_cast<float>(least), 1});
    default:
      break;
  }
  const auto count = static_cast<std::int64_t>(places.size());
  std::vector<double> of_gradients(places.size()), of_weights(places.size());
  const float* const gradients = rows.gradients.const_data_ptr<float>();
  const auto& kernels = ops::table_row_kernels();
  at::parallel_for(0, count, kGrain, [&](std::int64_t begin, std::int64_t end) {
    kernels.squares(places.data() + begin, gradients + begin * rule.format.width(), end - begin, rule,
                    of_gradients.data() + begin, of_weights.data() + begin);
  });
  auto gradient_sums = field_sums(of_gradients, rows.first), weight_sums = field_sums(of_weights, rows.first);
  sum_over_processes(gradient_sums);
  sum_over_processes(weight_sums);
  auto result = all({0, kNone, 1});
  for (std::size_t field = 0; field < result.size(); ++field) {
    const double norm =
        std::sqrt(options.clip == RowClip::kGlobal ? gradient_sums.back() : gradient_sums[field]);
    const double limit =
        options.clip == RowClip::kFieldAdaptive ? std::max(r * std::sqrt(weight_sums[field]), least) : zeta;
    result[field].factor = factor_for(norm, limit);
  }
  return result;
}

EmbeddingRows EmbeddingTables::lookup(const at::Tensor& ids) {
  auto& s = drawn();
  const auto values = ids.cpu();
  ops::check_ids(values, s.sizes);
  const auto [embeddings, linear] =
      at::GradMode::is_enabled() ? s.rows_for_training(values) : s.rows_for_reading(values);
  return {embeddings.to(ids.device()), linear.to(ids.device())};
}

void EmbeddingTables::zero_grad() {
  state_->clear_gradients();
}

double EmbeddingTables::squared_gradient() const {
  state_->gather_gradients();
  std::vector<double> sum = {0};
  if (state_->touched) {
    const auto& gradients = state_->touched->gradients;
    sum[0] = ops::optimizer_kernels<float>().square_sum(gradients.const_data_ptr<float>(), gradients.numel());
  }
  state_->sum_over_processes(sum);
  return sum[0];
}

std::vector<std::pair<std::string, double>> EmbeddingTables::step() {
  auto& s = drawn();
  s.require_trainable();
  s.gather_gradients();
  const auto now = s.steps + 1;
  s.extend(now);
  const TouchedRows rows = s.touched ? std::move(*s.touched) : s.no_rows();
  s.clear_gradients();
  const auto places = s.addresses(rows);
  const auto count = static_cast<std::int64_t>(places.size());
  const auto limits = s.limits(rows, places);
  const float* const gradients = rows.gradients.const_data_ptr<float>();
  const auto& kernels = ops::table_row_kernels();
  std::vector<float> norms(places.size());
  std::atomic<std::int64_t> clipped = 0;
  at::parallel_for(0, count, kGrain, [&](std::int64_t begin, std::int64_t end) {
    by_field(rows.first, begin, end, [&](std::int64_t field, std::int64_t i, std::int64_t until) {
      clipped +=
          kernels.update(places.data() + i, gradients + i * s.rule.format.width(), rows.counts.data() + i,
                         until - i, now, s.rule, limits[index(field)], norms.data() + i);
    });
  });
  s.steps = now;
  // rows just touched have had this step already
  if (s.options.absent == AbsentRows::kDense) s.advance_all(now);
  return s.finish_step(norms, clipped.load());
}

std::vector<std::pair<std::string, double>> EmbeddingTables::State::finish_step(
    const std::vector<float>& norms, std::int64_t clipped) {
  last_norms = histogram_of(norms);
  std::vector<double> sums = {static_cast<double>(clipped), static_cast<double>(norms.size()), 0};
  for (const float norm : norms) sums[2] += norm;
  for (const auto rows : last_norms.rows) sums.push_back(static_cast<double>(rows));
  sum_over_processes(sums);
  for (std::size_t bin = 0; bin < last_norms.rows.size(); ++bin)
    last_norms.rows[bin] = static_cast<std::int64_t>(sums[3 + bin]);
  const double rows = sums[1];
  const auto share = [&](double part) { return rows == 0 ? 0.0 : part / rows; };
  return {{"clip_frac", share(sums[0])}, {"ids_per_batch", rows}, {"row_norm", share(sums[2])}};
}

}  // namespace stoa::nn
