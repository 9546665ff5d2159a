#include "stoa/ops/dropout.h"

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <limits>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/random.h"
#include "stoa/ops/attention_kernels.h"
#include "stoa/ops/generator_scope.h"
#include "stoa/ops/row_blocks.h"
#include "stoa/tensor/shape.h"

namespace stoa::ops {
namespace {

BatchPart part;  // of the process: one thread trains, and a backward pass on a GPU's runs layers again

std::int64_t rows_of(const at::Tensor& x) {
  return x.size(-1) == 0 ? 0 : x.numel() / x.size(-1);
}

void check(const at::Tensor& x, double rate) {
  if (x.dim() < 1) throw ShapeError("dropout: x has no dimension; [*, columns] is needed");
  if (!(rate >= 0 && rate < 1))
    throw ShapeError(format("dropout: the rate is {}, it must be at least 0 and below 1", rate));
}

bool on_kernels(const at::Tensor& x) {
  return x.is_cpu() && x.scalar_type() == at::kFloat;
}

/// Drops numbers of contiguous fp32 rows in place.
void drop(const at::Tensor& x, const at::Tensor& seeds, double rate) {
  const std::int64_t columns = x.size(-1);
  auto* const data = x.mutable_data_ptr<float>();
  const auto* const seed = reinterpret_cast<const std::uint32_t*>(seeds.const_data_ptr<std::int32_t>());
  for_some_rows(rows_of(x), columns, [&](std::int64_t begin, std::int64_t count) {
    drop_rows(data + begin * columns, seed + begin, static_cast<float>(1 - rate), count, columns);
  });
}

at::Tensor compute(const at::Tensor& x, const at::Tensor& seeds, double rate) {
  check(x, rate);
  check_shape(seeds, {rows_of(x)}, "dropout: seeds of the rows");
  if (!on_kernels(x)) return dropout_reference(x, rate, seeds);
  const auto y = x.clone(at::MemoryFormat::Contiguous);
  drop(y, seeds, rate);
  return y;
}

at::Tensor call(const at::Tensor& x, const at::Tensor& seeds, double rate) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("stoa::dropout", "").typed<decltype(compute)>();
  return op.call(x, seeds, rate);
}

class DropoutFunction : public torch::autograd::Function<DropoutFunction> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& seeds, double rate) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    context->save_for_backward({seeds});
    context->saved_data["rate"] = rate;
    return compute(x, seeds, rate);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    return {
        call(grads[0], context->get_saved_variables()[0], context->saved_data["rate"].toDouble()), {}, {}};
  }
};

at::Tensor differentiate(const at::Tensor& x, const at::Tensor& seeds, double rate) {
  if (x.requires_grad() && at::GradMode::is_enabled() && on_kernels(x))
    return DropoutFunction::apply(x, seeds, rate);
  if (x.requires_grad() && at::GradMode::is_enabled()) return dropout_reference(x, rate, seeds);
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  return call(x, seeds, rate);
}

at::Tensor shape_only(const at::Tensor& x, const at::Tensor&, double) {
  return at::empty_like(x);
}

/// Keys of the rows of a tensor whose first dimension is samples.
at::Tensor keys_in_order(const at::Tensor& x) {
  const std::int64_t rows = rows_of(x), samples = x.dim() > 1 ? x.size(0) : 1;
  const std::int64_t begin = samples == 0 ? 0 : part.first_sample * (rows / samples);
  return at::arange(begin, begin + rows, at::kLong);
}

}  // namespace

at::Tensor dropout(const at::Tensor& x, double rate, const at::Tensor& keys, std::int64_t first_column) {
  check(x, rate);
  if (rate == 0 || x.numel() == 0) return x;
  const std::int64_t seed = dropout_seed(rate);
  const auto rows = keys.defined() ? keys : keys_in_order(x);
  if (x.is_cpu()) return call(x, row_seeds(seed, rows, first_column), rate);
  if (x.is_meta()) return at::dropout(x, rate, /*train=*/true);
  // ATen's generator, but at least no two processes draw the same for different rows or columns
  const GeneratorScope named(x.device(), mix_seed({static_cast<std::uint64_t>(seed),
                                                   static_cast<std::uint64_t>(rows[0].item<std::int64_t>()),
                                                   static_cast<std::uint64_t>(first_column)}));
  return at::dropout(x, rate, /*train=*/true);
}

at::Tensor dropout_reference(const at::Tensor& x, double rate, const at::Tensor& seeds) {
  check(x, rate);
  const auto mask = at::ones(x.sizes(), x.options().dtype(at::kFloat).requires_grad(false));
  drop(mask, seeds, rate);
  if (x.scalar_type() == at::kDouble)  // as exact as block attention's tiles
    return x * mask.ne(0).to(at::kDouble).div_(1 - rate);
  return x * mask.to(x.scalar_type());
}

at::Tensor row_seeds(std::int64_t call, const at::Tensor& keys, std::int64_t first_column) {
  check_shape(keys, {-1}, "dropout: keys");
  const auto from = keys.to(at::kCPU, at::kLong).contiguous();
  const auto seeds = at::empty({keys.numel()}, at::kInt);
  // mixed_bits() adds column * kColumnStep to a row's seed
  const auto shift = static_cast<std::uint32_t>(first_column) * kColumnStep;
  for (std::int64_t i = 0; i < keys.numel(); ++i)
    seeds.mutable_data_ptr<std::int32_t>()[i] =
        static_cast<std::int32_t>(static_cast<std::uint32_t>(mix_seed(
                                      {static_cast<std::uint64_t>(call),
                                       static_cast<std::uint64_t>(from.const_data_ptr<std::int64_t>()[i])})) +
                                  shift);
  return seeds;
}

std::int64_t dropout_seed(double rate) {
  if (rate <= 0) return 0;
  if (part.seed)
    return static_cast<std::int64_t>(mix_seed({*part.seed, static_cast<std::uint64_t>(part.calls++)}) >> 1);
  return at::randint(std::numeric_limits<std::int64_t>::max(), {1}, at::kLong).item<std::int64_t>();
}

BatchPart batch_part() {
  return part;
}

BatchPartScope::BatchPartScope(const BatchPart& now) : before_(std::exchange(part, now)) {}

BatchPartScope::~BatchPartScope() {
  part = before_;
}

TORCH_LIBRARY_FRAGMENT(stoa, m) {
  m.def("dropout(Tensor x, Tensor row_seeds, float rate) -> Tensor");
}
TORCH_LIBRARY_IMPL(stoa, CompositeExplicitAutograd, m) {
  m.impl("dropout", &compute);
}
TORCH_LIBRARY_IMPL(stoa, Autograd, m) {
  m.impl("dropout", &differentiate);
}
TORCH_LIBRARY_IMPL(stoa, Meta, m) {
  m.impl("dropout", &shape_only);
}

}  // namespace stoa::ops
