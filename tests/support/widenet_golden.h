#pragma once

// Loads the golden tensors of the original WideNet program (tests/golden/README.md) and puts their weights
// into our model.

#include <ATen/ATen.h>
#include <torch/types.h>

#include <map>
#include <memory>
#include <string>

#include "stoa/base/format.h"
#include "stoa/systems/wide_net/model.h"
#include "stoa/tensor/safetensors.h"

namespace stoa::test {

using Tensors = std::map<std::string, at::Tensor>;

inline Tensors load_golden(const std::string& name) {
  return load_safetensors(std::string(STOA_SOURCE_DIR) + "/tests/golden/" + name + ".safetensors").tensors;
}

/// Preset `code` at the sizes of golden file `widenet_a` or `widenet_b`, read as a recipe's [model], with
/// further lines. Dropout and noise are off.
inline wide_net::WideNetOptions golden_options(bool a, const std::string& more = "") {
  const std::string sizes = a ? R"(
patch = 8
dim = 24
heads = 3
mlp_dim = 40
depth = 3
router.experts = 4
)"
                              : R"(
patch = 4
dim = 20
heads = 5
mlp_dim = 28
depth = 4
pooling = "token"
representation = false
router.experts = 5
)";
  wide_net::WideNetOptions options;
  read_options(
      Config::from_text("preset = \"code\"\ndropout = 0.0\nrouter.noise = 0.0" + sizes + more, "golden"),
      options);
  return options;
}

inline ImageClassifierInput golden_input(bool a) {
  return a ? ImageClassifierInput{3, 32, 7} : ImageClassifierInput{1, 16, 5};
}

/// A tensor of a model by the name the original program's recording gives it, in the recording's layout.
/// `tensors` holds ours by our names (weights or their gradients).
inline at::Tensor golden_view(const Tensors& ours, const std::string& name, std::int64_t dim) {
  const auto rows = [&](const char* tensor, std::int64_t part) {
    return ours.at(tensor).narrow(0, part * dim, dim);
  };
  static const std::map<std::string, std::int64_t> parts = {{"q", 0}, {"k", 1}, {"v", 2}};
  const auto ends = [&](const char* end) {
    return name.size() >= std::string(end).size() && name.ends_with(end);
  };
  if (name == "patch.weight") return ours.at("patch.weight").permute({2, 3, 1, 0});
  if (name == "patch.bias") return ours.at("patch.bias");
  if (name == "pos") return ours.at("position");
  if (name.starts_with("attn.out."))
    return ends("weight") ? ours.at("attention.0.out.weight").t() : ours.at("attention.0.out.bias");
  if (name.starts_with("attn.")) {
    const std::int64_t part = parts.at(name.substr(5, 1));
    return ends("weight") ? rows("attention.0.qkv_weight", part).t() : rows("attention.0.qkv_bias", part);
  }
  if (name == "moe.router.weight") return ours.at("mixture.0.router.weight");
  if (name.starts_with("moe.expert.")) {
    const auto expert = std::stoll(name.substr(11));
    const std::string side = name.find(".in.") != std::string::npos ? "in" : "out";
    return ours.at("mixture.0." + std::string(ends("weight") ? "w_" : "b_") + side)[expert];
  }
  const std::string end = ends("gamma") ? "weight" : "bias";
  if (name.starts_with("layer.")) {
    const auto dot = name.find('.', 6);
    return ours.at(format("norm{}.{}.{}", name.at(dot + 3), name.substr(6, dot - 6), end));
  }
  if (name.starts_with("final_norm.")) return ours.at("final_norm." + end);
  const auto& tensor = ours.at(name);
  return tensor.dim() == 2 ? tensor.t() : tensor;
}

/// Copies the recorded weights ("weight.NAME") into a model.
inline void load_golden_weights(wide_net::WideNetImpl& model, const Tensors& golden) {
  torch::NoGradGuard no_grad;
  const auto state = nn::module_state(model);
  for (const auto& [name, value] : golden)
    if (name.starts_with("weight.")) golden_view(state, name.substr(7), model.options().dim).copy_(value);
}

/// Gradients of a model by our parameter names.
inline Tensors gradients(const torch::nn::Module& model) {
  Tensors result;
  for (const auto& parameter : nn::distinct_parameters(model))
    result[parameter.name] =
        parameter.tensor.grad().defined() ? parameter.tensor.grad() : at::zeros_like(parameter.tensor);
  return result;
}

/// Images of the recording (NHWC) as the model reads them.
inline at::Tensor golden_images(const Tensors& golden, at::ScalarType type) {
  return golden.at("input").permute({0, 3, 1, 2}).contiguous().to(type);
}

inline double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

}  // namespace stoa::test
