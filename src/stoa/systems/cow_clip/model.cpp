#include "stoa/systems/cow_clip/model.h"

#include <ATen/ATen.h>

#include "stoa/base/format.h"
#include "stoa/nn/init.h"
#include "stoa/nn/parameters.h"
#include "stoa/nn/part_scope.h"
#include "stoa/tensor/shape.h"

namespace stoa::cow_clip {
namespace {

constexpr const char* kFirstOrder = "first order";
constexpr const char* kPairs = "pairs of fields";
constexpr const char* kMlp = "perceptron";
constexpr const char* kCross = "cross network";
constexpr const char* kOutput = "output";
constexpr const char* kTwoStream = "two perceptrons";

std::shared_ptr<CrossNetwork> make_cross(const CowClipOptions& o, std::int64_t width) {
  switch (o.network) {
    case Network::kDcn:
      return std::make_shared<VectorCrossImpl>(width, o.cross_layers);
    case Network::kDcnV2:
      return std::make_shared<MatrixCrossImpl>(width, o.cross_layers);
    case Network::kDcnV2Mix:
      return std::make_shared<MixtureCrossImpl>(width, o.cross_layers, o.experts, o.rank);
    default:
      return nullptr;
  }
}

}  // namespace

CowClipImpl::CowClipImpl(const CowClipOptions& options, const ClickModelInput& input)
    : options_(options), input_(input), width_(input.fields * input.dim + input.numerics) {
  options.validate(input);
  bias = register_parameter("bias", at::empty({1}));
  nn::constant_(bias, 0);
  if (input.numerics > 0) {
    numeric_weight = register_parameter("numeric_weight", at::empty({input.numerics}));
    nn::glorot_normal_(numeric_weight, static_cast<double>(input.numerics), 1);
  }
  if (options.network == Network::kFinalMlp) {
    two_stream =
        register_module("two_stream", TwoStream(width_, options.hidden, options.second_hidden(),
                                                options.gate_hidden, options.fusion_heads, options.dropout));
    return;
  }
  mlp = register_module("mlp", Tower(width_, options.hidden, options.dropout));
  cross = make_cross(options, width_);
  if (cross) register_module("cross", cross);
  const auto outputs = options.hidden.back() + (cross ? width_ : 0);
  output_weight = register_parameter("output_weight", at::empty({outputs}));
  nn::glorot_normal_(output_weight, static_cast<double>(outputs), 1);
}

at::Tensor CowClipImpl::first_order(const at::Tensor& linear, const at::Tensor& numerics) const {
  const nn::PartScope part(kFirstOrder);
  const auto sum = linear.sum(1) + bias;
  return numeric_weight.defined() ? sum + dot_rows(numerics, numeric_weight) : sum;
}

/// What the perceptron and the cross network add to the logit.
at::Tensor CowClipImpl::deep(const at::Tensor& u) {
  if (two_stream) return nn::in_part(kTwoStream, [&] { return two_stream->forward(u); });
  const auto h = nn::in_part(kMlp, [&] { return mlp->forward(u); });
  if (!cross) return nn::in_part(kOutput, [&] { return dot_rows(h, output_weight); });
  const auto crossed =
      nn::in_part(kCross, [&] { return cross->project(u, output_weight.narrow(0, 0, width_)); });
  return nn::in_part(kOutput,
                     [&] { return crossed + dot_rows(h, output_weight.narrow(0, width_, h.size(1))); });
}

at::Tensor CowClipImpl::score(const nn::EmbeddingRows& rows, const at::Tensor& numerics) {
  const auto& embeddings = rows.embeddings;
  check_shape(embeddings, {-1, input_.fields, input_.dim}, "embeddings");
  const auto count = embeddings.size(0);
  check_shape(rows.linear, {count, input_.fields}, "first-order weights");
  auto u = embeddings.flatten(1);
  at::Tensor numbers;
  if (input_.numerics > 0) {
    check_shape(numerics, {count, input_.numerics}, "numerics");
    numbers = numerics.to(embeddings.scalar_type());
    u = at::cat({u, numbers}, 1);
  }
  auto logits = first_order(rows.linear, numbers) + deep(u);
  if (options_.network == Network::kDeepFm)
    logits = logits + nn::in_part(kPairs, [&] { return fm_term(embeddings); });
  return logits;
}

at::Tensor CowClipImpl::penalty(double l2) const {
  auto sum = at::zeros({}, bias.options());
  if (numeric_weight.defined()) sum = sum + l2 * numeric_weight.square().sum();
  if (cross) sum = sum + options_.cross_l2 * cross->squared_kernels();
  return sum;
}

nn::ModelDescription CowClipImpl::describe() const {
  nn::ModelDescription model;
  model.input = format("{} ids + {} numbers", input_.fields, input_.numerics);
  const auto inputs = input_.fields * input_.dim;
  model.parts.push_back({kFirstOrder, 1 + input_.numerics, input_.numerics, input_.numerics});
  if (options_.network == Network::kDeepFm)
    model.parts.push_back({kPairs, 0, inputs + input_.dim, inputs + input_.dim});
  if (two_stream) {
    const auto &one = *two_stream->stream_1, &two = *two_stream->stream_2;
    const auto gates = two_stream->gate_1->in->weight.numel() * 4;  // two gates of two equal products
    const auto turned = two_stream->weight_2.numel();
    model.parts.push_back(
        {kTwoStream, nn::count_parameters(*two_stream),
         gates + one.macs() + two.macs() + two_stream->weight_1.numel() + two_stream->bilinear.numel() +
             2 * turned,
         one.activations() + two.activations() + 2 * (options_.gate_hidden * 2 + 3 * width_) + turned});
    return model;
  }
  model.parts.push_back({kMlp, nn::count_parameters(*mlp), mlp->macs(), mlp->activations()});
  if (cross)
    model.parts.push_back({kCross, nn::count_parameters(*cross), cross->macs(), cross->activations()});
  model.parts.push_back({kOutput, output_weight.numel(), output_weight.numel(), output_weight.numel()});
  return model;
}

}  // namespace stoa::cow_clip
