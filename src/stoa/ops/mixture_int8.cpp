#include "stoa/ops/mixture_int8.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/native/CPUBlas.h>

#include <algorithm>
#include <array>
#include <vector>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/ops/bias_activation_kernels.h"
#include "stoa/ops/gemm.h"
#include "stoa/ops/int8_kernels.h"
#include "stoa/ops/mixture_rows.h"
#include "stoa/tensor/shape.h"

namespace stoa::ops {
namespace {

constexpr std::int64_t kQuad = 4;       // bytes that one instruction multiplies and adds up
constexpr std::int64_t kRows = 64;      // of one piece of work
constexpr std::int64_t kColumns = 512;  // likewise

/// c [rows, columns] = a b, c's rows kPanel apart, for bytes a and a panel b of int8.
void multiply(std::int64_t rows, std::int64_t columns, std::int64_t quads, const std::uint8_t* a,
              const signed char* b, std::int32_t* c) {
#ifdef CPUBLAS_BRGEMM_U8I8I32
  at::native::cpublas::brgemm(rows, columns, quads * kQuad, quads * kQuad, kPanel, kPanel, /*add_C=*/false, a,
                              b, c, /*is_vnni=*/true);
#else
  TORCH_CHECK(false, "no micro kernel");
#endif
}

struct Piece {
  std::int64_t expert, first, count, column, columns;
};

}  // namespace

bool Int8Experts::supported() {
  static const bool can = [] {
    const std::array<std::uint8_t, kQuad> a{1, 2, 3, 4};
    std::array<signed char, kQuad * kPanel> b{};
    b.fill(1);
    std::array<std::int32_t, kPanel> c{};
    try {
      multiply(1, kPanel, 1, a.data(), b.data(), c.data());
    } catch (const std::exception&) {
      return false;
    }
    return c[0] == 10;
  }();
  return can;
}

Int8Experts::Int8Experts(const ExpertWeights& weights) {
  if (!supported())
    throw DeviceError(
        "experts in int8 need a CPU with AVX512-VNNI or AMX (`stoa doctor` shows what this one has); leave "
        "--int8 away");
  in_ = round(weights.w_in, weights.b_in);
  out_ = round(weights.w_out, weights.b_out);
}

Int8Experts::Layer Int8Experts::round(const at::Tensor& weight, const at::Tensor& bias) {
  check_shape(weight, {-1, -1, -1}, "int8 experts: weight");
  const auto w = weight.detach().to(at::kCPU, at::kFloat);
  Layer layer;
  layer.k = w.size(1);
  layer.n = w.size(2);
  layer.quads = (layer.k + kQuad - 1) / kQuad;
  layer.bias = bias.detach().to(at::kCPU, at::kFloat).contiguous();
  layer.scale = (w.abs().amax(1) / 127).contiguous();
  const auto q = (w / layer.scale.clamp_min(1e-30F).unsqueeze(1)).round().to(at::kChar);
  layer.sum = q.to(at::kInt).sum(1, /*keepdim=*/false, at::kInt).contiguous();
  const std::int64_t panels = (layer.n + kPanel - 1) / kPanel;
  const auto padded =
      at::constant_pad_nd(q, {0, panels * kPanel - layer.n, 0, layer.quads * kQuad - layer.k});
  layer.weight =
      padded.view({w.size(0), layer.quads, kQuad, panels, kPanel}).permute({0, 3, 1, 4, 2}).contiguous();
  return layer;
}

at::Tensor Int8Experts::apply(const Layer& layer, const at::Tensor& rows,
                              const std::vector<std::int64_t>& start, const std::vector<std::int64_t>& count,
                              Activation activation) {
  const std::int64_t total = rows.size(0), width = layer.quads * kQuad, n = layer.n,
                     panels = (n + kPanel - 1) / kPanel;
  const auto bytes = at::empty({total, width}, at::kByte), scales = at::empty({total}, at::kFloat);
  at::parallel_for(0, total, std::max<std::int64_t>(1, 32768 / std::max<std::int64_t>(1, width)),
                   [&](std::int64_t begin, std::int64_t end) {
                     for (auto r = begin; r < end; ++r)
                       scales.mutable_data_ptr<float>()[r] =
                           row_to_bytes(rows.const_data_ptr<float>() + r * layer.k, layer.k, width,
                                        bytes.mutable_data_ptr<std::uint8_t>() + r * width);
                   });
  std::vector<Piece> pieces;
  std::vector<std::int64_t> costs;
  for (std::size_t e = 0; e < start.size(); ++e)
    for (std::int64_t r = 0; r < count[e]; r += kRows)
      for (std::int64_t c = 0; c < n; c += kColumns) {
        pieces.push_back({static_cast<std::int64_t>(e), start[e] + r, std::min(kRows, count[e] - r), c,
                          std::min(kColumns, n - c)});
        costs.push_back(pieces.back().count * pieces.back().columns);
      }
  const auto result = at::empty({total, n}, rows.options());
  share_out(costs, [&](std::int64_t i) {
    const auto& piece = pieces[static_cast<std::size_t>(i)];
    alignas(64) std::array<std::int32_t, static_cast<std::size_t>(kRows * kPanel)> product;
    float* const to = result.mutable_data_ptr<float>() + piece.first * n;
    for (std::int64_t c = piece.column; c < piece.column + piece.columns; c += kPanel) {
      const std::int64_t columns = std::min(kPanel, n - c), of_expert = piece.expert * n + c;
      const auto* const panel =
          reinterpret_cast<const signed char*>(layer.weight.const_data_ptr<std::int8_t>()) +
          (piece.expert * panels + c / kPanel) * width * kPanel;
      for (std::int64_t r = 0, m = 0; r < piece.count; r += m) {
        m = tile_rows(piece.count - r);
        multiply(m, kPanel, layer.quads, bytes.const_data_ptr<std::uint8_t>() + (piece.first + r) * width,
                 panel, product.data() + r * kPanel);
      }
      for (std::int64_t r = 0; r < piece.count; ++r) {
        float* const out = to + r * n + c;
        bytes_to_row(product.data() + r * kPanel, layer.sum.const_data_ptr<std::int32_t>() + of_expert,
                     layer.scale.const_data_ptr<float>() + of_expert,
                     scales.const_data_ptr<float>()[piece.first + r], columns, out);
        bias_activation_forward(out, layer.bias.const_data_ptr<float>() + of_expert, out, 1, columns,
                                static_cast<std::int64_t>(activation));
      }
    }
  });
  return result;
}

at::Tensor Int8Experts::mixture(const at::Tensor& x, const Assignments& assignments,
                                const MixtureSettings& settings) const {
  check_shape(x, {-1, in_.k}, "int8 mixture: x");
  if (!x.is_cpu() || x.scalar_type() != at::kFloat)
    throw Error(format("int8 mixture: x is of type {} on {}; fp32 on the CPU is needed",
                       c10::toString(x.scalar_type()), x.device().str()));
  const auto layout =
      lay_out_rows(assignments.token, assignments.expert, x.size(0), in_.scale.size(0), /*padded=*/false);
  const auto hidden =
      apply(in_, gather_tokens(x.contiguous(), *layout), layout->start, layout->count, settings.hidden);
  const auto output = apply(out_, hidden, layout->start, layout->count, settings.output);
  return combine_rows(output, assignments.gate.to(at::kFloat).contiguous(), *layout);
}

std::int64_t Int8Experts::bytes() const {
  return in_.weight.numel() + out_.weight.numel();
}

}  // namespace stoa::ops
