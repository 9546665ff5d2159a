#include "stoa/nn/split_vocabulary.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <optional>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/ops/linear.h"
#include "stoa/tensor/shape.h"

namespace stoa::nn {
namespace {

constexpr std::int64_t kScoreBytes = std::int64_t{64} << 20;  ///< of the scores in memory at a time

RowShare share_of(std::int64_t vocabulary, const WeightExchange& exchange) {
  return {vocabulary, exchange.part(), exchange.parts()};
}

/// Ids as rows of this process's share: `mine` where they are, and some row where they are not.
struct OwnRows {
  OwnRows(const at::Tensor& ids, const RowShare& share)
      : mine(ids.ge(share.first).logical_and(ids.lt(share.first + share.count))),
        rows((ids - share.first).clamp(0, share.count - 1)) {}
  at::Tensor mine, rows;
};

/// Losses of rows that count, and with `gradients` those of the mean loss, as far as this process's share of
/// the vocabulary makes them.
struct Pass {
  at::Tensor row_loss, correct, x, weight, bias;
};

struct Problem {
  at::Tensor weight, bias;
  RowShare share;
  std::int64_t vocabulary;
  double smoothing;
  const WeightExchange& exchange;
};

void pass_rows(const Problem& p, const at::Tensor& x, const at::Tensor& target, std::int64_t begin,
               std::int64_t all, bool gradients, Pass& pass) {
  const std::int64_t rows = x.size(0);
  const auto type = pass.row_loss.scalar_type();
  auto z = ops::linear(x, p.weight, p.bias).to(type);
  const OwnRows own(target, p.share);
  const auto top = z.amax(1);
  p.exchange.take_maximum(top);
  const auto of_target = z.gather(1, own.rows.unsqueeze(1)).squeeze(1) * own.mine.to(type);
  const auto all_scores = z.sum(1);
  z.sub_(top.unsqueeze(1)).exp_();
  const auto sums = at::stack({z.sum(1), of_target, all_scores});
  p.exchange.add_up(sums);
  const auto own_loss = top + sums[0].log() - (1 - p.smoothing) * sums[1] -
                        p.smoothing / static_cast<double>(p.vocabulary) * sums[2];
  pass.row_loss.narrow(0, begin, rows).copy_(own_loss);
  pass.correct.narrow(0, begin, rows).copy_(sums[1].ge(top));
  if (!gradients) return;
  z.div_(sums[0].unsqueeze(1)).sub_(p.smoothing / static_cast<double>(p.vocabulary));
  z.scatter_add_(1, own.rows.unsqueeze(1), (own.mine.to(type) * (p.smoothing - 1)).unsqueeze(1));
  z.div_(static_cast<double>(all));
  const auto scores = z.to(p.weight.scalar_type());
  pass.x.narrow(0, begin, rows).copy_(scores.matmul(p.weight));
  pass.weight.add_(scores.t().matmul(x.to(p.weight.scalar_type())));
  if (pass.bias.defined()) pass.bias.add_(scores.sum(0));
}

Pass pass_all(const Problem& p, const at::Tensor& x, const at::Tensor& target, bool gradients) {
  const std::int64_t rows = x.size(0);
  const auto type = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  Pass pass;
  pass.row_loss = at::empty({rows}, x.options().dtype(type));
  pass.correct = at::empty({rows}, x.options().dtype(at::kBool));
  if (gradients) {
    pass.x = at::empty({rows, x.size(1)}, x.options().dtype(type));
    pass.weight = at::zeros_like(p.weight);
    if (p.bias.defined()) pass.bias = at::zeros_like(p.bias);
  }
  const std::int64_t step = std::max<std::int64_t>(
      1, kScoreBytes /
             std::max<std::int64_t>(p.share.rows * static_cast<std::int64_t>(c10::elementSize(type)), 1));
  for (std::int64_t begin = 0; begin < rows; begin += step) {
    const std::int64_t count = std::min(step, rows - begin);
    pass_rows(p, x.narrow(0, begin, count), target.narrow(0, begin, count), begin, rows, gradients, pass);
  }
  return pass;
}

class CrossEntropyFunction : public torch::autograd::Function<CrossEntropyFunction> {
 public:
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context,
                                                const at::Tensor& x, const at::Tensor&,
                                                const std::optional<at::Tensor>&, const at::Tensor& target,
                                                const Problem* problem, bool gradients) {
    auto pass = pass_all(*problem, x, target, gradients);
    if (gradients) context->save_for_backward({pass.x.to(x.scalar_type()), pass.weight, pass.bias});
    context->mark_non_differentiable({pass.row_loss, pass.correct});
    return {pass.row_loss.mean(), pass.row_loss, pass.correct};
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const auto scaled = [&](const at::Tensor& gradient) {
      return gradient.defined() ? gradient * grads[0].to(gradient.scalar_type()) : gradient;
    };
    return {scaled(saved[0]), scaled(saved[1]), scaled(saved[2]), {}, {}, {}};
  }
};

}  // namespace

at::Tensor split_embedding(const at::Tensor& weight, const at::Tensor& ids, std::int64_t vocabulary,
                           const WeightExchange& exchange) {
  const OwnRows own(ids, share_of(vocabulary, exchange));
  return exchange.sum(at::embedding(weight, own.rows) * own.mine.unsqueeze(-1).to(weight.scalar_type()));
}

ops::LinearCrossEntropy split_cross_entropy(const at::Tensor& x, const at::Tensor& weight,
                                            const at::Tensor& bias, const at::Tensor& target,
                                            std::int64_t vocabulary, double label_smoothing,
                                            std::int64_t ignore_index, const WeightExchange& exchange) {
  const auto share = share_of(vocabulary, exchange);
  check_shape(weight, {share.count, x.size(-1)}, "split_cross_entropy: weight");
  check_shape(target, {x.size(0)}, "split_cross_entropy: target");
  const auto counts = target.ne(ignore_index);
  const auto outside = counts.logical_and(target.lt(0).logical_or(target.ge(vocabulary))).nonzero();
  if (outside.numel() > 0)
    throw DataError(format("split_cross_entropy: the target of row {} is {}; a class from 0 to {} is needed",
                           outside[0].item<std::int64_t>(),
                           target[outside[0].item<std::int64_t>()].item<std::int64_t>(), vocabulary - 1));
  const auto places = counts.nonzero().squeeze(1);
  const bool all = places.numel() == target.numel();
  const auto rows = exchange.spread(x);
  const bool gradients = at::GradMode::is_enabled() && (x.requires_grad() || weight.requires_grad());
  const Problem problem{weight, bias, share, vocabulary, label_smoothing, exchange};
  if (places.numel() == 0) {
    const auto none = 0 * (rows.sum() + weight.sum());
    return {none, at::zeros({target.numel()}, none.options()), target.ne(target)};
  }
  const auto found = CrossEntropyFunction::apply(
      all ? rows : rows.index_select(0, places), weight, bias.defined() ? std::optional(bias) : std::nullopt,
      all ? target : target.index_select(0, places), &problem, gradients);
  if (all) return {found[0], found[1], found[2]};
  const auto spread_out = [&](const at::Tensor& values) {
    return at::zeros({target.numel()}, values.options()).index_copy(0, places, values);
  };
  return {found[0], spread_out(found[1]), spread_out(found[2])};
}

}  // namespace stoa::nn
