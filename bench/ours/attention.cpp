// Attention of one process, as a ring makes it of each block of keys, on queries, keys and values that one
// product leaves side by side; forward alone, or with the gradients of all three.
//   {"tokens": 2048, "heads": 8, "head_dim": 64, "causal": false, "train": true}
#include <ATen/ATen.h>

#include "bench/support/worker.h"
#include "stoa/ops/block_attention.h"

namespace {

using namespace stoa;

class Attention final : public bench::Work {
 public:
  explicit Attention(const Json& spec)
      : tokens_(bench::integer(spec, "tokens")),
        heads_(bench::integer(spec, "heads")),
        dim_(bench::integer(spec, "head_dim")),
        train_(spec.at("train").get<bool>()),
        qkv_(at::randn({1, tokens_, 3, heads_, dim_}, bench::device(spec)).requires_grad_(train_)),
        grad_(at::randn({1, tokens_, heads_, dim_}, bench::device(spec))) {
    options_.mask.causal = spec.value("causal", false);
  }

  void run() override { step(); }

  Json describe() override {
    const auto pairs = static_cast<double>(tokens_ * tokens_) / (options_.mask.causal ? 2 : 1);
    return {{"flops", 2.0 * (train_ ? 7 : 2) * pairs * static_cast<double>(heads_ * dim_)}};
  }

  TensorFile reference() override {
    TensorFile file{{{"qkv", qkv_.detach()}, {"grad", grad_}}, {}};
    file.tensors["out"] = step().detach().contiguous();
    if (train_) file.tensors["grad.qkv"] = qkv_.grad();
    return file;
  }

 private:
  at::Tensor step() {
    qkv_.mutable_grad() = at::Tensor();
    const auto parts = qkv_.unbind(2);
    const auto out = ops::block_attention(parts[0], parts[1], parts[2], options_).out;
    if (train_) out.backward(grad_);
    return out;
  }

  std::int64_t tokens_, heads_, dim_;
  bool train_;
  ops::BlockAttentionOptions options_;
  at::Tensor qkv_, grad_;
};

}  // namespace

int main(int argc, char** argv) {
  return bench::serve(argc, argv, [](const Json& spec) { return std::make_unique<Attention>(spec); });
}
