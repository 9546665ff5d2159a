#include "stoa/systems/cow_clip/layers.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "stoa/nn/init.h"
#include "stoa/ops/dropout.h"
#include "stoa/ops/linear.h"

namespace stoa::cow_clip {
namespace {

/// For products of a few columns, which gain nothing from bf16 and whose sums are logits or gates.
struct WithoutAutocast {
  c10::impl::ExcludeDispatchKeyGuard guard{c10::autocast_dispatch_keyset};
};

double fan(std::int64_t value) {
  return static_cast<double>(value);
}

/// A layer as Keras starts it.
nn::Linear dense(std::int64_t in, std::int64_t out) {
  nn::Linear layer(in, out);
  nn::glorot_normal_(layer->weight, fan(in), fan(out));
  return layer;
}

at::Tensor vector_parameter(torch::nn::Module& module, const char* name, std::int64_t size) {
  auto vector = module.register_parameter(name, at::empty({size}));
  nn::glorot_normal_(vector, fan(size), 1);
  return vector;
}

/// x_0 * y + x. In backward passes addcmul() multiplies by its factor of 1 all the same, in two passes of
/// their own.
at::Tensor cross(const at::Tensor& x, const at::Tensor& x0, const at::Tensor& y) {
  return (x0 * y.to(x.scalar_type())).add_(x);
}

/// One pass over the embeddings forward; backward is g (sum_h e_h - e_f), without the squares autograd would
/// keep.
class FmTerm : public torch::autograd::Function<FmTerm> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& embeddings) {
    context->save_for_backward({embeddings});
    const auto flat = embeddings.flatten(1);
    return 0.5 * (embeddings.sum(1).square().sum(1) - at::linalg_vector_norm(flat, 2, {1}).square());
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const auto embeddings = context->get_saved_variables()[0];
    return {(embeddings.sum(1, true) - embeddings).mul_(grads[0].unsqueeze(1).unsqueeze(2))};
  }
};

}  // namespace

at::Tensor fm_term(const at::Tensor& embeddings) {
  return FmTerm::apply(embeddings);
}

at::Tensor dot_rows(const at::Tensor& x, const at::Tensor& w) {
  const WithoutAutocast scope;
  return at::mv(x.to(w.scalar_type()), w);
}

TowerImpl::TowerImpl(std::int64_t in, const std::vector<std::int64_t>& hidden, double dropout)
    : dropout_(dropout) {
  for (const auto out : hidden) {
    layers.push_back(register_module(std::to_string(layers.size()), dense(in, out)));
    in = out;
  }
}

at::Tensor TowerImpl::forward(const at::Tensor& x) {
  auto y = x;
  for (const auto& layer : layers) {
    y = ops::linear(y, layer->weight, layer->bias, ops::Activation::kRelu);
    y = ops::dropout(y, is_training() ? dropout_ : 0);
  }
  return y;
}

std::int64_t TowerImpl::macs() const {
  std::int64_t sum = 0;
  for (const auto& layer : layers) sum += layer->weight.numel();
  return sum;
}

std::int64_t TowerImpl::activations() const {
  std::int64_t sum = 0;
  for (const auto& layer : layers) sum += layer->weight.size(0) + layer->weight.size(1);
  return sum;
}

VectorCrossImpl::VectorCrossImpl(std::int64_t dim, std::int64_t count)
    : weight(register_parameter("weight", at::empty({count, dim}))),
      bias(register_parameter("bias", at::empty({count, dim}))) {
  nn::glorot_normal_(weight, fan(dim), 1);
  nn::constant_(bias, 0);
}

/// a_L [batch] from x_0 . w_l, the first columns of `products` [batch, >= layers]: a_{l+1} = a_l + a_l (x_0 .
/// w_l) + c_l . w_l, a_0 = 1, c_0 = 0.
at::Tensor VectorCrossImpl::factor(const at::Tensor& products) const {
  const auto count = weight.size(0);
  const auto columns = products.unbind(1);
  const auto offsets = bias.cumsum(0).narrow(0, 0, count - 1);
  const auto constants = (offsets * weight.narrow(0, 1, count - 1)).sum(1);
  auto a = columns[0] + 1;
  for (std::int64_t l = 1; l < count; ++l)
    a = at::addcmul(a + constants.select(0, l - 1), a, columns[static_cast<std::size_t>(l)]);
  return a;
}

