#pragma once

#include <cmath>
#include <cstdint>

// The loops over rows of embedding tables. A row holds its weights, their moments and its own step count side
// by side, so that a row that a batch touches costs three cache lines and nothing else.
namespace stoa::ops {

/// How a row lies in memory, in floats: `dim` embedding weights and one linear weight, as many first moments,
/// as many second moments, and the step the row has been brought up to, as the bits of an int32.
struct RowFormat {
  std::int64_t dim = 10;

  std::int64_t width() const { return dim + 1; }
  std::int64_t last_step() const { return 3 * width(); }  ///< its place in the row
  std::int64_t stride() const { return 3 * width() + 1; }
};

/// What becomes of the steps in which a row was in no batch (cowclip.md 2.6).
enum class MissedSteps { kSkip, kExact, kStrided };

/// Adam in Keras' form with the gradient of L2 (cowclip.md 2.5): g' = g + pull w; m = beta1 m + fresh1 g';
/// v = beta2 v + fresh2 g'^2; w -= rate(t) m / (sqrt(v) + eps).
struct RowRule {
  RowFormat format;
  float pull = 0;  ///< 2 lambda
  float beta1 = 0.9f, fresh1 = 0.1f, beta2 = 0.999f, fresh2 = 0.001f, eps = 1e-7f;
  MissedSteps missed = MissedSteps::kExact;
  std::int64_t exact = 24;  ///< kStrided: missed steps made one by one before the strides begin

  const float* rates = nullptr;   ///< by step t from 0 to last_rate: lr sqrt(1 - beta2^t) / (1 - beta1^t)
  std::int64_t last_rate = 0;     ///< later steps have the rate of this one
  const float* fine = nullptr;    ///< beta2^n for n from 0 to 255
  const float* coarse = nullptr;  ///< beta2^(256 n) for n below coarse_size, 0 beyond
  std::int64_t coarse_size = 0;
  const float* fade = nullptr;  ///< beta1^n for n from 0 to 255; kStrided alone needs it

  float rate(std::int64_t t) const { return rates[t < last_rate ? t : last_rate]; }
  float power(std::int64_t n) const { return n / 256 < coarse_size ? fine[n % 256] * coarse[n / 256] : 0.0f; }
  /// beta1^n; what is below 1e-6 after 255 steps counts as gone after 256.
  float faded(std::int64_t n) const {
    if (n < 256) return fade[n];
    return fade[255] < 1e-6f ? 0.0f : std::pow(fade[255], static_cast<float>(n) / 255);
  }
};

/// What the gradient of a row's embedding is held at: its norm at count max(ratio |w|, floor), after it has
/// been multiplied by `factor`. Linear weights are not clipped.
struct RowLimit {
  float ratio = 0;
  float floor = 0;   ///< infinite for no limit
  float factor = 1;  ///< what a norm over several rows comes to
};

/// Where weights are copied to: row i's embedding to embeddings + i * embedding_stride, its linear weight to
/// linear[i * linear_stride].
struct RowOutput {
  float* embeddings = nullptr;
  std::int64_t embedding_stride = 0;
  float* linear = nullptr;
  std::int64_t linear_stride = 0;
};

/// The gradients of a lookup: embeddings [occurrences, dim] and linear [occurrences]; null counts as zero.
struct OccurrenceGradients {
  const float* embeddings = nullptr;
  const float* linear = nullptr;
};

/// The loops. Rows are given by their addresses and are distinct where they are changed. Each row is computed
/// by itself, in an order that depends on nothing else, so that results do not depend on how rows are shared
/// out. Numbers below the smallest normal one count as 0.
struct TableRowKernels {
  /// Makes the steps that rows have missed up to and including step `now`, with no gradient but L2's.
  void (*advance)(float* const* rows, std::int64_t count, std::int64_t now, const RowRule& rule);
  /// The same for `count` rows that follow one another.
  void (*advance_range)(float* first, std::int64_t count, std::int64_t now, const RowRule& rule);
  /// Copies the weights that advance() would leave, without changing the rows.
  void (*read)(const float* const* rows, std::int64_t count, std::int64_t now, const RowRule& rule,
               const RowOutput& out);
  /// Step `now` of rows that have had all steps before: L2, clip, Adam. `gradients` [count, width] are sums
  /// over `counts` occurrences. `norms` [count] takes the norm of each embedding's gradient, with L2, before
  /// the clip. Returns how many rows were clipped.
  std::int64_t (*update)(float* const* rows, const float* gradients, const std::int32_t* counts,
                         std::int64_t count, std::int64_t now, const RowRule& rule, const RowLimit& limit,
                         float* norms);
  /// Square sums of each embedding's gradient, with L2, and of its weights.
  void (*squares)(const float* const* rows, const float* gradients, std::int64_t count, const RowRule& rule,
                  double* of_gradients, double* of_weights);
  /// Rows first to end-1 of sums [rows, width]: of the occurrences from starts[row] to starts[row + 1], in
  /// order.
  void (*sum)(const OccurrenceGradients& gradients, const std::int32_t* occurrences,
              const std::int64_t* starts, std::int64_t first, std::int64_t end, std::int64_t dim,
              float* sums);
  /// Copies rows [rows, width] to occurrences: out's row i is that of place[i].
  void (*spread)(const float* rows, const std::int32_t* places, std::int64_t count, std::int64_t dim,
                 const RowOutput& out);
};

/// The loops of the SIMD level in force (ops/simd.h).
const TableRowKernels& table_row_kernels();

/// Plain loops, which the others are tested against. These keep numbers below the smallest normal one.
const TableRowKernels& table_row_kernels_reference();

}  // namespace stoa::ops
