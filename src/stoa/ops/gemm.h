#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

// fp32 matrix products by blocks that fit the cache, on LibTorch's brgemm micro kernel, so that operators can
// work on a block of the result while it is there. Every function but pack() runs on the calling thread; how
// sums are cut does not depend on the number of threads, so neither do results. Internal to ops/.
namespace stoa::ops {

/// What the two sides of a product are rounded to in the cache; tensors and sums are fp32 all the same.
enum class Operands { kFloat, kBfloat16 };

/// Whether this LibTorch has the micro kernel for this CPU, the CPU multiplies such operands natively and
/// nothing forbids it; otherwise operators take ATen's products.
bool has_gemm_blocks(Operands operands = Operands::kFloat);

/// kBfloat16 if asked for and there are blocks for it.
Operands choose_operands(bool bf16);

/// Whether autocast is to bf16 on a CPU with blocks for it: operators then round in the blocks and keep
/// tensors in fp32, which costs less than tensors that change their type.
bool autocast_in_blocks(const c10::Device& device);

/// Lets operators take ATen's products from now on, or no longer. For tests and comparisons; the environment
/// variable STOA_BLOCKS=off does it from the start.
void forbid_gemm_blocks(bool forbid);

constexpr std::int64_t kPanel = 64;  ///< columns of a right-hand side that are multiplied at once

/// A right-hand side [k, n] of products: row-major in memory, or copied into panels of kPanel columns that
/// lie one behind the other, each [k, kPanel], or rounded to bfloat16 in panels [k / 2, kPanel, 2], a last
/// odd row beside zeros.
struct RightHandSide {
  const float* data = nullptr;
  std::int64_t k = 0, n = 0;
  std::int64_t stride = 0;                 ///< between rows
  std::int64_t panel_stride = 0;           ///< between the first elements of panels
  const c10::BFloat16* rounded = nullptr;  ///< in place of data

  /// Some of the columns; `first` is a multiple of kPanel.
  RightHandSide columns(std::int64_t first, std::int64_t count) const {
    const std::int64_t offset = first / kPanel * panel_stride;
    return rounded == nullptr ? RightHandSide{data + offset, k, count, stride, panel_stride}
                              : RightHandSide{nullptr, k, count, stride, panel_stride, rounded + offset};
  }
  static RightHandSide row_major(const float* data, std::int64_t k, std::int64_t n) {
    return {data, k, n, n, kPanel};
  }
};

/// Several right-hand sides of one shape in panels.
class PackedMatrices {
 public:
  PackedMatrices() = default;
  RightHandSide operator[](std::int64_t i) const;
  bool empty() const { return !buffer_.defined(); }

  friend PackedMatrices pack(const float* data, std::int64_t count, std::int64_t k, std::int64_t n,
                             bool transposed, Operands operands);

 private:
  at::Tensor buffer_;  // [count, panels, k, kPanel], k made even for bfloat16
  std::int64_t k_ = 0, n_ = 0;
};

/// Copies `count` matrices that lie one behind the other, each [k, n] row-major or, if `transposed`, [n, k],
/// into panels. On all threads.
PackedMatrices pack(const float* data, std::int64_t count, std::int64_t k, std::int64_t n, bool transposed,
                    Operands operands);

/// pack() for a product with `rows` rows in all: few rows do not pay for the copy, so that a KeepPacked
/// scope, where there is one, keeps it for the next time.
PackedMatrices pack_for(const float* data, std::int64_t count, std::int64_t k, std::int64_t n,
                        bool transposed, Operands operands, std::int64_t rows);

/// c = a b, or c += a b, for a [rows, b.k] and c [rows, b.n] with the given strides between rows. Where b is
/// rounded, so is a.
void gemm_rows(const float* a, std::int64_t a_stride, std::int64_t rows, const RightHandSide& b, float* c,
               std::int64_t c_stride, bool add);

/// a^T b by groups of neighbouring rows, group i from start[i] on: [groups, m, n] for contiguous a [rows, m]
/// and b [rows, n]; 0 for a group without rows. On all threads.
at::Tensor transposed_products(const at::Tensor& a, const at::Tensor& b,
                               const std::vector<std::int64_t>& start, const std::vector<std::int64_t>& count,
                               Operands operands = Operands::kFloat);

/// The largest of a few fixed numbers of rows that fits into `rows`: the micro kernel is compiled anew for
/// every size it meets.
std::int64_t tile_rows(std::int64_t rows);

/// Calls work(i) for i in [0, costs.size()), the threads taking neighbouring ones of about the same cost
/// together.
void share_out(const std::vector<std::int64_t>& costs, const std::function<void(std::int64_t)>& work);

/// Rows worth working on at once where each brings `numbers` floats into the cache.
std::int64_t rows_at_once(std::int64_t numbers);

}  // namespace stoa::ops
