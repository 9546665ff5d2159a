#include "stoa/ops/attention.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/random.h"
#include "stoa/ops/attention_heads.h"
#include "stoa/ops/dropout.h"
#include "stoa/ops/gemm.h"
#include "stoa/ops/generator_scope.h"
#include "stoa/tensor/shape.h"

namespace stoa::ops {
namespace {

void check_heads(std::int64_t width, std::int64_t heads, const char* where) {
  if (heads < 1 || width == 0 || width % (3 * heads) != 0)
    throw ShapeError(
        format("{}: qkv has width {}, which must be a multiple of 3 x heads = {}", where, width, 3 * heads));
}

void check(const at::Tensor& qkv, std::int64_t heads) {
  check_shape(qkv, {-1, -1, -1}, "attention: qkv");
  check_heads(qkv.size(2), heads, "attention");
}

bool is_half(const at::Tensor& x) {
  return x.scalar_type() == at::kBFloat16 || x.scalar_type() == at::kHalf;
}

/// Half precision with dropout too: ATen, whose flash kernel has none on the CPU, turns it into float as well
/// and keeps all probabilities.
bool in_blocks(const at::Tensor& qkv, double dropout) {
  return has_gemm_blocks() && qkv.is_cpu() &&
         (qkv.scalar_type() == at::kFloat || (dropout > 0 && is_half(qkv)));
}

void check_packed(const at::Tensor& qkv, const at::Tensor& offsets, std::int64_t heads, double dropout) {
  check_shape(qkv, {-1, -1}, "packed_attention: qkv");
  check_heads(qkv.size(1), heads, "packed_attention");
  check_shape(offsets, {-1}, "packed_attention: offsets");
  if (!(dropout >= 0 && dropout < 1))
    throw ShapeError(format("packed_attention: dropout is {}, it must be at least 0 and below 1", dropout));
  if (!offsets.is_cpu() || offsets.scalar_type() != at::kLong || !offsets.is_contiguous() ||
      offsets.numel() < 1)
    throw ShapeError("packed_attention: offsets must be one or more int64 numbers on the CPU");
  const auto* const at = offsets.const_data_ptr<std::int64_t>();
  bool rising = at[0] == 0 && at[offsets.numel() - 1] == qkv.size(0);
  for (std::int64_t i = 1; i < offsets.numel(); ++i) rising = rising && at[i] > at[i - 1];
  if (!rising)
    throw ShapeError(
        format("packed_attention: offsets must rise from 0 to the number of tokens, {}", qkv.size(0)));
}

/// Offsets of sequences of one length.
at::Tensor even_offsets(std::int64_t sequences, std::int64_t tokens) {
  return at::arange(sequences + 1, at::kLong).mul_(tokens);
}

/// A call of the operator.
struct Packed {
  at::Tensor offsets;
  std::int64_t heads;
  bool causal;
  double dropout;
  std::int64_t seed, first;  ///< of the dropout: its number, and that of the first sequence within the step
  std::int64_t first_head;   ///< likewise

