#include "stoa/ops/table_rows_kernels.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <utility>
#include <vector>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "stoa/ops/table_rows_kernels.cpp"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"
#include "stoa/ops/simd_inl.h"

#if HWY_ARCH_X86
#include <xmmintrin.h>
#endif

HWY_BEFORE_NAMESPACE();
namespace stoa::ops {
namespace HWY_NAMESPACE {
namespace {

using Tag = hn::ScalableTag<float>;
using Vec = hn::Vec<Tag>;

/// Rows that lie anywhere in memory are fetched this many ahead.
constexpr std::int64_t kAhead = 12;
/// Rows whose missed steps are made side by side: each is one long chain of dependent sums, roots and
/// quotients.
constexpr std::size_t kSideBySide = 4;

/// While it lives, numbers below the smallest normal one count as 0 in this thread: moments that fade, as
/// those of absent rows do, would otherwise slow every sum down by two orders of magnitude on some
/// processors.
class FlushTiny {
 public:
#if HWY_ARCH_X86
  FlushTiny() : before_(_mm_getcsr()) {
    _mm_setcsr(before_ | kFlushToZero | kTinyAreZero);
  }
  ~FlushTiny() {
    _mm_setcsr(before_);
  }
  FlushTiny(const FlushTiny&) = delete;
  FlushTiny& operator=(const FlushTiny&) = delete;

 private:
  static constexpr unsigned kFlushToZero = 0x8000, kTinyAreZero = 0x0040;
  unsigned before_;
#else
  FlushTiny() {}
  ~FlushTiny() {}
#endif
};

#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
/// Stores the first `count` lanes in pieces of 8, 4, 2 and 1. One store under a mask would be as short to
/// write, but the processor then takes all that lies under the vector as written: loads of the next row,
/// which begins there, wait for it.
template <class D>
HWY_INLINE void store_pieces(D d, hn::Vec<D> v, float* to, std::size_t count) {
  if constexpr (hn::MaxLanes(D()) > 4) {
    const hn::Half<D> half;
    constexpr std::size_t kHalf = hn::MaxLanes(hn::Half<D>());
    if (count & kHalf) {
      hn::StoreU(hn::LowerHalf(half, v), half, to);
      store_pieces(half, hn::UpperHalf(half, v), to + kHalf, count);
    } else {
      store_pieces(half, hn::LowerHalf(half, v), to, count);
    }
  } else {
    const hn::FixedTag<float, 2> two;
    const hn::FixedTag<float, 1> one;
    if (count & 2) {
      hn::StoreU(hn::LowerHalf(two, v), two, to);
      v = hn::ShiftRightLanes<2>(d, v);
      to += 2;
    }
    if (count & 1) hn::StoreU(hn::LowerHalf(one, hn::LowerHalf(two, v)), one, to);
  }
}

/// What is left of a row behind its last whole vector.
struct MaskedRest {
  hn::Mask<Tag> mask;
  std::size_t count;

  HWY_INLINE Vec load(Tag d, const float* from) const { return hn::MaskedLoad(mask, d, from); }
  HWY_INLINE void store(Tag d, Vec v, float* to) const { store_pieces(d, v, to, count); }
};
HWY_INLINE MaskedRest rest_of_row(std::int64_t count) {
  const auto lanes = static_cast<std::size_t>(count);
  return {hn::FirstN(Tag(), lanes), lanes};
}
#else
HWY_INLINE Rest rest_of_row(std::int64_t count) {
  return {static_cast<std::size_t>(count)};
}
#endif

/// Calls step(part, place) for all of a row of `size` numbers. Numbers behind the row's end are 0 where
/// loaded.
template <class Step>
HWY_INLINE void sweep_row(std::int64_t size, const Step& step) {
  constexpr auto kLanes = static_cast<std::int64_t>(hn::MaxLanes(Tag()));
  std::int64_t place = 0;
  for (; place + kLanes <= size; place += kLanes) step(Whole(), place);
  if (place < size) step(rest_of_row(size - place), place);
}

HWY_INLINE void fetch_row(const float* row, std::int64_t floats) {
  for (std::int64_t i = 0; i < floats; i += 16) hwy::Prefetch(row + i);
  hwy::Prefetch(row + floats - 1);
}

HWY_INLINE std::int64_t last_step(const float* row, const RowFormat& format) {
  std::int32_t step;
  std::memcpy(&step, row + format.last_step(), sizeof step);
  return step;
}
HWY_INLINE void set_last_step(float* row, const RowFormat& format, std::int64_t now) {
  const auto step = static_cast<std::int32_t>(now);
  std::memcpy(row + format.last_step(), &step, sizeof step);
}

/// Weights and moments of one vector of one row.
struct Chain {
  Vec w, m, v;
};

/// The update rule on vectors.
struct Adam {
  explicit Adam(const RowRule& rule)
      : pull(hn::Set(Tag(), rule.pull)),
        beta1(hn::Set(Tag(), rule.beta1)),
        fresh1(hn::Set(Tag(), rule.fresh1)),
        beta2(hn::Set(Tag(), rule.beta2)),
        fresh2(hn::Set(Tag(), rule.fresh2)),
        eps(hn::Set(Tag(), rule.eps)) {}

