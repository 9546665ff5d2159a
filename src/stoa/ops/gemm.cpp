#include "stoa/ops/gemm.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>
#include <ATen/native/CPUBlas.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <map>
#include <numeric>
#include <string_view>
#include <tuple>
#include <vector>

#include "stoa/ops/gemm_kernels.h"
#include "stoa/ops/keep_packed.h"
#include "stoa/tensor/runtime.h"

namespace stoa::ops {
namespace {

constexpr std::int64_t kDepth = 1024;         // of a product made at once: a panel of it fits the L2 cache
constexpr std::int64_t kTransposeRows = 256;  // of the left-hand side of a transposed product turned at once
constexpr std::int64_t kRoundedRows = 256;    // of a left-hand side rounded at once
constexpr std::int64_t kFewRoundedRows = 4;   // bound by reading the right-hand side, not by products

void block(std::int64_t m, std::int64_t n, std::int64_t k, std::int64_t a_stride, std::int64_t b_stride,
           std::int64_t c_stride, bool add, const float* a, const float* b, float* c) {
#ifdef CPUBLAS_BRGEMM_F32F32F32
  at::native::cpublas::brgemm(m, n, k, a_stride, b_stride, c_stride, add, a, b, c, /*is_vnni=*/false);
#else
  TORCH_INTERNAL_ASSERT(false, "no micro kernel");
#endif
}

void block(std::int64_t m, std::int64_t n, std::int64_t k, std::int64_t a_stride, std::int64_t b_stride,
           std::int64_t c_stride, bool add, const c10::BFloat16* a, const c10::BFloat16* b, float* c) {
#ifdef CPUBLAS_BRGEMM_BF16BF16F32
  at::native::cpublas::brgemm(m, n, k, a_stride, b_stride, c_stride, add, a, b, c, /*is_vnni=*/true);
#else
  TORCH_INTERNAL_ASSERT(false, "no micro kernel");
#endif
}

using Packs = std::map<std::tuple<const float*, std::int64_t, std::int64_t, std::int64_t, bool, Operands>,
                       PackedMatrices>;
thread_local Packs* active_packs = nullptr;

std::atomic<bool>& forbidden() {
  static std::atomic<bool> value = [] {
    const char* const asked = std::getenv("STOA_BLOCKS");
    return asked != nullptr && std::string_view(asked) == "off";
  }();
  return value;
}

std::int64_t panels_of(std::int64_t n) {
  return (n + kPanel - 1) / kPanel;
}

std::int64_t even(std::int64_t n) {
  return (n + 1) / 2 * 2;
}

Bfloat16* bits(c10::BFloat16* numbers) {
  return reinterpret_cast<Bfloat16*>(numbers);
}

const Bfloat16* bits(const c10::BFloat16* numbers) {
  return reinterpret_cast<const Bfloat16*>(numbers);
}

template <class T>
T* sized(std::vector<T>& buffer, std::int64_t numbers) {
  if (std::ssize(buffer) < numbers) buffer.resize(static_cast<std::size_t>(numbers));
  return buffer.data();
}

/// Rounds rows [rows, columns] to bfloat16 rows of even(columns) numbers.
void round_rows(const float* from, std::int64_t stride, std::int64_t rows, std::int64_t columns,
                c10::BFloat16* to) {
  const std::int64_t width = even(columns);
  for (std::int64_t r = 0; r < rows; ++r) {
    round_row(from + r * stride, columns, bits(to + r * width));
    if (width > columns) to[r * width + columns] = 0;
  }
}

/// Rounds and interleaves rows [rows, columns] to [rows / 2, width, 2], a last odd one beside zeros.
void pair_all_rows(const float* from, std::int64_t stride, std::int64_t rows, std::int64_t columns,
                   c10::BFloat16* to, std::int64_t width) {
  for (std::int64_t r = 0; r < rows; r += 2)
    pair_rows(from + r * stride, r + 1 < rows ? from + (r + 1) * stride : nullptr, columns,
              bits(to + r * width));
}

/// Copies columns [column, column + columns) of a matrix [k, n], or [n, k] if `transposed`, to a panel.
void fill_panel(const float* from, std::int64_t k, std::int64_t n, bool transposed, std::int64_t column,
                std::int64_t columns, float* to) {
  if (transposed)
    transpose_block(from + column * k, k, columns, k, to, kPanel);
  else
    for (std::int64_t r = 0; r < k; ++r) std::copy_n(from + r * n + column, columns, to + r * kPanel);
}

void fill_panel(const float* from, std::int64_t k, std::int64_t n, bool transposed, std::int64_t column,
                std::int64_t columns, c10::BFloat16* to) {
  if (!transposed) return pair_all_rows(from + column, n, k, columns, to, kPanel);
  // two neighbours of a row are one word of the panel
  thread_local std::vector<c10::BFloat16> rows;
  auto* const rounded = sized(rows, columns * even(k));
  round_rows(from + column * k, k, columns, k, rounded);
  transpose_block(reinterpret_cast<const float*>(rounded), even(k) / 2, columns, even(k) / 2,
                  reinterpret_cast<float*>(to), kPanel);
}

template <class T>
void fill_panels(const float* data, std::int64_t count, std::int64_t k, std::int64_t n, bool transposed,
                 std::int64_t panel_size, T* buffer) {
  const std::int64_t panels = panels_of(n);
  at::parallel_for(0, count * panels,
                   std::max<std::int64_t>(1, 32768 / std::max<std::int64_t>(1, panel_size)),
                   [&](std::int64_t begin, std::int64_t end) {
                     for (auto i = begin; i < end; ++i) {
                       const std::int64_t column = i % panels * kPanel;
                       fill_panel(data + i / panels * k * n, k, n, transposed, column,
                                  std::min(kPanel, n - column), buffer + i * panel_size);
                     }
                   });
}

/// c = a b or c += a b by panels of b and tiles of a's rows, whose lines are `depth` long at most a product.
template <class T>
void multiply_panels(const T* a, std::int64_t a_stride, std::int64_t rows, const T* b,
                     const RightHandSide& shape, std::int64_t k_size, std::int64_t depth, float* c,
                     std::int64_t c_stride, bool add) {
  for (std::int64_t p = 0; p < panels_of(shape.n); ++p) {
    const T* const panel = b + p * shape.panel_stride;
    const std::int64_t columns = std::min(kPanel, shape.n - p * kPanel);
    for (std::int64_t r = 0, m = 0; r < rows; r += m) {
      m = tile_rows(rows - r);
      for (std::int64_t k = 0; k < k_size; k += depth)
        block(m, columns, std::min(depth, k_size - k), a_stride, shape.stride, c_stride, add || k > 0,
              a + r * a_stride + k, panel + k * shape.stride, c + r * c_stride + p * kPanel);
    }
  }
}

/// c = a b or c += a b for rounded a [rows, even(b.k)] of a few rows and b in panels.
void multiply_few_rows(const c10::BFloat16* a, std::int64_t rows, const RightHandSide& b, float* c,
                       std::int64_t c_stride, bool add) {
  for (std::int64_t p = 0; p < panels_of(b.n); ++p)
    for (std::int64_t r = 0; r < rows; ++r)
      panel_products(bits(a + r * even(b.k)), even(b.k) / 2, bits(b.rounded + p * b.panel_stride), b.stride,
                     std::min(kPanel, b.n - p * kPanel), c + r * c_stride + p * kPanel, add);
}

/// A piece of a transposed product: rows [row, row + count) and columns [column, column + columns) of
/// c [m, n] = a^T b for a [rows, m] and b [rows, n].
struct TransposedPiece {
  std::int64_t row, count, column, columns;
};

void transposed_piece(const float* a, std::int64_t m, const float* b, std::int64_t n, std::int64_t rows,
                      const TransposedPiece& piece, Operands operands, float* c) {
  thread_local std::vector<float> turned_rows;
  thread_local std::vector<c10::BFloat16> rounded_rows, paired_rows;
  const auto [row, count, column, columns] = piece;
  float* const to = c + row * n + column;
  if (rows == 0)
    for (std::int64_t i = 0; i < count; ++i) std::fill_n(to + i * n, columns, 0.0F);
  for (std::int64_t r = 0; r < rows;) {
    // a short rest is multiplied in few fixed sizes, for the same reason as in tile_rows()
    const std::int64_t depth = rows - r >= kTransposeRows ? kTransposeRows : tile_rows(rows - r);
    float* const turned = sized(turned_rows, count * depth);
    transpose_block(a + r * m + row, m, depth, count, turned, depth);
    const float* const from = b + r * n + column;
    if (operands == Operands::kFloat) {
      multiply_panels(turned, depth, count, from, {nullptr, depth, columns, n, kPanel}, depth, depth, to, n,
                      r > 0);
    } else {
      auto* const rounded = sized(rounded_rows, count * even(depth));
      auto* const paired = sized(paired_rows, even(depth) * columns);
      round_rows(turned, depth, count, depth, rounded);
      pair_all_rows(from, n, depth, columns, paired, columns);
      multiply_panels(rounded, even(depth), count, paired, {nullptr, depth, columns, columns, 2 * kPanel},
                      even(depth), even(depth), to, n, r > 0);
    }
    r += depth;
  }
}

}  // namespace

struct KeepPacked::Kept {
  Packs packs;
};

std::int64_t tile_rows(std::int64_t rows) {
  for (const std::int64_t size : {64, 32, 16, 8, 4, 2})
    if (rows >= size) return size;
  return 1;
}

KeepPacked::KeepPacked() {
  if (active_packs != nullptr) return;  // an outer scope keeps them longer
  kept_ = std::make_unique<Kept>();
  active_packs = &kept_->packs;
}

KeepPacked::~KeepPacked() {
  if (kept_) active_packs = nullptr;
}

bool KeepPacked::active() {
  return active_packs != nullptr;
}

bool has_gemm_blocks(Operands operands) {
#if defined(CPUBLAS_BRGEMM_F32F32F32) && defined(CPUBLAS_BRGEMM_BF16BF16F32) && defined(__x86_64__)
  static const bool has = at::hasMKLDNN(), has_bf16 = has && cpu_has_bf16();
  return (operands == Operands::kFloat ? has : has_bf16) && !forbidden().load(std::memory_order_relaxed);
#else
  return false;
#endif
}

Operands choose_operands(bool bf16) {
  return bf16 && has_gemm_blocks(Operands::kBfloat16) ? Operands::kBfloat16 : Operands::kFloat;
}

bool autocast_in_blocks(const c10::Device& device) {
  return device.is_cpu() && at::autocast::get_autocast_dtype(at::kCPU) == at::kBFloat16 &&
         has_gemm_blocks(Operands::kBfloat16);
}

void forbid_gemm_blocks(bool forbid) {
  forbidden() = forbid;
}

RightHandSide PackedMatrices::operator[](std::int64_t i) const {
  const std::int64_t panel_size = buffer_.size(2) * kPanel, offset = i * panels_of(n_) * panel_size;
  if (buffer_.scalar_type() == at::kBFloat16)
    return {nullptr, k_, n_, kPanel, panel_size, buffer_.const_data_ptr<c10::BFloat16>() + offset};
  return {buffer_.const_data_ptr<float>() + offset, k_, n_, kPanel, panel_size};
}

PackedMatrices pack(const float* data, std::int64_t count, std::int64_t k, std::int64_t n, bool transposed,
                    Operands operands) {
  const bool rounded = operands == Operands::kBfloat16;
  const std::int64_t rows = rounded ? even(k) : k;
  PackedMatrices packed;
  packed.k_ = k;
  packed.n_ = n;
  packed.buffer_ = at::empty({count, panels_of(n), rows, kPanel}, rounded ? at::kBFloat16 : at::kFloat);
  if (rounded)
    fill_panels(data, count, k, n, transposed, rows * kPanel,
                packed.buffer_.mutable_data_ptr<c10::BFloat16>());
  else
    fill_panels(data, count, k, n, transposed, rows * kPanel, packed.buffer_.mutable_data_ptr<float>());
  return packed;
}

PackedMatrices pack_for(const float* data, std::int64_t count, std::int64_t k, std::int64_t n,
                        bool transposed, Operands operands, std::int64_t rows) {
  constexpr std::int64_t kManyRows = 2048;  // the copy is then a hundredth of the work
  if (active_packs == nullptr || rows >= kManyRows) return pack(data, count, k, n, transposed, operands);
  auto& kept = (*active_packs)[{data, count, k, n, transposed, operands}];
  if (kept.empty()) kept = pack(data, count, k, n, transposed, operands);
  return kept;
}

void share_out(const std::vector<std::int64_t>& costs, const std::function<void(std::int64_t)>& work) {
  const std::int64_t threads = at::in_parallel_region() ? 1 : at::get_num_threads();
  const double total = static_cast<double>(std::accumulate(costs.begin(), costs.end(), std::int64_t{0}));
  std::vector<std::int64_t> first(static_cast<std::size_t>(threads) + 1, std::ssize(costs));
  first[0] = 0;
  double before = 0;
  std::int64_t thread = 0;
  for (std::int64_t i = 0; i < std::ssize(costs); ++i) {
    const double middle = before + 0.5 * static_cast<double>(costs[static_cast<std::size_t>(i)]);
    while (thread + 1 < threads &&
           middle * static_cast<double>(threads) >= total * static_cast<double>(thread + 1))
      first[static_cast<std::size_t>(++thread)] = i;
    before += static_cast<double>(costs[static_cast<std::size_t>(i)]);
  }
  at::parallel_for(0, threads, 1, [&](std::int64_t begin, std::int64_t end) {
    for (auto t = begin; t < end; ++t)
      for (auto i = first[static_cast<std::size_t>(t)]; i < first[static_cast<std::size_t>(t) + 1]; ++i)
        work(i);
  });
}

void gemm_rows(const float* a, std::int64_t a_stride, std::int64_t rows, const RightHandSide& b, float* c,
               std::int64_t c_stride, bool add) {
  if (b.k == 0 && !add)
    for (std::int64_t r = 0; r < rows; ++r) std::fill_n(c + r * c_stride, b.n, 0.0F);
  if (b.k == 0) return;
  const std::int64_t pieces = (b.k + kDepth - 1) / kDepth, depth = (b.k + pieces - 1) / pieces;
  if (b.rounded == nullptr)
    return multiply_panels(a, a_stride, rows, b.data, b, b.k, depth, c, c_stride, add);
  thread_local std::vector<c10::BFloat16> rounded_rows;
  for (std::int64_t r = 0; r < rows; r += kRoundedRows) {
    const std::int64_t count = std::min(kRoundedRows, rows - r);
    auto* const rounded = sized(rounded_rows, count * even(b.k));
    round_rows(a + r * a_stride, a_stride, count, b.k, rounded);
    if (rows <= kFewRoundedRows)
      multiply_few_rows(rounded, rows, b, c, c_stride, add);
    else
      multiply_panels(rounded, even(b.k), count, b.rounded, b, even(b.k), even(depth), c + r * c_stride,
                      c_stride, add);
  }
}

at::Tensor transposed_products(const at::Tensor& a, const at::Tensor& b,
                               const std::vector<std::int64_t>& start, const std::vector<std::int64_t>& count,
                               Operands operands) {
  const std::int64_t groups = std::ssize(start), m = a.size(1), n = b.size(1);
  const auto products = at::empty({groups, m, n}, a.options());
  // pieces that turn few numbers for many products, but enough of them for all threads
  std::int64_t tall = operands == Operands::kFloat ? kPanel : 4 * kPanel, wide = 8 * kPanel;
  const auto pieces = [&] { return groups * ((m + tall - 1) / tall) * ((n + wide - 1) / wide); };
  while (pieces() < 2 * at::get_num_threads() && std::max(tall, wide) > kPanel)
    (wide >= tall ? wide : tall) /= 2;
  const std::int64_t across = (n + wide - 1) / wide, down = (m + tall - 1) / tall;
  at::parallel_for(0, pieces(), 1, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = begin; i < end; ++i) {
      const std::int64_t group = i / (down * across), column = i % across * wide,
                         row = i / across % down * tall;
      const auto g = static_cast<std::size_t>(group);
      transposed_piece(a.const_data_ptr<float>() + start[g] * m, m, b.const_data_ptr<float>() + start[g] * n,
                       n, count[g], {row, std::min(tall, m - row), column, std::min(wide, n - column)},
                       operands, products.mutable_data_ptr<float>() + group * m * n);
    }
  });
  return products;
}

std::int64_t rows_at_once(std::int64_t numbers) {
  constexpr std::int64_t kCacheFloats = 128 * 1024;  // half of a small L2 cache
  return std::clamp<std::int64_t>(kCacheFloats / std::max<std::int64_t>(1, numbers) / 32 * 32, 64, 256);
}

}  // namespace stoa::ops