  /// Calls work(problem, first token, place of the head's numbers in a row, head) for each head of each
  /// sequence on all threads. Sequences of all lengths fall to every thread.
  template <class Work>
  void for_each_head(const at::Tensor& qkv, const Work& work) const {
    const std::int64_t sequences = offsets.numel() - 1, dim = qkv.size(1) / 3;
    const auto* const begins = offsets.const_data_ptr<std::int64_t>();
    at::parallel_for(0, sequences * heads, 1, [&](std::int64_t begin, std::int64_t end) {
      for (auto i = begin; i < end; ++i) {
        const auto head = i / sequences, sequence = i % sequences;
        HeadProblem problem;
        problem.tokens = begins[sequence + 1] - begins[sequence];
        problem.dim = dim;
        problem.head_dim = dim / heads;
        problem.causal = causal;
        problem.keep = static_cast<float>(1 - dropout);
        problem.seed = static_cast<std::uint64_t>(seed);
        problem.sequence = static_cast<std::uint64_t>(first + sequence);
        problem.head = static_cast<std::uint64_t>(first_head + head);
        work(problem, begins[sequence], head * (dim / heads), head);
      }
    });
  }
};

struct Pass {
  at::Tensor output;   // [tokens, dim]
  at::Tensor log_sum;  // [heads, tokens]
};

Pass run_forward(const at::Tensor& qkv, const Packed& call) {
  const std::int64_t tokens = qkv.size(0), dim = qkv.size(1) / 3;
  Pass pass{at::empty({tokens, dim}, qkv.options()), at::empty({call.heads, tokens}, qkv.options())};
  const auto* const from = qkv.const_data_ptr<float>();
  auto* const to = pass.output.mutable_data_ptr<float>();
  auto* const sums = pass.log_sum.mutable_data_ptr<float>();
  call.for_each_head(
      qkv, [&](const HeadProblem& problem, std::int64_t first, std::int64_t column, std::int64_t head) {
        forward_head(problem, from + first * 3 * dim + column, to + first * dim + column,
                     sums + head * tokens + first);
      });
  return pass;
}

at::Tensor run_backward(const at::Tensor& grad, const at::Tensor& qkv, const Pass& pass, const Packed& call) {
  const std::int64_t tokens = qkv.size(0), dim = qkv.size(1) / 3;
  const auto result = at::empty_like(qkv);
  call.for_each_head(
      qkv, [&](const HeadProblem& problem, std::int64_t first, std::int64_t column, std::int64_t head) {
        const std::int64_t wide = first * 3 * dim + column, narrow = first * dim + column;
        backward_head(problem, qkv.const_data_ptr<float>() + wide,
                      pass.output.const_data_ptr<float>() + narrow, grad.const_data_ptr<float>() + narrow,
                      pass.log_sum.const_data_ptr<float>() + head * tokens + first,
                      result.mutable_data_ptr<float>() + wide);
      });
  return result;
}

class AttentionFunction : public torch::autograd::Function<AttentionFunction> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& qkv,
                            const at::Tensor& offsets, std::int64_t heads, bool causal, double dropout,
                            std::int64_t seed, std::int64_t first, std::int64_t first_head) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto input = qkv.contiguous();
    const auto pass = run_forward(input, {offsets, heads, causal, dropout, seed, first, first_head});
    context->save_for_backward({input, pass.output, pass.log_sum, offsets});
    context->saved_data["heads"] = heads;
    context->saved_data["causal"] = causal;
    context->saved_data["dropout"] = dropout;
    context->saved_data["seed"] = seed;
    context->saved_data["first"] = first;
    context->saved_data["first_head"] = first_head;
    return pass.output;
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    if (at::GradMode::is_enabled())
      throw Error("attention: second derivatives are only available from attention_reference");
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto saved = context->get_saved_variables();
    auto& data = context->saved_data;
    const auto gradient =
        run_backward(grads[0].contiguous(), saved[0], {saved[1], saved[2]},
                     {saved[3], data["heads"].toInt(), data["causal"].toBool(), data["dropout"].toDouble(),
                      data["seed"].toInt(), data["first"].toInt(), data["first_head"].toInt()});
    return {gradient, {}, {}, {}, {}, {}, {}, {}};
  }
};

/// Queries, keys and values [batch, heads, tokens, head_dim], and which keys are seen.
struct Heads {
  at::Tensor q, k, v;
  std::optional<at::Tensor> seen;
  bool causal;
};

/// Seeds of the dropout of all queries, [batch * heads * tokens] int32: those of query_seeds() in
/// attention_heads.cpp.
at::Tensor query_seeds(const Packed& call, std::int64_t batch, std::int64_t tokens) {
  const auto seeds = at::empty({batch * call.heads * tokens}, at::kInt);
  auto* const to = seeds.mutable_data_ptr<std::int32_t>();
  at::parallel_for(0, batch * call.heads, 1, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = begin; i < end; ++i)
      for (std::int64_t query = 0; query < tokens; ++query)
        to[i * tokens + query] = static_cast<std::int32_t>(mix_seed(
            {static_cast<std::uint64_t>(call.seed), static_cast<std::uint64_t>(call.first + i / call.heads),
             static_cast<std::uint64_t>(call.first_head + i % call.heads),
             static_cast<std::uint64_t>(query)}));
  });
  return seeds;
}

/// Plain products with the blocks' dropout: what ATen's generator drew would depend on how heads and samples
/// are dealt out.
at::Tensor attend_and_drop(const Heads& x, const Packed& call) {
  static const auto drop = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("stoa::dropout", "")
                               .typed<at::Tensor(const at::Tensor&, const at::Tensor&, double)>();
  // half precision is computed in float, as ATen does it, which autocast would undo
  const c10::impl::ExcludeDispatchKeyGuard without_autocast(c10::autocast_dispatch_keyset);
  const auto wide = [](const at::Tensor& part) { return is_half(part) ? part.to(at::kFloat) : part; };
  const std::int64_t tokens = x.q.size(2);
  auto scores = (wide(x.q) / std::sqrt(static_cast<double>(x.q.size(3)))).matmul(wide(x.k).transpose(2, 3));
  const auto hide = [&](const at::Tensor& hidden) {
    scores = scores.masked_fill(hidden, -std::numeric_limits<double>::infinity());
  };
  if (x.seen) hide(x.seen->logical_not());
  if (x.causal) hide(at::ones({tokens, tokens}, x.q.options().dtype(at::kBool)).triu(1));
  const auto p = scores.softmax(-1);
  const auto kept = drop.call(p.view({-1, tokens}), query_seeds(call, p.size(0), tokens), call.dropout);
  return kept.view(p.sizes()).matmul(wide(x.v)).to(x.q.scalar_type());
}