at::Tensor VectorCrossImpl::forward(const at::Tensor& x0) {
  const WithoutAutocast scope;
  const auto a = factor(at::linear(x0, weight));
  return at::addcmul(bias.sum(0), a.unsqueeze(1), x0);
}

at::Tensor VectorCrossImpl::project(const at::Tensor& x0, const at::Tensor& k) {
  const WithoutAutocast scope;
  const auto products = at::linear(x0, at::cat({weight, k.unsqueeze(0)}));
  return at::addcmul(bias.sum(0).dot(k), factor(products), products.select(1, weight.size(0)));
}

at::Tensor VectorCrossImpl::squared_kernels() const {
  return weight.square().sum();
}

std::map<std::string, std::int64_t> VectorCrossImpl::slices() const {
  return {{"weight", weight.size(0)}, {"bias", bias.size(0)}};
}

MatrixCrossImpl::MatrixCrossImpl(std::int64_t dim, std::int64_t count) {
  for (std::int64_t l = 0; l < count; ++l)
    layers.push_back(register_module(std::to_string(l), dense(dim, dim)));
}

at::Tensor MatrixCrossImpl::forward(const at::Tensor& x0) {
  auto x = x0;
  for (const auto& layer : layers) x = cross(x, x0, ops::linear(x, layer->weight, layer->bias));
  return x;
}

at::Tensor MatrixCrossImpl::squared_kernels() const {
  auto sum = layers[0]->weight.square().sum();
  for (std::size_t l = 1; l < layers.size(); ++l) sum = sum + layers[l]->weight.square().sum();
  return sum;
}

std::int64_t MatrixCrossImpl::macs() const {
  return std::ssize(layers) * layers[0]->weight.numel();
}

std::int64_t MatrixCrossImpl::activations() const {
  return std::ssize(layers) * 2 * layers[0]->bias.numel();
}

MixtureCrossLayerImpl::MixtureCrossLayerImpl(std::int64_t dim, std::int64_t experts, std::int64_t rank)
    : v(register_parameter("v", at::empty({experts, rank, dim}))),
      c(register_parameter("c", at::empty({experts, rank, rank}))),
      u(register_parameter("u", at::empty({dim, experts, rank}))),
      bias(register_parameter("bias", at::empty({dim}))) {
  // Keras takes the first axis of [experts, in, out] for a receptive field, and U is stored there like V
  const auto in = fan(experts * dim), low = fan(experts * rank);
  nn::glorot_normal_(v, in, low);
  nn::glorot_normal_(u, in, low);
  nn::glorot_normal_(c, low, low);
  nn::constant_(bias, 0);
}

std::map<std::string, std::int64_t> MixtureCrossLayerImpl::slices() const {
  return {{"v", v.size(0)}, {"c", c.size(0)}};
}

MixtureCrossImpl::MixtureCrossImpl(std::int64_t dim, std::int64_t count, std::int64_t experts,
                                   std::int64_t rank)
    : gate(register_parameter("gate", at::empty({experts, dim}))) {
  nn::glorot_uniform_(gate, fan(dim), 1);
  for (std::int64_t l = 0; l < count; ++l)
    layers.push_back(register_module(std::to_string(l), MixtureCrossLayer(dim, experts, rank)));
}