  HWY_INLINE void step(Chain& c, Vec g, Vec rate) const {
    c.m = hn::MulAdd(beta1, c.m, hn::Mul(fresh1, g));
    c.v = hn::MulAdd(beta2, c.v, hn::Mul(hn::Mul(fresh2, g), g));
    c.w = hn::Sub(c.w, hn::Div(hn::Mul(rate, c.m), hn::Add(hn::Sqrt(c.v), eps)));
  }
  /// A step with L2's gradient alone.
  HWY_INLINE void missed(Chain& c, float rate) const { step(c, hn::Mul(pull, c.w), hn::Set(Tag(), rate)); }
  /// Steps with L2's gradient in one: their rates add up to `travel`, `kept` and `faded` are beta2 and beta1
  /// to the power of their number. w (1 - travel pull / (sqrt(v) + eps)) is w - travel g / (sqrt(v) + eps);
  /// where that changes sign, w = m = 0. What m is more than g fades and moves w by `coast` times as much.
  HWY_INLINE void stride(Chain& c, float travel, float coast, float kept, float faded) const {
    const Tag d;
    const auto g = hn::Mul(pull, c.w), excess = hn::Sub(c.m, g);
    c.v = hn::MulAdd(hn::Set(d, kept), c.v, hn::Mul(hn::Mul(hn::Set(d, 1 - kept), g), g));
    const auto unit = hn::Div(hn::Set(d, 1.0f), hn::Add(hn::Sqrt(c.v), eps));
    const auto left = hn::NegMulAdd(hn::Mul(hn::Set(d, travel), pull), unit, hn::Set(d, 1.0f));
    const auto w = hn::NegMulAdd(hn::Mul(hn::Set(d, coast), unit), excess, hn::Mul(c.w, left));
    const auto same_sign = hn::Gt(left, hn::Zero(d));
    c.w = hn::IfThenElseZero(same_sign, w);
    c.m = hn::IfThenElseZero(same_sign, hn::MulAdd(hn::Set(d, faded), excess, g));
  }

