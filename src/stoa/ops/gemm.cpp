#include "stoa/ops/gemm.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/native/CPUBlas.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <map>
#include <numeric>
#include <string_view>
#include <tuple>

#include "stoa/ops/gemm_kernels.h"
#include "stoa/ops/keep_packed.h"

namespace stoa::ops {
namespace {

constexpr std::int64_t kDepth = 1024;         // of a product made at once: a panel of it fits the L2 cache
constexpr std::int64_t kTransposeRows = 256;  // of the left-hand side of gemm_transposed() turned at once

void block(std::int64_t m, std::int64_t n, std::int64_t k, std::int64_t a_stride, std::int64_t b_stride,
           std::int64_t c_stride, bool add, const float* a, const float* b, float* c) {
#ifdef CPUBLAS_BRGEMM_F32F32F32
  at::native::cpublas::brgemm(m, n, k, a_stride, b_stride, c_stride, add, a, b, c, /*is_vnni=*/false);
#else
  TORCH_INTERNAL_ASSERT(false, "no micro kernel");
#endif
}

using Packs =
    std::map<std::tuple<const float*, std::int64_t, std::int64_t, std::int64_t, bool>, PackedMatrices>;
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

bool has_gemm_blocks() {
#if defined(CPUBLAS_BRGEMM_F32F32F32) && defined(__x86_64__)
  static const bool has = at::hasMKLDNN();
  return has && !forbidden().load(std::memory_order_relaxed);
#else
  return false;
#endif
}

void forbid_gemm_blocks(bool forbid) {
  forbidden() = forbid;
}

RightHandSide PackedMatrices::operator[](std::int64_t i) const {
  return {buffer_.const_data_ptr<float>() + i * panels_of(n_) * k_ * kPanel, k_, n_, kPanel, k_ * kPanel};
}

PackedMatrices pack(const float* data, std::int64_t count, std::int64_t k, std::int64_t n, bool transposed) {
  PackedMatrices packed;
  const std::int64_t panels = panels_of(n);
  packed.k_ = k;
  packed.n_ = n;
  packed.buffer_ = at::empty({count, panels, k, kPanel}, at::kFloat);
  auto* const buffer = packed.buffer_.mutable_data_ptr<float>();
  at::parallel_for(
      0, count * panels, std::max<std::int64_t>(1, 32768 / std::max<std::int64_t>(1, k * kPanel)),
      [&](std::int64_t begin, std::int64_t end) {
        for (auto i = begin; i < end; ++i) {
          const std::int64_t column = i % panels * kPanel, columns = std::min(kPanel, n - column);
          const float* const from = data + i / panels * k * n;
          float* const to = buffer + i * k * kPanel;
          if (transposed)
            transpose_block(from + column * k, k, columns, k, to, kPanel);
          else
            for (std::int64_t r = 0; r < k; ++r) std::copy_n(from + r * n + column, columns, to + r * kPanel);
        }
      });
  return packed;
}

PackedMatrices pack_for(const float* data, std::int64_t count, std::int64_t k, std::int64_t n,
                        bool transposed, std::int64_t rows) {
  constexpr std::int64_t kManyRows = 2048;  // the copy is then a hundredth of the work
  if (active_packs == nullptr || rows >= kManyRows) return pack(data, count, k, n, transposed);
  auto& kept = (*active_packs)[{data, count, k, n, transposed}];
  if (kept.empty()) kept = pack(data, count, k, n, transposed);
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
  for (std::int64_t p = 0; p < panels_of(b.n); ++p) {
    const float* const panel = b.data + p * b.panel_stride;
    const std::int64_t columns = std::min(kPanel, b.n - p * kPanel);
    for (std::int64_t r = 0, m = 0; r < rows; r += m) {
      m = tile_rows(rows - r);
      for (std::int64_t k = 0; k < b.k; k += depth)
        block(m, columns, std::min(depth, b.k - k), a_stride, b.stride, c_stride, add || k > 0,
              a + r * a_stride + k, panel + k * b.stride, c + r * c_stride + p * kPanel);
    }
  }
}

void gemm_transposed(const float* a, std::int64_t a_stride, const float* b, std::int64_t b_stride,
                     std::int64_t rows, std::int64_t first, std::int64_t count, std::int64_t n, float* c,
                     std::int64_t c_stride, bool add) {
  if (rows == 0 && !add)
    for (std::int64_t i = first; i < first + count; ++i) std::fill_n(c + i * c_stride, n, 0.0F);
  alignas(64) std::array<float, static_cast<std::size_t>(kPanel * kTransposeRows)> turned;
  for (std::int64_t r = 0; r < rows;) {
    // a short rest is multiplied in few fixed sizes, for the same reason as in tile_rows()
    const std::int64_t depth = rows - r >= kTransposeRows ? kTransposeRows : tile_rows(rows - r);
    transpose_block(a + r * a_stride + first, a_stride, depth, count, turned.data(), kTransposeRows);
    for (std::int64_t p = 0; p < n; p += kPanel)
      for (std::int64_t i = 0, m = 0; i < count; i += m) {
        m = tile_rows(count - i);
        block(m, std::min(kPanel, n - p), depth, kTransposeRows, b_stride, c_stride, add || r > 0,
              turned.data() + i * kTransposeRows, b + r * b_stride + p, c + (first + i) * c_stride + p);
      }
    r += depth;
  }
}

at::Tensor transposed_products(const at::Tensor& a, const at::Tensor& b,
                               const std::vector<std::int64_t>& start,
                               const std::vector<std::int64_t>& count) {
  constexpr std::int64_t kColumns = 512;  // of a product that one piece of work makes
  const std::int64_t groups = std::ssize(start), m = a.size(1), n = b.size(1);
  const auto products = at::empty({groups, m, n}, a.options());
  const std::int64_t across = (n + kColumns - 1) / kColumns, down = panels_of(m);
  at::parallel_for(0, groups * down * across, 1, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = begin; i < end; ++i) {
      const std::int64_t group = i / (down * across), column = i % across * kColumns,
                         row = i / across % down * kPanel;
      const auto g = static_cast<std::size_t>(group);
      gemm_transposed(a.const_data_ptr<float>() + start[g] * m, m,
                      b.const_data_ptr<float>() + start[g] * n + column, n, count[g], row,
                      std::min(kPanel, m - row), std::min(kColumns, n - column),
                      products.mutable_data_ptr<float>() + group * m * n + column, n, false);
    }
  });
  return products;
}

std::int64_t rows_at_once(std::int64_t numbers) {
  constexpr std::int64_t kCacheFloats = 128 * 1024;  // half of a small L2 cache
  return std::clamp<std::int64_t>(kCacheFloats / std::max<std::int64_t>(1, numbers) / 32 * 32, 64, 256);
}

}  // namespace stoa::ops
