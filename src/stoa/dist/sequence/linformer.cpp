#include "stoa/dist/sequence/linformer.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/tensor/shape.h"

namespace stoa::dist {
namespace {

struct GroupHandle : torch::CustomClassHolder {
  explicit GroupHandle(Group& g) : group(g) {}
  Group& group;
};

/// The sum over all ranks. What each rank's loss depends on is the sum, so gradients are summed too.
class SumOverRanks : public torch::autograd::Function<SumOverRanks> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const c10::intrusive_ptr<GroupHandle>& handle) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    context->saved_data["group"] = c10::IValue::make_capsule(handle);
    return summed(x, handle->group);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto handle = context->saved_data["group"].toCapsule();
    return {summed(grads[0], static_cast<const GroupHandle&>(*handle).group), at::Tensor()};
  }

 private:
  static at::Tensor summed(const at::Tensor& x, Group& group) {
    auto sum = x.clone(at::MemoryFormat::Contiguous);
    group.all_reduce(sum);
    return sum;
  }
};

/// projection [K, C] of x [batch, C, heads, head_dim] -> [batch, K, heads, head_dim]
at::Tensor project(const at::Tensor& projection, const at::Tensor& x) {
  const auto rows = projection.matmul(x.flatten(2, 3));
  return rows.view({x.size(0), projection.size(0), x.size(2), x.size(3)});
}

}  // namespace

at::Tensor linformer_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               const at::Tensor& e, const at::Tensor& f, Group& group,
                               const LinformerOptions& options) {
  check_shape(q, {-1, -1, -1, -1}, "linformer_attention: q");
  check_shape(k, {q.size(0), q.size(1), -1, q.size(3)}, "linformer_attention: k");
  check_shape(v, {q.size(0), q.size(1), k.size(2), q.size(3)}, "linformer_attention: v");
  check_shape(e, {-1, -1}, "linformer_attention: e");
  check_shape(f, {e.size(0), e.size(1)}, "linformer_attention: f");
  const int ranks = group.size();
  const std::int64_t length = q.size(1) * ranks;
  if (e.size(1) != q.size(1) || (options.length != 0 && options.length != length))
    throw ConfigError(format(
        "linformer_attention: {} tokens on {} ranks, but E and F were made for {}; pad or cut the sequence "
        "to that",
        length, ranks, options.length != 0 ? options.length : e.size(1) * ranks));
  const auto positions = token_positions(options.order, length, ranks, group.rank());
  auto keys = k, values = v;
  if (options.valid.defined()) {
    check_shape(options.valid, {q.size(0), length}, "linformer_attention: valid");
    const auto own = options.valid.index_select(1, positions.to(options.valid.device())).to(q.device());
    const auto padding = own.logical_not().unsqueeze(2).unsqueeze(3);
    keys = k.masked_fill(padding, 0);
    values = v.masked_fill(padding, 0);
  }
  const auto sums = SumOverRanks::apply(at::stack({project(e, keys), project(f, values)}),
                                        c10::make_intrusive<GroupHandle>(group));
  ops::BlockAttentionOptions block;
  block.mask.query_positions = positions;
  block.dropout = options.dropout;
  block.scale = options.scale;
  return ops::block_attention(q, sums[0], sums[1], block).out;
}

}  // namespace stoa::dist