  Vec pull, beta1, fresh1, beta2, fresh2, eps;
};

/// The steps a row has missed: `exact` of them one by one after step `last`, then `rest` in strides.
struct Gap {
  Gap() = default;
  Gap(std::int64_t last_one, std::int64_t now, const RowRule& rule) : last(last_one), exact(now - last_one) {
    if (rule.missed != MissedSteps::kStrided || exact <= rule.exact) return;
    rest = exact - rule.exact;
    exact = rule.exact;
  }
  std::int64_t last = 0, exact = 0, rest = 0;
};

/// Strides grow by half each: 8, 12, 18, 27, 40 ...
constexpr std::int64_t kFirstStride = 8;
HWY_INLINE std::int64_t next_stride(std::int64_t stride) {
  return stride + stride / 2;
}

/// `length` steps after step `from` in one, with the rate in their middle.
HWY_INLINE void make_stride(const Adam& adam, Chain& c, std::int64_t from, std::int64_t length,
                            const RowRule& rule) {
  const float rate = rule.rate(from + (length + 1) / 2), faded = rule.faded(length);
  adam.stride(c, static_cast<float>(length) * rate, rule.beta1 / rule.fresh1 * rate * (1 - faded),
              rule.power(length), faded);
}

/// What is left of one row's gap when `done` exact steps have been made.
HWY_INLINE void finish_exact(const Adam& adam, Chain& c, const Gap& gap, std::int64_t done,
                             const RowRule& rule) {
  for (auto k = done + 1; k <= gap.exact; ++k) adam.missed(c, rule.rate(gap.last + k));
}
/// What is left of one row's gap when `done` steps have been made in strides.
HWY_INLINE void finish_strides(const Adam& adam, Chain& c, const Gap& gap, std::int64_t done,
                               std::int64_t stride, const RowRule& rule) {
  for (; done < gap.rest; stride = next_stride(stride)) {
    const auto length = std::min(stride, gap.rest - done);
    make_stride(adam, c, gap.last + gap.exact + done, length, rule);
    done += length;
  }
}

/// Makes the missed steps of rows, one vector of each. What a row comes to does not depend on those beside
/// it.
template <class Part, std::size_t... I>
HWY_INLINE void advance_part(const Adam& adam, const Part& part, float* const* rows, const Gap* gaps,
                             std::int64_t place, const RowRule& rule, std::index_sequence<I...>) {
  const Tag d;
  const auto width = rule.format.width();
  Chain chains[] = {{part.load(d, rows[I] + place), part.load(d, rows[I] + width + place),
                     part.load(d, rows[I] + 2 * width + place)}...};
  const auto exact = std::min({gaps[I].exact...});
  for (std::int64_t k = 1; k <= exact; ++k) (adam.missed(chains[I], rule.rate(gaps[I].last + k)), ...);
  (finish_exact(adam, chains[I], gaps[I], exact, rule), ...);
  std::int64_t done = 0, stride = kFirstStride;
  for (const auto rest = std::min({gaps[I].rest...}); done + stride <= rest; stride = next_stride(stride)) {
    (make_stride(adam, chains[I], gaps[I].last + gaps[I].exact + done, stride, rule), ...);
    done += stride;
  }
  (finish_strides(adam, chains[I], gaps[I], done, stride, rule), ...);
  (part.store(d, chains[I].w, rows[I] + place), ...);
  (part.store(d, chains[I].m, rows[I] + width + place), ...);
  (part.store(d, chains[I].v, rows[I] + 2 * width + place), ...);
}

template <std::size_t kRows>
HWY_INLINE void advance_rows(const Adam& adam, float* const* rows, const Gap* gaps, const RowRule& rule) {
  sweep_row(rule.format.width(), [&](const auto& part, std::int64_t place) STOA_STEP {
    advance_part(adam, part, rows, gaps, place, rule, std::make_index_sequence<kRows>());
  });
}

/// True for a row that no step without a gradient changes: without L2, one that no batch has touched.
HWY_INLINE bool at_rest(const float* row, const RowRule& rule) {
  if (rule.pull != 0) return false;
  const auto width = rule.format.width();
  return std::all_of(row + width, row + 3 * width, [](float moment) { return moment == 0; });
}

/// Gathers rows that are behind and makes their steps, some side by side.
class Advancer {
 public:
  Advancer(std::int64_t now, const RowRule& rule) : now_(now), rule_(rule), adam_(rule) {}

  HWY_INLINE void add(float* row) {
    const auto last = last_step(row, rule_.format);
    if (last >= now_) return;
    if (at_rest(row, rule_)) {
      set_last_step(row, rule_.format, now_);
      return;
    }
    rows_[waiting_] = row;
    gaps_[waiting_] = Gap(last, now_, rule_);
    if (++waiting_ < kSideBySide) return;
    advance_rows<kSideBySide>(adam_, rows_, gaps_, rule_);
    done();
  }
  HWY_INLINE void finish() {
    for (std::size_t i = 0; i < waiting_; ++i) advance_rows<1>(adam_, rows_ + i, gaps_ + i, rule_);
    done();
  }

 private:
  HWY_INLINE void done() {
    for (std::size_t i = 0; i < waiting_; ++i) set_last_step(rows_[i], rule_.format, now_);
    waiting_ = 0;
  }