at::Tensor attend(const Heads& x, const Packed& call) {
  if (call.dropout > 0 && x.q.is_cpu() && x.q.numel() > 0) return attend_and_drop(x, call);
  // on a GPU at least no two processes draw the same for different heads
  std::optional<GeneratorScope> named;
  if (call.dropout > 0 && !x.q.is_cpu() && !x.q.is_meta())
    named.emplace(x.q.device(),
                  mix_seed({static_cast<std::uint64_t>(call.seed), static_cast<std::uint64_t>(call.first),
                            static_cast<std::uint64_t>(call.first_head)}));
  return at::scaled_dot_product_attention(x.q, x.k, x.v, x.seen, call.dropout, x.causal);
}

at::Tensor by_heads(const at::Tensor& qkv, const std::optional<at::Tensor>& seen, bool causal,
                    const Packed& call) {
  const std::int64_t batch = qkv.size(0), tokens = qkv.size(1), dim = qkv.size(2) / 3;
  const auto parts =
      qkv.view({batch, tokens, 3, call.heads, dim / call.heads}).permute({2, 0, 3, 1, 4}).unbind(0);
  const auto mixed = attend({parts[0], parts[1], parts[2], seen, causal}, call);
  return mixed.transpose(1, 2).reshape({batch, tokens, dim});
}

/// By ATen: sequences are padded to the longest, and padding is seen by none.
at::Tensor padded(const at::Tensor& qkv, const Packed& call) {
  const std::int64_t sequences = call.offsets.numel() - 1;
  if (sequences == 0) return qkv.narrow(1, 0, qkv.size(1) / 3).clone();
  const auto lengths = call.offsets.diff();
  const auto longest = lengths.max().item<std::int64_t>();
  const auto by_sequence = [&](const at::Tensor& rows) {
    return rows.view({sequences, longest, rows.size(1)});
  };
  if (lengths.eq(longest).all().item<bool>())
    return by_heads(by_sequence(qkv.contiguous()), {}, call.causal, call).flatten(0, 1);
  const auto real =
      at::arange(longest, at::kLong).lt(lengths.unsqueeze(1)).to(qkv.device());  // [sequences, longest]
  const auto places = real.flatten().nonzero().squeeze(1);
  const auto spread =
      by_sequence(at::zeros({sequences * longest, qkv.size(1)}, qkv.options()).index_copy(0, places, qkv));
  auto seen = real.view({sequences, 1, 1, longest});
  if (call.causal) seen = seen.logical_and(at::ones({longest, longest}, real.options()).tril());
  return by_heads(spread, seen, false, call).flatten(0, 1).index_select(0, places);
}

at::Tensor compute_packed(const at::Tensor& qkv, const at::Tensor& offsets, std::int64_t heads, bool causal,
                          double dropout, std::int64_t seed, std::int64_t first, std::int64_t first_head) {
  check_packed(qkv, offsets, heads, dropout);
  const Packed call{offsets, heads, causal, dropout, seed, first, first_head};
  if (!in_blocks(qkv, dropout)) return padded(qkv, call);
  return run_forward(qkv.to(at::kFloat).contiguous(), call).output.to(qkv.scalar_type());
}

at::Tensor call_packed(const at::Tensor& qkv, const at::Tensor& offsets, std::int64_t heads, bool causal,
                       double dropout, std::int64_t seed, std::int64_t first, std::int64_t first_head) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("stoa::packed_attention", "")
                             .typed<decltype(compute_packed)>();
  return op.call(qkv, offsets, heads, causal, dropout, seed, first, first_head);
}

at::Tensor differentiate_packed(const at::Tensor& qkv, const at::Tensor& offsets, std::int64_t heads,
                                bool causal, double dropout, std::int64_t seed, std::int64_t first,
                                std::int64_t first_head) {
  if (!qkv.requires_grad() || !at::GradMode::is_enabled()) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    return call_packed(qkv, offsets, heads, causal, dropout, seed, first, first_head);
  }
  check_packed(qkv, offsets, heads, dropout);
  if (!in_blocks(qkv, dropout))
    return padded(qkv, {offsets, heads, causal, dropout, seed, first, first_head});
  return AttentionFunction::apply(qkv.to(at::kFloat), offsets, heads, causal, dropout, seed, first,
                                  first_head)
      .to(qkv.scalar_type());
}

