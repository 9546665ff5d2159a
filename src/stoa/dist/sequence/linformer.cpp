#include "stoa/dist/sequence/linformer.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <memory>
#include <optional>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/ops/dropout.h"
#include "stoa/tensor/shape.h"

namespace stoa::dist {
namespace {

/// What a backward pass needs beside differentiable tensors.
struct ProjectCall : torch::CustomClassHolder {
  ProjectCall(Group* g, at::Tensor p) : group(g), padding(std::move(p)) {}
  Group* group;        ///< null: all tokens are here
  at::Tensor padding;  ///< [batch, C, 1, 1] bool; undefined for none
};

at::Tensor summed(const at::Tensor& x, Group* group) {
  auto sum = x.contiguous();
  if (group == nullptr) return sum;
  if (sum.is_same(x)) sum = x.clone();
  group->all_reduce(sum);
  return sum;
}

/// [batch, C, heads, head_dim] -> [batch, C, heads * head_dim], a view where heads lie side by side
at::Tensor rows_of(const at::Tensor& x) {
  return x.flatten(2, 3);
}

/// Keys and values [batch, C, heads, head_dim] projected by e and f [K, C], summed over all ranks: [2, batch,
/// K, heads, head_dim]. What each rank's loss depends on is the sum, so its gradient is summed too. Keeps
/// nothing but its arguments: autograd's products of a matrix with a batch would keep copies.
class Project : public torch::autograd::Function<Project> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& k,
                            const at::Tensor& v, const at::Tensor& e, const at::Tensor& f,
                            const c10::intrusive_ptr<ProjectCall>& call) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    context->save_for_backward({k, v, e, f});
    context->saved_data["call"] = c10::IValue::make_capsule(call);
    const std::int64_t batch = k.size(0), rows = e.size(0);
    auto both = at::empty({2, batch, rows, k.size(2) * k.size(3)}, k.options());
    const auto project = [&](std::int64_t i, const at::Tensor& by, const at::Tensor& x) {
      auto out = both[i];
      at::bmm_out(out, by.expand({batch, rows, by.size(1)}), rows_of(real(x, call->padding)));
    };
    project(0, e, k);
    project(1, f, v);
    return summed(both, call->group).view({2, batch, rows, k.size(2), k.size(3)});
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    if (at::GradMode::is_enabled()) throw Error("linformer_attention: second derivatives are not available");
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto saved = context->get_saved_variables();
    const auto &k = saved[0], &v = saved[1], &e = saved[2], &f = saved[3];
    const auto handle = context->saved_data["call"].toCapsule();
    const auto& call = static_cast<const ProjectCall&>(*handle);
    const auto& padding = call.padding;
    const auto sums = summed(grads[0], call.group).flatten(3, 4);
    return {of_input(e, sums[0], k, padding),
            of_input(f, sums[1], v, padding),
            of_projection(e, sums[0], real(k, padding)),
            of_projection(f, sums[1], real(v, padding)),
            {}};
  }

 private:
  static at::Tensor real(const at::Tensor& x, const at::Tensor& padding) {
    return padding.defined() ? x.masked_fill(padding, 0) : x;
  }
  /// The gradient [batch, K, heads * head_dim] of the rows on its way through a projection.
  static at::Tensor of_input(const at::Tensor& projection, const at::Tensor& grad, const at::Tensor& x,
                             const at::Tensor& padding) {
    const auto turned = projection.t().expand({x.size(0), projection.size(1), projection.size(0)});
    return real(at::bmm(turned, grad).view(x.sizes()), padding);
  }
  /// Sample by sample, in a wide type: all at once would be [batch, K, C].
  static at::Tensor of_projection(const at::Tensor& projection, const at::Tensor& grad, const at::Tensor& x) {
    const auto wide = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    auto sum = at::zeros(projection.sizes(), projection.options().dtype(wide));
    const auto rows = rows_of(x);
    for (std::int64_t i = 0; i < x.size(0); ++i) {
      if (wide == x.scalar_type())
        sum.addmm_(grad[i], rows[i].t());
      else
        sum.add_(at::mm(grad[i], rows[i].t()));
    }
    return sum.to(projection.scalar_type());
  }
};

/// `group` null: all tokens are here.
at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& e,
                  const at::Tensor& f, Group* group, const LinformerOptions& options) {
  check_shape(q, {-1, -1, -1, -1}, "linformer_attention: q");
  check_shape(k, {q.size(0), q.size(1), -1, q.size(3)}, "linformer_attention: k");
  check_shape(v, {q.size(0), q.size(1), k.size(2), q.size(3)}, "linformer_attention: v");
  check_shape(e, {-1, -1}, "linformer_attention: e");
  check_shape(f, {e.size(0), e.size(1)}, "linformer_attention: f");
  const int ranks = group == nullptr ? 1 : group->size(), rank = group == nullptr ? 0 : group->rank();
  const std::int64_t length = q.size(1) * ranks;
  if (e.size(1) != q.size(1) || (options.length != 0 && options.length != length))
    throw ConfigError(format(
        "linformer_attention: {} tokens on {} ranks, but E and F were made for {}; pad or cut the sequence "
        "to that",
        length, ranks, options.length != 0 ? options.length : e.size(1) * ranks));
  const auto positions = token_positions(options.order, length, ranks, rank);
  at::Tensor padding;  // of this rank's tokens
  if (options.valid.defined()) {
    check_shape(options.valid, {q.size(0), length}, "linformer_attention: valid");
    const auto own = options.valid.index_select(1, positions.to(options.valid.device())).to(q.device());
    padding = own.logical_not().unsqueeze(2).unsqueeze(3);
  }
  const auto type = k.scalar_type();
  const auto sums =
      Project::apply(k, v, e.to(type), f.to(type), c10::make_intrusive<ProjectCall>(group, padding));
  ops::BlockAttentionOptions block;
  block.mask.query_positions = positions;
  block.dropout = options.dropout;
  block.scale = options.scale;
  return ops::block_attention(q, sums[0], sums[1], block).out;
}