  std::int64_t now_;
  const RowRule& rule_;
  Adam adam_;
  float* rows_[kSideBySide] = {};
  Gap gaps_[kSideBySide];
  std::size_t waiting_ = 0;
};

void advance(float* const* rows, std::int64_t count, std::int64_t now, const RowRule& rule) {
  if (rule.missed == MissedSteps::kSkip) return;
  const FlushTiny flush;
  Advancer advancer(now, rule);
  const auto stride = rule.format.stride();
  for (std::int64_t i = 0; i < count; ++i) {
    if (i + kAhead < count) fetch_row(rows[i + kAhead], stride);
    advancer.add(rows[i]);
  }
  advancer.finish();
}

void advance_range(float* first, std::int64_t count, std::int64_t now, const RowRule& rule) {
  if (rule.missed == MissedSteps::kSkip) return;
  const FlushTiny flush;
  Advancer advancer(now, rule);
  const auto stride = rule.format.stride();
  for (std::int64_t i = 0; i < count; ++i) advancer.add(first + i * stride);
  advancer.finish();
}

HWY_INLINE void copy_out(const float* row, std::int64_t dim, std::int64_t i, const RowOutput& out) {
  const Tag d;
  float* const to = out.embeddings + i * out.embedding_stride;
  sweep_row(dim, [&](const auto& part, std::int64_t place)
                     STOA_STEP { part.store(d, part.load(d, row + place), to + place); });
  out.linear[i * out.linear_stride] = row[dim];
}

/// Copies rows out; those that are behind make their steps in copies, some side by side.
class Reader {
 public:
  Reader(std::int64_t now, const RowRule& rule, const RowOutput& out)
      : now_(now), rule_(rule), out_(out), adam_(rule) {}

  HWY_INLINE void add(const float* row, std::int64_t i) {
    const auto last = last_step(row, rule_.format);
    if (rule_.missed == MissedSteps::kSkip || last >= now_ || at_rest(row, rule_)) {
      copy_out(row, rule_.format.dim, i, out_);
      return;
    }
    const auto stride = static_cast<std::size_t>(rule_.format.stride());
    copies_.resize(kSideBySide * stride);
    rows_[waiting_] = std::copy_n(row, stride, copies_.data() + waiting_ * stride) - stride;
    gaps_[waiting_] = Gap(last, now_, rule_);
    places_[waiting_] = i;
    if (++waiting_ < kSideBySide) return;
    advance_rows<kSideBySide>(adam_, rows_, gaps_, rule_);
    done();
  }
  HWY_INLINE void finish() {
    for (std::size_t i = 0; i < waiting_; ++i) advance_rows<1>(adam_, rows_ + i, gaps_ + i, rule_);
    done();
  }

 private:
  HWY_INLINE void done() {
    for (std::size_t i = 0; i < waiting_; ++i) copy_out(rows_[i], rule_.format.dim, places_[i], out_);
    waiting_ = 0;
  }

