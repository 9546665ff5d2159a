// A mixture layer as it is trained: router with balance loss, dispatch, experts, combination, forward and
// backward; or the matrix products of its experts alone, on rows that lie ready, into memory that is already
// there.
//   {"dim": 192, "experts": 4, "k": 2, "tokens": 6304, "form": "layer" or "products"}
#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include "bench/support/worker.h"
#include "stoa/nn/moe/mixture.h"

namespace {

using namespace stoa;

nn::MixtureOptions options_of(const Json& spec) {
  nn::MixtureOptions options;
  options.dim = bench::integer(spec, "dim");
  options.hidden = 4 * options.dim;
  options.router.experts = bench::integer(spec, "experts");
  options.router.top_k = bench::integer(spec, "k");
  options.router.noise = 0;  // so that every contender routes alike
  return options;
}

class Layer : public bench::Work {
 public:
  explicit Layer(const Json& spec)
      : layer_(options_of(spec)),
        x_(at::randn({1, bench::integer(spec, "tokens"), layer_->options().dim}, bench::device(spec))
               .requires_grad_()),
        grad_(at::randn_like(x_)) {
    layer_->to(x_.device());
    layer_->train();
    counts_ = layer_->forward(x_).statistics.kept;
  }

  void run() override { step(); }

  Json describe() override {
    const auto d = static_cast<double>(layer_->options().dim);
    return {{"parameters", nn::count_parameters(*layer_)},
            {"flops", 6.0 * 2 * counts_.sum().item<double>() * d * 4 * d}};
  }

  TensorFile reference() override {
    TensorFile file{{{"x", x_.detach()}, {"grad", grad_}}, {}};
    const auto [y, balance] = step();
    file.tensors["y"] = y.detach();
    file.tensors["balance"] = balance.detach();
    file.tensors["grad.x"] = x_.grad();
    for (const auto& parameter : layer_->named_parameters()) {
      file.tensors["model." + parameter.key()] = parameter.value().detach();
      file.tensors["grad." + parameter.key()] = parameter.value().grad();
    }
    return file;
  }

 protected:
  std::pair<at::Tensor, at::Tensor> step() {
    layer_->zero_grad();
    x_.mutable_grad().reset();
    auto result = layer_->forward(x_);
    const auto balance =
        nn::routing_outputs({result.statistics}, layer_->options().router).losses.front().value;
    torch::autograd::backward({result.output, balance}, {grad_, at::Tensor()});
    return {result.output, balance};
  }

  nn::Mixture layer_;
  at::Tensor x_, grad_;
  at::Tensor counts_;  // rows each expert computes
};

class Products final : public Layer {
 public:
  explicit Products(const Json& spec) : Layer(spec) {
    const auto rows = counts_.sum().item<std::int64_t>();
    const auto dim = layer_->options().dim, hidden = layer_->options().hidden;
    narrow_ = at::randn({rows, dim});
    wide_ = at::randn({rows, hidden});
    narrow_out_ = at::empty_like(narrow_);
    wide_out_ = at::empty_like(wide_);
    w_in_out_ = at::empty_like(layer_->w_in);
    w_out_out_ = at::empty_like(layer_->w_out);
  }

  void run() override {
    const at::NoGradGuard no_gradients;
    const auto multiply = [](at::Tensor out, const at::Tensor& a, const at::Tensor& b) {
      at::mm_out(out, a, b);
    };
    std::int64_t begin = 0;
    for (std::int64_t e = 0; e < counts_.size(0); ++e) {
      const auto rows = counts_[e].item<std::int64_t>();
      const auto part = [&](const at::Tensor& all) { return all.narrow(0, begin, rows); };
      const auto w_in = layer_->w_in[e], w_out = layer_->w_out[e];
      multiply(part(wide_out_), part(narrow_), w_in);
      multiply(part(narrow_out_), part(wide_), w_out);
      multiply(part(wide_out_), part(narrow_), w_out.t());
      multiply(part(narrow_out_), part(wide_), w_in.t());
      multiply(w_out_out_[e], part(wide_).t(), part(narrow_));
      multiply(w_in_out_[e], part(narrow_).t(), part(wide_));
      begin += rows;
    }
  }

 private:
  at::Tensor narrow_, wide_, narrow_out_, wide_out_, w_in_out_, w_out_out_;
};

}  // namespace

int main(int argc, char** argv) {
  return bench::serve(argc, argv, [](const Json& spec) -> std::unique_ptr<bench::Work> {
    if (spec.value("form", "layer") == "products") return std::make_unique<Products>(spec);
    return std::make_unique<Layer>(spec);
  });
}
