// What this machine can do at best: one matrix product, or a copy of memory, by all threads.
//   {"product": [6304, 192, 768], "type": "fp32", "by": "LibTorch" or "Stoa"} or {"copy": 268435456}
// A product is x W^T with x [rows, in], W [out, in]; a roof is what the faster of LibTorch and Stoa reaches.
#include <ATen/ATen.h>

#include "bench/support/worker.h"
#include "stoa/ops/linear.h"

namespace {

using namespace stoa;

class Product final : public bench::Work {
 public:
  explicit Product(const Json& spec) {
    const auto shape = spec.at("product").get<std::vector<std::int64_t>>();
    const auto type = spec.at("type") == "bf16" ? at::kBFloat16 : at::kFloat;
    x_ = at::randn({shape.at(0), shape.at(1)}).to(type);
    weight_ = at::randn({shape.at(2), shape.at(1)}).to(type);
    y_ = at::mm(x_, weight_.t());
    by_stoa_ = spec.at("by") == "Stoa";
    flops_ = 2.0 * static_cast<double>(shape[0] * shape[1] * shape[2]);
  }
  void run() override {
    const at::NoGradGuard no_gradients;
    if (by_stoa_)
      y_ = ops::linear(x_, weight_, {});
    else
      at::mm_out(y_, x_, weight_.t());
  }
  Json describe() override { return {{"flops", flops_}}; }

 private:
  at::Tensor x_, weight_, y_;
  bool by_stoa_ = false;
  double flops_ = 0;
};

class Copy final : public bench::Work {
 public:
  explicit Copy(const Json& spec) : from_(at::ones({bench::integer(spec, "copy") / 4})), to_(from_.clone()) {}
  void run() override { to_.copy_(from_); }
  Json describe() override { return {{"bytes", 2.0 * static_cast<double>(from_.nbytes())}}; }

 private:
  at::Tensor from_, to_;
};

}  // namespace

int main(int argc, char** argv) {
  return bench::serve(argc, argv, [](const Json& spec) -> std::unique_ptr<bench::Work> {
    if (spec.contains("product")) return std::make_unique<Product>(spec);
    return std::make_unique<Copy>(spec);
  });
}
