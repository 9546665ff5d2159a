#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace stoa::ops {

/// Elementwise functions a mixture's experts may use.
enum class Activation : std::int64_t { kNone = 0, kGeluTanh = 1, kGeluErf = 2, kRelu = 3 };

/// How the mixture is computed. All give the same numbers; kSorted is the fast one.
enum class MixtureBackend : std::int64_t {
  kNaive = 0,  ///< a loop over experts with boolean selections: the plain reference
  kPadded =
      1,  ///< every expert's rows padded to the largest count, batched products over [experts, rows, dim]
  kSorted = 2,  ///< rows sorted by expert once, one product an expert on its own rows, scattered back with
                ///< the gates
};

/// Experts' weights, stacked: a two-layer perceptron each, y = act_out(act(x w_in + b_in) w_out + b_out), row
/// vectors.
struct ExpertWeights {
  at::Tensor w_in;   ///< [experts, dim, hidden]
  at::Tensor b_in;   ///< [experts, hidden]
  at::Tensor w_out;  ///< [experts, hidden, dim_out]
  at::Tensor b_out;  ///< [experts, dim_out]
};

/// Which rows go to which experts, as a list of assignments in any order. A row may appear any number of
/// times.
struct Assignments {
  at::Tensor token;   ///< [assignments] int64, rows of x
  at::Tensor expert;  ///< [assignments] int64
  at::Tensor gate;    ///< [assignments], weight of the expert's answer in the row's result; differentiable
};

struct MixtureSettings {
  Activation hidden = Activation::kGeluTanh;
  Activation output = Activation::kNone;
  MixtureBackend backend = MixtureBackend::kSorted;
  bool bf16 =
      false;  ///< round the operands of products to bf16, as in linear(); kSorted in fp32 on a CPU only
};

/// y[n] = sum over the assignments a of token n of gate_a * FFN_{expert_a}(x[n]) (widenet.md 2.2), for x
/// [tokens, dim]; y [tokens, dim_out] in x's dtype. Tokens without assignment get 0. Differentiable in x, the
/// gates and the weights; an expert without tokens has zero gradients. `hidden_mask` [assignments, hidden]
/// and `output_mask` [assignments, dim_out] are dropout masks, already scaled, multiplied behind each
/// activation; undefined means none. Allocates O(assignments * (dim + hidden)); kPadded up to experts times
/// as much. Throws ShapeError for shapes that do not fit, Error for an index out of range.
at::Tensor mixture(const at::Tensor& x, const Assignments& assignments, const ExpertWeights& weights,
                   const MixtureSettings& settings, const at::Tensor& hidden_mask = {},
                   const at::Tensor& output_mask = {});

/// The kNaive form built of differentiable ATen calls alone: what every other form is held to.
at::Tensor mixture_reference(const at::Tensor& x, const Assignments& assignments,
                             const ExpertWeights& weights, const MixtureSettings& settings,
                             const at::Tensor& hidden_mask = {}, const at::Tensor& output_mask = {});

}  // namespace stoa::ops