at::Tensor shape_only_packed(const at::Tensor& qkv, const at::Tensor&, std::int64_t, bool, double,
                             std::int64_t, std::int64_t, std::int64_t) {
  return at::empty({qkv.size(0), qkv.size(1) / 3}, qkv.options());
}

/// Sequences of one length, as the packed form takes them.
at::Tensor evenly(const at::Tensor& qkv, std::int64_t heads, double dropout, std::int64_t seed,
                  std::int64_t first_head) {
  check(qkv, heads);
  const std::int64_t first = batch_part().first_sample;
  if (qkv.numel() == 0 || !in_blocks(qkv, dropout))
    return by_heads(qkv, {}, false, {{}, heads, false, dropout, seed, first, first_head});
  const auto offsets = even_offsets(qkv.size(0), qkv.size(1));
  return call_packed(qkv.flatten(0, 1), offsets, heads, false, dropout, seed, first, first_head)
      .view({qkv.size(0), qkv.size(1), -1});
}

at::Tensor compute(const at::Tensor& qkv, std::int64_t heads) {
  return evenly(qkv, heads, 0, 0, 0);
}

at::Tensor shape_only(const at::Tensor& qkv, std::int64_t heads) {
  check(qkv, heads);
  return at::empty({qkv.size(0), qkv.size(1), qkv.size(2) / 3}, qkv.options());
}

/// Scaled scores of one sequence [1, tokens, 3 dim] by heads, hidden keys at minus infinity.
at::Tensor plain(const at::Tensor& qkv, std::int64_t heads, bool causal) {
  const std::int64_t batch = qkv.size(0), tokens = qkv.size(1), dim = qkv.size(2) / 3;
  const auto parts = qkv.reshape({batch, tokens, 3, heads, dim / heads}).permute({2, 0, 3, 1, 4});
  auto scores = parts[0].matmul(parts[1].transpose(2, 3)) / std::sqrt(static_cast<double>(dim / heads));
  if (causal) {
    const auto later = at::ones({tokens, tokens}, qkv.options().dtype(at::kBool)).triu(1);
    scores = scores.masked_fill(later, -std::numeric_limits<double>::infinity());
  }
  return scores.softmax(-1).matmul(parts[2]).transpose(1, 2).reshape({batch, tokens, dim});
}

}  // namespace

at::Tensor attention(const at::Tensor& qkv, std::int64_t heads, double dropout, std::int64_t first_head) {
  return evenly(qkv, heads, dropout, dropout_seed(dropout), first_head);
}

at::Tensor attention_reference(const at::Tensor& qkv, std::int64_t heads) {
  check(qkv, heads);
  return plain(qkv, heads, false);
}

at::Tensor packed_attention(const at::Tensor& qkv, const at::Tensor& offsets,
                            const PackedAttentionOptions& options) {
  return call_packed(qkv, offsets, options.heads, options.causal, options.dropout,
                     dropout_seed(options.dropout), batch_part().first_sample, options.first_head);
}

at::Tensor packed_attention_reference(const at::Tensor& qkv, const at::Tensor& offsets,
                                      const PackedAttentionOptions& options) {
  check_packed(qkv, offsets, options.heads, 0);
  std::vector<at::Tensor> outputs = {qkv.new_empty({0, qkv.size(1) / 3})};
  const auto* const begins = offsets.const_data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i + 1 < offsets.numel(); ++i)
    outputs.push_back(
        plain(qkv.slice(0, begins[i], begins[i + 1]).unsqueeze(0), options.heads, options.causal).squeeze(0));
  return at::cat(outputs);
}

TORCH_LIBRARY_FRAGMENT(stoa, m) {
  m.def("attention(Tensor qkv, int heads) -> Tensor");
  m.def(
      "packed_attention(Tensor qkv, Tensor offsets, int heads, bool causal, float dropout, int seed, int "
      "first_sequence, int first_head) -> Tensor");
}
TORCH_LIBRARY_IMPL(stoa, CompositeImplicitAutograd, m) {
  m.impl("attention", &compute);
}
TORCH_LIBRARY_IMPL(stoa, CompositeExplicitAutograd, m) {
  m.impl("packed_attention", &compute_packed);
}
TORCH_LIBRARY_IMPL(stoa, Autograd, m) {
  m.impl("packed_attention", &differentiate_packed);
}
TORCH_LIBRARY_IMPL(stoa, Meta, m) {
  m.impl("attention", &shape_only);
  m.impl("packed_attention", &shape_only_packed);
}

}  // namespace stoa::ops