/// sum_i p_i U_i tanh(C_i tanh(V_i x)) + b: the experts' first and last products are one each.
at::Tensor MixtureCrossImpl::answer(const MixtureCrossLayerImpl& layer, const at::Tensor& x) const {
  const auto rows = x.size(0), experts = layer.c.size(0), rank = layer.c.size(1), dim = x.size(1);
  const auto low = at::tanh(ops::linear(x, layer.v.view({experts * rank, dim}), {}));
  const auto by_expert = low.view({rows, experts, rank}).transpose(0, 1);
  const auto turned = at::tanh(at::bmm(by_expert, layer.c.transpose(1, 2)));  // [experts, rows, rank]
  const auto shares = [&] {
    const WithoutAutocast scope;
    return at::softmax(at::linear(x, gate), 1);
  }();
  const auto mixed = (turned * shares.t().unsqueeze(2)).transpose(0, 1).reshape({rows, experts * rank});
  return ops::linear(mixed, layer.u.view({dim, experts * rank}), layer.bias);
}

at::Tensor MixtureCrossImpl::forward(const at::Tensor& x0) {
  auto x = x0;
  for (const auto& layer : layers) x = cross(x, x0, answer(*layer, x));
  return x;
}

at::Tensor MixtureCrossImpl::squared_kernels() const {
  std::vector<at::Tensor> sums;
  for (const auto& layer : layers)
    for (const auto* kernel : {&layer->u, &layer->v, &layer->c}) sums.push_back(kernel->square().sum());
  return at::stack(sums).sum();
}

std::int64_t MixtureCrossImpl::macs() const {
  const auto& layer = *layers[0];
  return std::ssize(layers) * (layer.u.numel() + layer.v.numel() + layer.c.numel() + gate.numel());
}

std::int64_t MixtureCrossImpl::activations() const {
  const auto dim = gate.size(1), experts = gate.size(0), low = experts * layers[0]->c.size(1);
  return std::ssize(layers) * (2 * dim + 3 * low + experts);
}

FeatureGateImpl::FeatureGateImpl(std::int64_t dim, std::int64_t hidden)
    : in(register_module("in", dense(dim, hidden))), out(register_module("out", dense(hidden, dim))) {}

at::Tensor FeatureGateImpl::forward(const at::Tensor& x) {
  const auto hidden = ops::linear(x, in->weight, in->bias, ops::Activation::kRelu);
  return x * (2 * at::sigmoid(ops::linear(hidden, out->weight, out->bias)));
}

TwoStreamImpl::TwoStreamImpl(std::int64_t dim, const std::vector<std::int64_t>& hidden_1,
                             const std::vector<std::int64_t>& hidden_2, std::int64_t gate_hidden,
                             std::int64_t heads, double dropout) {
  gate_1 = register_module("gate_1", FeatureGate(dim, gate_hidden));
  gate_2 = register_module("gate_2", FeatureGate(dim, gate_hidden));
  stream_1 = register_module("stream_1", Tower(dim, hidden_1, dropout));
  stream_2 = register_module("stream_2", Tower(dim, hidden_2, dropout));
  weight_1 = vector_parameter(*this, "weight_1", hidden_1.back());
  weight_2 = vector_parameter(*this, "weight_2", hidden_2.back());
  const auto a = hidden_1.back() / heads, b = hidden_2.back() / heads;
  bilinear = register_parameter("bilinear", at::empty({heads, a, b}));
  nn::glorot_normal_(bilinear, fan(a), fan(b));
}

at::Tensor TwoStreamImpl::forward(const at::Tensor& x) {
  const auto y = stream_1->forward(gate_1->forward(x));
  const auto z = stream_2->forward(gate_2->forward(x));
  const auto rows = x.size(0), heads = bilinear.size(0);
  const auto turned = at::bmm(y.view({rows, heads, bilinear.size(1)}).transpose(0, 1), bilinear);
  const auto pairs = (turned.transpose(0, 1) * z.view({rows, heads, bilinear.size(2)})).sum({1, 2});
  return dot_rows(y, weight_1) + dot_rows(z, weight_2) + pairs.to(weight_1.scalar_type());
}

std::map<std::string, std::int64_t> TwoStreamImpl::slices() const {
  return {{"bilinear", bilinear.size(0)}};
}

}  // namespace stoa::cow_clip