  std::int64_t now_;
  const RowRule& rule_;
  const RowOutput& out_;
  Adam adam_;
  std::vector<float> copies_;
  float* rows_[kSideBySide] = {};
  Gap gaps_[kSideBySide];
  std::int64_t places_[kSideBySide] = {};
  std::size_t waiting_ = 0;
};

void read(const float* const* rows, std::int64_t count, std::int64_t now, const RowRule& rule,
          const RowOutput& out) {
  const FlushTiny flush;
  Reader reader(now, rule, out);
  for (std::int64_t i = 0; i < count; ++i) {
    if (i + kAhead < count) fetch_row(rows[i + kAhead], rule.format.stride());
    reader.add(rows[i], i);
  }
  reader.finish();
}

/// Square sums of an embedding's gradient, with L2, and of its weights.
struct Squares {
  float gradient, weight;
};
HWY_INLINE Squares squares_of(const float* row, const float* gradient, std::int64_t dim, Vec pull) {
  const Tag d;
  auto of_gradient = hn::Zero(d), of_weight = hn::Zero(d);
  sweep_row(dim, [&](const auto& part, std::int64_t place) STOA_STEP {
    const auto w = part.load(d, row + place);
    const auto g = hn::MulAdd(pull, w, part.load(d, gradient + place));
    of_gradient = hn::MulAdd(g, g, of_gradient);
    of_weight = hn::MulAdd(w, w, of_weight);
  });
  return {sum_lanes(d, of_gradient), sum_lanes(d, of_weight)};
}

/// One step of a row whose embedding's gradient is multiplied by `scale`.
HWY_INLINE void update_row(float* row, const float* gradient, float scale, Vec rate, const Adam& adam,
                           const RowFormat& format) {
  const Tag d;
  const auto width = format.width(), dim = format.dim;
  sweep_row(width, [&](const auto& part, std::int64_t place) STOA_STEP {
    const auto embedding = hn::FirstN(d, static_cast<std::size_t>(std::max<std::int64_t>(0, dim - place)));
    const auto scales = hn::IfThenElse(embedding, hn::Set(d, scale), hn::Set(d, 1.0f));
    Chain c = {part.load(d, row + place), part.load(d, row + width + place),
               part.load(d, row + 2 * width + place)};
    const auto g = hn::MulAdd(adam.pull, c.w, part.load(d, gradient + place));
    adam.step(c, hn::Mul(g, scales), rate);
    part.store(d, c.w, row + place);
    part.store(d, c.m, row + width + place);
    part.store(d, c.v, row + 2 * width + place);
  });
}

std::int64_t update(float* const* rows, const float* gradients, const std::int32_t* counts,
                    std::int64_t count, std::int64_t now, const RowRule& rule, const RowLimit& limit,
                    float* norms) {
  const FlushTiny flush;
  const Adam adam(rule);
  const auto rate = hn::Set(Tag(), rule.rate(now));
  const auto width = rule.format.width(), stride = rule.format.stride();
  std::int64_t clipped = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    if (i + kAhead < count) fetch_row(rows[i + kAhead], stride);
    const float* const gradient = gradients + i * width;
    const auto squares = squares_of(rows[i], gradient, rule.format.dim, adam.pull);
    const float norm = std::sqrt(squares.gradient);
    const float threshold =
        static_cast<float>(counts[i]) * std::max(limit.ratio * std::sqrt(squares.weight), limit.floor);
    const bool clip = norm * limit.factor > threshold;
    update_row(rows[i], gradient, clip ? threshold / norm : limit.factor, rate, adam, rule.format);
    set_last_step(rows[i], rule.format, now);
    norms[i] = norm;
    clipped += clip || (limit.factor < 1 && norm > 0) ? 1 : 0;
  }
  return clipped;
}

void squares(const float* const* rows, const float* gradients, std::int64_t count, const RowRule& rule,
             double* of_gradients, double* of_weights) {
  const auto pull = hn::Set(Tag(), rule.pull);
  const auto width = rule.format.width(), stride = rule.format.stride();
  for (std::int64_t i = 0; i < count; ++i) {
    if (i + kAhead < count) fetch_row(rows[i + kAhead], stride);
    const auto sums = squares_of(rows[i], gradients + i * width, rule.format.dim, pull);
    of_gradients[i] = sums.gradient;
    of_weights[i] = sums.weight;
  }
}

void sum(const OccurrenceGradients& gradients, const std::int32_t* occurrences, const std::int64_t* starts,
         std::int64_t first, std::int64_t end, std::int64_t dim, float* sums) {
  const Tag d;
  const auto width = dim + 1, last = starts[end];
  for (auto row = first; row < end; ++row) {
    float* const to = sums + row * width;
    const auto from = starts[row], until = starts[row + 1];
    sweep_row(dim, [&](const auto& part, std::int64_t place) STOA_STEP {
      auto total = hn::Zero(d);
      for (auto k = from; gradients.embeddings != nullptr && k < until; ++k) {
        if (k + kAhead < last) hwy::Prefetch(gradients.embeddings + occurrences[k + kAhead] * dim + place);
        total = hn::Add(total, part.load(d, gradients.embeddings + occurrences[k] * dim + place));
      }
      part.store(d, total, to + place);
    });
    float total = 0;
    for (auto k = from; gradients.linear != nullptr && k < until; ++k)
      total += gradients.linear[occurrences[k]];
    to[dim] = total;
  }
}

void spread(const float* rows, const std::int32_t* places, std::int64_t count, std::int64_t dim,
            const RowOutput& out) {
  for (std::int64_t i = 0; i < count; ++i) copy_out(rows + places[i] * (dim + 1), dim, i, out);
}

constexpr TableRowKernels kKernels = {advance, advance_range, read, update, squares, sum, spread};

const TableRowKernels& kernels() {
  return kKernels;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace stoa::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace stoa::ops {

HWY_EXPORT(kernels);

const TableRowKernels& table_row_kernels() {
  return STOA_SIMD_DISPATCH(kernels)();
}

}  // namespace stoa::ops
#endif
