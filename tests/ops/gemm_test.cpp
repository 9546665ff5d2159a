#include "stoa/ops/gemm.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <bit>
#include <limits>

#include "stoa/ops/gemm_kernels.h"
#include "stoa/ops/resample_kernels.h"
#include "stoa/ops/simd.h"

namespace stoa::ops {
namespace {

/// Calls check() at every SIMD level this machine has.
template <class Check>
void at_every_level(const Check& check) {
  for (const auto& level : simd_levels()) {
    limit_simd(level);
    check();
  }
  limit_simd("auto");
}

TEST(TransposeBlock, TurnsBlocksOfAnySize) {
  at_every_level([] {
    for (const auto& [rows, columns] :
         {std::pair<std::int64_t, std::int64_t>{1, 1}, {3, 9}, {4, 4}, {17, 6}, {64, 65}}) {
      const auto from = at::randn({rows, columns});
      const auto to = at::empty({columns, rows});
      transpose_block(from.const_data_ptr<float>(), columns, rows, columns, to.mutable_data_ptr<float>(),
                      rows);
      EXPECT_TRUE(to.equal(from.t()));
    }
  });
}

TEST(RoundRow, RoundsToNearestEvenAndKeepsWhatIsNotFinite) {
  const float inf = std::numeric_limits<float>::infinity();
  at_every_level([&] {
    for (const std::int64_t columns : {1, 7, 8, 64, 131}) {
      auto from = at::randn({2, columns});
      from[0][0] = std::bit_cast<float>(0x7fffffffU);  // a NaN whose rounding would carry into the sign
      if (columns > 4) {
        from[0][1] = -inf;
        from[0][2] = std::bit_cast<float>(0x3f808000U);  // ties, to even below and above
        from[0][3] = std::bit_cast<float>(0x3f818000U);
        from[1][4] = std::numeric_limits<float>::max();  // to infinity
      }
      const auto wanted = from.to(at::kBFloat16), row = at::empty({columns}, at::kBFloat16);
      const auto bits = [](const at::Tensor& t) { return reinterpret_cast<Bfloat16*>(t.data_ptr()); };
      for (const std::int64_t r : {0, 1}) {
        round_row(from[r].const_data_ptr<float>(), columns, bits(row));
        EXPECT_TRUE(at::equal(row.nan_to_num(7), wanted[r].nan_to_num(7)));
      }
      const auto pairs = at::empty({columns, 2}, at::kBFloat16);
      const auto* const first = from.const_data_ptr<float>();
      pair_rows(first, first + columns, columns, bits(pairs));
      EXPECT_TRUE(at::equal(pairs.nan_to_num(7), wanted.t().nan_to_num(7)));
      pair_rows(first, nullptr, columns, bits(pairs));
      EXPECT_TRUE(
          at::equal(pairs.nan_to_num(7), at::stack({wanted[0], at::zeros_like(wanted[0])}, 1).nan_to_num(7)));
    }
  });
}

TEST(TransposedProducts, EqualAtensGroupByGroup) {
  if (!has_gemm_blocks()) GTEST_SKIP() << "this LibTorch has no micro kernel for this CPU";
  const auto a = at::randn({700, 70}), b = at::randn({700, 530});
  const std::vector<std::int64_t> start = {0, 300, 300}, count = {300, 0, 400};
  const auto found = transposed_products(a, b, start, count);
  for (std::int64_t g = 0; g < 3; ++g) {
    const auto i = static_cast<std::size_t>(g);
    const auto wanted = a.narrow(0, start[i], count[i]).t().mm(b.narrow(0, start[i], count[i]));
    EXPECT_TRUE(found[g].allclose(wanted, 1e-4, 1e-3)) << g;
  }
}

TEST(ShareOut, DoesEveryPieceOnceForAnyNumberOfThreads) {
  const std::vector<std::int64_t> costs = {5, 1, 1, 90, 0, 7, 7, 1};
  for (const int threads : {1, 2, 5}) {
    at::set_num_threads(threads);
    std::vector<int> done(costs.size(), 0);
    share_out(costs, [&](std::int64_t i) { ++done[static_cast<std::size_t>(i)]; });
    EXPECT_EQ(done, std::vector<int>(costs.size(), 1)) << threads;
  }
  at::set_num_threads(1);
  share_out({}, [](std::int64_t) { FAIL() << "there is nothing to do"; });
}

TEST(BlendRows, WeighsBytesAtEverySimdLevel) {
  const auto rows = at::randint(256, {3, 77}, at::kByte), weights = at::rand({3});
  const auto wanted = (rows.to(at::kFloat) * weights.unsqueeze(1)).sum(0);
  at_every_level([&] {
    const auto out = at::empty({77});
    blend_rows(rows.const_data_ptr<std::uint8_t>(), 77, weights.const_data_ptr<float>(), 3, 77,
               out.mutable_data_ptr<float>());
    EXPECT_TRUE(out.allclose(wanted, 1e-5, 1e-4));
  });
}

TEST(BlendColumns, TakesEachPixelsOwnWeights) {
  // pixel x is half of source pixel x and half of x + 1; 4 readable numbers lie behind the line
  const std::vector<float> line = {0, 100, 255, 10, 200, 255, 20, 0, 255, 0, 0, 0, 0}, weights(4, 0.5F);
  const std::vector<std::int64_t> first = {0, 1};
  at_every_level([&] {
    std::vector<std::uint8_t> out(6);
    blend_columns(line.data(), first.data(), weights.data(), 2, 2, 3, out.data());
    EXPECT_EQ(out, (std::vector<std::uint8_t>{5, 150, 255, 15, 100, 255}));
  });
}

}  // namespace
}  // namespace stoa::ops