/// Stands in for another exchange, or for none.
class LinformerExchange final : public nn::TokenExchange {
 public:
  LinformerExchange(nn::PackedTokens tokens, at::Tensor e, at::Tensor f)
      : tokens_(std::move(tokens)), e_(std::move(e)), f_(std::move(f)) {
    if (!tokens_.exchange && tokens_.places.defined())
      places_ = tokens_.places.div(tokens_.padded, "floor") * tokens_.longest +
                tokens_.places.remainder(tokens_.padded);
    if (!tokens_.exchange) return;
    split_ = dynamic_cast<const SplitSequences*>(tokens_.exchange.get());
    if (split_ == nullptr)
      throw ConfigError("Linformer's attention does not know how the sequences are split; keep them whole");
  }

  at::Tensor attend(const at::Tensor& qkv, const ops::PackedAttentionOptions& options) const override {
    if (options.causal)
      throw ConfigError(
          "Linformer's attention has no causal form, as each row of E sees all tokens; set `model.linformer` "
          "to 0");
    LinformerOptions linformer;
    linformer.dropout = {options.dropout, ops::dropout_seed(options.dropout), ops::batch_part().first_sample,
                         options.first_head};
    const std::int64_t dim = qkv.size(1) / 3;
    const auto by_heads = [&](const at::Tensor& rows) {
      return rows.view({tokens_.sequences(), -1, 3, options.heads, dim / options.heads}).unbind(2);
    };
    if (split_ != nullptr) {
      const auto parts = by_heads(qkv);
      const auto own = tokens_.positions.narrow(0, 0, parts[0].size(1));  // of every sequence alike
      const auto& split = split_->split();
      linformer.order = split.order;
      linformer.valid = split_->valid();
      const auto out = dist::attend(parts[0], parts[1], parts[2], e_.index_select(1, own),
                                    f_.index_select(1, own), split.group.get(), linformer);
      return out.reshape({-1, dim});
    }
    const auto parts = by_heads(padded(qkv));
    const auto columns = [&](const at::Tensor& x) { return x.narrow(1, 0, tokens_.longest); };
    const auto out = dist::attend(parts[0], parts[1], parts[2], columns(e_), columns(f_), nullptr, linformer)
                         .flatten(0, 1)
                         .flatten(1, 2);
    return places_.defined() ? out.index_select(0, places_) : out;
  }

  bool has_first() const override { return !tokens_.exchange || tokens_.exchange->has_first(); }
  at::Tensor sum(const at::Tensor& values) const override {
    return tokens_.exchange ? tokens_.exchange->sum(values) : values.detach().clone();
  }

 private:
  /// rows [tokens, width] -> [sequences, longest, width], 0 in the padding, which so adds nothing to the
  /// projections. PackedTokens::unpack would keep the rows for its backward pass.
  at::Tensor padded(const at::Tensor& rows) const {
    const std::int64_t sequences = tokens_.sequences(), longest = tokens_.longest, width = rows.size(1);
    const auto all = places_.defined() ? at::index_put(rows.new_zeros({sequences * longest, width}),
                                                       c10::List<std::optional<at::Tensor>>({places_}), rows)
                                       : rows;
    return all.view({sequences, longest, width});
  }

  nn::PackedTokens tokens_;
  at::Tensor e_, f_;
  at::Tensor places_;  // of tokens among sequences as long as the longest; undefined without padding
  const SplitSequences* split_ = nullptr;  // of tokens_.exchange; null where all tokens are here
};

}  // namespace

at::Tensor linformer_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               const at::Tensor& e, const at::Tensor& f, Group& group,
                               const LinformerOptions& options) {
  return attend(q, k, v, e, f, &group, options);
}

nn::PackedTokens with_linformer(const nn::PackedTokens& tokens, const at::Tensor& e, const at::Tensor& f) {
  check_shape(e, {-1, -1}, "with_linformer: e");
  check_shape(f, {e.size(0), e.size(1)}, "with_linformer: f");
  if (!tokens.exchange && tokens.longest > e.size(1))
    throw ConfigError(
        format("a sequence of {} tokens, but Linformer's E and F have {} columns (`model.positions`); cut it",
               tokens.longest, e.size(1)));
  auto projected = tokens;
  projected.exchange = std::make_shared<LinformerExchange>(tokens, e, f);
  return projected;
}

}  // namespace stoa::dist
