// One optimiser step over tensors of given shapes, gradients lying ready.
//   {"optimizer": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.05}, "tensors": [[768, 768], [768], ...]}
#include <ATen/ATen.h>

#include "bench/support/worker.h"
#include "stoa/base/config.h"
#include "stoa/base/format.h"
#include "stoa/optim/optimizer.h"

namespace {

using namespace stoa;

constexpr int kReferenceSteps = 3;

class OptimizerStep final : public bench::Work {
 public:
  explicit OptimizerStep(const Json& spec) {
    std::vector<nn::NamedParameter> parameters;
    for (const auto& shape : spec.at("tensors")) {
      const auto tensor =
          at::randn(shape.get<std::vector<std::int64_t>>(), bench::device(spec)).mul_(0.02).requires_grad_();
      tensor.mutable_grad() = at::randn_like(tensor).mul_(0.01);
      numbers_ += tensor.numel();
      parameters.push_back({format("{:05}", parameters.size()), tensor, 1});
    }
    read_options(Config::from_json(spec.at("optimizer"), "optimizer"), options_);
    const bool twice = options_.kind == optim::OptimizerKind::kLamb;
    // AdamW reads w, g, m, v and writes w, m, v. LAMB's rates need all of m and v: it passes w, m, v once
    // more.
    bytes_ = static_cast<double>(numbers_) * 4 * (twice ? 10 : 7);
    optimizer_ = optim::make_optimizer(std::move(parameters), options_);
    optimizer_->step(options_.lr);  // faults the state's memory in
  }

  void run() override { optimizer_->step(options_.lr); }
  Json describe() override { return {{"parameters", numbers_}, {"bytes", bytes_}}; }

  TensorFile reference() override {
    std::map<std::string, at::Tensor> zero;
    for (const auto& [name, tensor] : optimizer_->state()) zero[name] = at::zeros_like(tensor);
    optimizer_->load(zero, "zeros");
    TensorFile file;
    const auto keep = [&](const char* prefix) {
      for (const auto& parameter : optimizer_->parameters())
        file.tensors[prefix + parameter.name] = parameter.tensor.detach().clone();
    };
    keep("before.");
    for (const auto& parameter : optimizer_->parameters())
      file.tensors["grad." + parameter.name] = parameter.tensor.grad();
    for (int i = 0; i < kReferenceSteps; ++i) optimizer_->step(options_.lr);
    keep("after.");
    return file;
  }

 private:
  optim::OptimizerOptions options_;
  std::unique_ptr<optim::Optimizer> optimizer_;
  std::int64_t numbers_ = 0;
  double bytes_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  return bench::serve(argc, argv, [](const Json& spec) { return std::make_unique<OptimizerStep>(spec); });
}
