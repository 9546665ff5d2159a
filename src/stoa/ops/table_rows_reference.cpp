#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "stoa/ops/table_rows_kernels.h"

namespace stoa::ops {
namespace {

std::int32_t last_step(const float* row, const RowFormat& format) {
  std::int32_t step;
  std::memcpy(&step, row + format.last_step(), sizeof step);
  return step;
}

void set_last_step(float* row, const RowFormat& format, std::int64_t now) {
  const auto step = static_cast<std::int32_t>(now);
  std::memcpy(row + format.last_step(), &step, sizeof step);
}

/// One weight and its moments.
struct Number {
  float &w, &m, &v;
};
Number number_of(float* row, std::int64_t i, const RowFormat& format) {
  return {row[i], row[format.width() + i], row[2 * format.width() + i]};
}

void adam(const Number& n, float g, float rate, const RowRule& rule) {
  n.m = rule.beta1 * n.m + rule.fresh1 * g;
  n.v = rule.beta2 * n.v + rule.fresh2 * g * g;
  n.w -= rate * n.m / (std::sqrt(n.v) + rule.eps);
}

/// `length` steps with L2's gradient in one (cowclip.md 2.6), and with what is left of an earlier momentum: m
/// is g and an excess that fades, whose steps add up to beta1 (1 - beta1^length) / (1 - beta1) of it.
void stride(const Number& n, std::int64_t from, std::int64_t length, const RowRule& rule) {
  const float g = rule.pull * n.w, kept = rule.power(length), faded = rule.faded(length), excess = n.m - g;
  const float rate = rule.rate(from + (length + 1) / 2);
  n.v = kept * n.v + (1 - kept) * g * g;
  const float root = std::sqrt(n.v) + rule.eps;
  const float left = 1 - static_cast<float>(length) * rate * rule.pull / root;
  const float w = n.w * left - rate * rule.beta1 / rule.fresh1 * (1 - faded) * excess / root;
  n.w = left > 0 ? w : 0;
  n.m = left > 0 ? g + faded * excess : 0;
}

void advance_row(float* row, std::int64_t now, const RowRule& rule) {
  const auto last = last_step(row, rule.format);
  if (rule.missed == MissedSteps::kSkip || last >= now) return;
  const auto exact = rule.missed == MissedSteps::kStrided ? std::min(now, last + rule.exact) : now;
  for (std::int64_t i = 0; i < rule.format.width(); ++i) {
    const auto n = number_of(row, i, rule.format);
    for (std::int64_t t = last + 1; t <= exact; ++t) adam(n, rule.pull * n.w, rule.rate(t), rule);
    std::int64_t length = 8;
    for (auto t = exact; t < now; t += length, length += length / 2)
      stride(n, t, std::min(length, now - t), rule);
  }
  set_last_step(row, rule.format, now);
}

void advance(float* const* rows, std::int64_t count, std::int64_t now, const RowRule& rule) {
  for (std::int64_t i = 0; i < count; ++i) advance_row(rows[i], now, rule);
}

void advance_range(float* first, std::int64_t count, std::int64_t now, const RowRule& rule) {
  for (std::int64_t i = 0; i < count; ++i) advance_row(first + i * rule.format.stride(), now, rule);
}

void copy_out(const float* row, std::int64_t dim, std::int64_t i, const RowOutput& out) {
  std::copy_n(row, dim, out.embeddings + i * out.embedding_stride);
  out.linear[i * out.linear_stride] = row[dim];
}

void read(const float* const* rows, std::int64_t count, std::int64_t now, const RowRule& rule,
          const RowOutput& out) {
  for (std::int64_t i = 0; i < count; ++i) {
    std::vector<float> row(rows[i], rows[i] + rule.format.stride());
    advance_row(row.data(), now, rule);
    copy_out(row.data(), rule.format.dim, i, out);
  }
}

void squares(const float* const* rows, const float* gradients, std::int64_t count, const RowRule& rule,
             double* of_gradients, double* of_weights) {
  for (std::int64_t i = 0; i < count; ++i) {
    of_gradients[i] = of_weights[i] = 0;
    for (std::int64_t k = 0; k < rule.format.dim; ++k) {
      const double w = rows[i][k], g = gradients[i * rule.format.width() + k] + rule.pull * w;
      of_gradients[i] += g * g;
      of_weights[i] += w * w;
    }
  }
}

std::int64_t update(float* const* rows, const float* gradients, const std::int32_t* counts,
                    std::int64_t count, std::int64_t now, const RowRule& rule, const RowLimit& limit,
                    float* norms) {
  std::int64_t clipped = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const float* const gradient = gradients + i * rule.format.width();
    double of_gradient, of_weight;
    squares(rows + i, gradient, 1, rule, &of_gradient, &of_weight);
    const double norm = std::sqrt(of_gradient);
    const double threshold = counts[i] * std::max<double>(limit.ratio * std::sqrt(of_weight), limit.floor);
    const bool clip = norm * limit.factor > threshold;
    const auto scale = static_cast<float>(clip ? threshold / norm : limit.factor);
    for (std::int64_t k = 0; k < rule.format.width(); ++k) {
      const auto n = number_of(rows[i], k, rule.format);
      const float g = gradient[k] + rule.pull * n.w;
      adam(n, k < rule.format.dim ? scale * g : g, rule.rate(now), rule);
    }
    set_last_step(rows[i], rule.format, now);
    norms[i] = static_cast<float>(norm);
    clipped += clip || (limit.factor < 1 && norm > 0) ? 1 : 0;
  }
  return clipped;
}

void sum(const OccurrenceGradients& gradients, const std::int32_t* occurrences, const std::int64_t* starts,
         std::int64_t first, std::int64_t end, std::int64_t dim, float* sums) {
  for (auto row = first; row < end; ++row) {
    float* const to = sums + row * (dim + 1);
    std::fill_n(to, dim + 1, 0.0f);
    for (auto k = starts[row]; k < starts[row + 1]; ++k) {
      const std::int64_t at = occurrences[k];
      for (std::int64_t i = 0; gradients.embeddings != nullptr && i < dim; ++i)
        to[i] += gradients.embeddings[at * dim + i];
      if (gradients.linear != nullptr) to[dim] += gradients.linear[at];
    }
  }
}

void spread(const float* rows, const std::int32_t* places, std::int64_t count, std::int64_t dim,
            const RowOutput& out) {
  for (std::int64_t i = 0; i < count; ++i) copy_out(rows + places[i] * (dim + 1), dim, i, out);
}

constexpr TableRowKernels kKernels = {advance, advance_range, read, update, squares, sum, spread};

}  // namespace

const TableRowKernels& table_row_kernels_reference() {
  return kKernels;
}

}  // namespace stoa::ops
