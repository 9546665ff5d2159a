#pragma once

// The training steps of the original program (tests/golden/cowclip_*.safetensors) and how its names map to
// ours.

#include <ATen/ATen.h>
#include <torch/types.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/systems/cow_clip/model.h"
#include "stoa/tensor/safetensors.h"

namespace stoa::test {

using Tensors = std::map<std::string, at::Tensor>;

inline constexpr std::int64_t kRecordedFields = 4;

/// The recording of one network.
class RecordedSteps {
 public:
  explicit RecordedSteps(cow_clip::Network network) : network_(network) {
    const std::string name = network == cow_clip::Network::kDcn ? "cowclip_dcn" : "cowclip_deepfm";
    tensors_ =
        load_safetensors(std::string(STOA_SOURCE_DIR) + "/tests/golden/" + name + ".safetensors").tensors;
  }

  const at::Tensor& at(const std::string& name) const {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) throw Error("the recording has no " + name);
    return found->second;
  }
  /// Number of steps of a case.
  std::int64_t steps(const std::string& name) const {
    std::int64_t count = 0;
    while (tensors_.count(format("{}/step{}/logit", name, count + 1)) != 0) ++count;
    return count;
  }
  /// A weight as it was before step `step` (from 1).
  const at::Tensor& before(const std::string& name, std::int64_t step, const std::string& weight) const {
    return at(step == 1 ? format("{}/init/{}", name, weight)
                        : format("{}/step{}/after/{}", name, step - 1, weight));
  }
  /// `ids`, `num` or `label` of the batch of step `step`.
  at::Tensor batch(const std::string& what, std::int64_t step) const { return at(what)[(step - 1) % 4]; }

  /// Our model with the weights from before step `step`.
  std::shared_ptr<cow_clip::CowClipImpl> model(const std::string& name, std::int64_t step,
                                               at::ScalarType type) const {
    cow_clip::CowClipOptions options;
    options.network = network_;
    options.hidden = {8, 7, 6};
    auto model = std::make_shared<cow_clip::CowClipImpl>(options, ClickModelInput{kRecordedFields, 2, 10});
    model->to(type);
    const torch::NoGradGuard no_grad;
    for (const auto& weight : dense_weights())
      ours(nn::module_state(*model), weight).copy_(before(name, step, weight).squeeze());
    return model;
  }

  /// The recording's names of the weights outside the tables.
  std::vector<std::string> dense_weights() const {
    std::vector<std::string> names = {"k_lin", "k_o", "b0"};
    const bool crossed = network_ == cow_clip::Network::kDcn;
    for (int i = 0; i < 3; ++i)
      for (const std::string kind : {"w", "b"}) {
        names.push_back(format("mlp.{}{}", kind, i));
        if (crossed) names.push_back(format("cross.{}{}", kind, i));
      }
    return names;
  }

  /// One of our tensors by the recording's name, in the recording's layout without axes of 1.
  static at::Tensor ours(const Tensors& state, const std::string& name) {
    if (name == "k_lin") return state.at("numeric_weight");
    if (name == "k_o") return state.at("output_weight");
    if (name == "b0") return state.at("bias").squeeze();
    const bool kernel = name[name.size() - 2] == 'w';
    const auto layer = name.back() - '0';
    if (name.starts_with("cross.")) return state.at(kernel ? "cross.weight" : "cross.bias")[layer];
    return kernel ? state.at(format("mlp.{}.weight", layer)).t() : state.at(format("mlp.{}.bias", layer));
  }

 private:
  cow_clip::Network network_;
  Tensors tensors_;
};

}  // namespace stoa::test
