// WideNet against tensors recorded from the original program: logits, layers, routes, balance, every
// gradient.
#include <gtest/gtest.h>

#include "support/widenet_golden.h"

namespace stoa {
namespace {

using test::Tensors;

struct Case {
  const char* file;
  const char* name;
  std::int64_t top_k;
  double capacity;
  bool one_gelu;
  bool stored_double;
};

const Case kCases[] = {{"widenet_a", "capacity_1.2", 2, 1.2, false, true},
                       {"widenet_a", "nodrop", 2, 4.0, false, false},
                       {"widenet_a", "nodrop_one_gelu", 2, 4.0, true, false},
                       {"widenet_b", "k1", 1, 1.0, false, true},
                       {"widenet_b", "k2", 2, 0.6, false, true},
                       {"widenet_b", "k3_nodrop", 3, 4.0, false, false}};

void PrintTo(const Case& c, std::ostream* out) {
  *out << c.file << "/" << c.name;
}

/// A model with the recorded weights, run forward and backward once.
class Recorded {
 public:
  Recorded(const Case& c, at::ScalarType type) : case_(c), golden_(test::load_golden(c.file)) {
    const bool a = std::string(c.file) == "widenet_a";
    const auto options =
        test::golden_options(a, format("router.top_k = {}\nrouter.capacity_factor = {}\n{}", c.top_k,
                                       c.capacity, c.one_gelu ? "ffn_output_activation = \"none\"" : ""));
    model_ = std::make_shared<wide_net::WideNetImpl>(options, test::golden_input(a));
    model_->to(type);
    test::load_golden_weights(*model_, golden_);
    model_->eval();
    output_ = model_->classify(test::golden_images(golden_, type), &trace_);
  }

  const at::Tensor& golden(const std::string& name) const {
    return golden_.at(std::string(case_.name) + "/" + name);
  }
  bool recorded(const std::string& name) const {
    return golden_.count(std::string(case_.name) + "/" + name) != 0;
  }
  at::Tensor balance() const { return output_.side.losses.at(0).value; }
  at::Tensor loss() const {
    return (output_.logits * golden_.at("R").to(output_.logits.scalar_type())).sum() + balance();
  }

  /// Largest difference over the gradients recorded under `prefix`, each relative to its largest entry (k's
  /// bias: absolute).
  double gradient_difference(const std::string& prefix, const at::Tensor& of) {
    model_->zero_grad();
    of.backward({}, /*retain_graph=*/true);
    const auto ours = test::gradients(*model_);
    double worst = 0;
    std::int64_t compared = 0;
    const std::string start = std::string(case_.name) + "/" + prefix;
    for (const auto& [name, value] : golden_) {
      if (!name.starts_with(start)) continue;
      const auto key = name.substr(start.size());
      const double scale = key == "attn.k.bias" ? 1 : std::max(1e-3, value.abs().max().item<double>());
      worst = std::max(
          worst,
          test::largest_difference(test::golden_view(ours, key, model_->options().dim), value) / scale);
      ++compared;
    }
    EXPECT_GT(compared, 4) << prefix;
    return worst;
  }

  const wide_net::WideNetTrace& trace() const { return trace_; }
  const ImageClassifierOutput& output() const { return output_; }

 private:
  Case case_;
  Tensors golden_;
  std::shared_ptr<wide_net::WideNetImpl> model_;
  wide_net::WideNetTrace trace_;
  ImageClassifierOutput output_;
};

class WideNetGolden : public testing::TestWithParam<Case> {
 protected:
  double tolerance() const { return GetParam().stored_double ? 1e-11 : 2e-6; }
};

TEST_P(WideNetGolden, LogitsAndLayersInDouble) {
  const Recorded run(GetParam(), at::kDouble);
  EXPECT_LT(test::largest_difference(run.output().logits, run.golden("logits")), tolerance());
  const double layer_tolerance = GetParam().stored_double ? 1e-11 : 1e-5;
  for (std::size_t i = 0; i < run.trace().output.size(); ++i) {
    const auto layer = format("layer.{}.", i);
    EXPECT_LT(test::largest_difference(run.trace().output[i], run.golden(layer + "output")), layer_tolerance)
        << i;
    if (!run.recorded(layer + "ffn_input")) continue;
    EXPECT_LT(test::largest_difference(run.trace().after_attention[i], run.golden(layer + "after_attention")),
              layer_tolerance)
        << i;
    EXPECT_LT(test::largest_difference(run.trace().ffn_input[i], run.golden(layer + "ffn_input")),
              layer_tolerance)
        << i;
  }
}

TEST_P(WideNetGolden, RoutesAreEqual) {
  const Recorded run(GetParam(), at::kDouble);
  for (std::size_t i = 0; i < run.trace().routing.size(); ++i) {
    const auto& routing = run.trace().routing[i];
    const auto route = format("route.{}.", i);
    EXPECT_TRUE(routing.index.equal(run.golden(route + "index").to(at::kLong))) << i;
    EXPECT_TRUE((routing.slot + 1).equal(run.golden(route + "slot").to(at::kLong))) << i;
    EXPECT_LT(test::largest_difference(routing.probabilities, run.golden(route + "probs")), tolerance()) << i;
  }
}

TEST_P(WideNetGolden, RoutesAreEqualInFloat) {
  const Recorded run(GetParam(), at::kFloat);
  for (std::size_t i = 0; i < run.trace().routing.size(); ++i) {
    EXPECT_TRUE(run.trace().routing[i].index.equal(run.golden(format("route.{}.index", i)).to(at::kLong)))
        << i;
    EXPECT_TRUE((run.trace().routing[i].slot + 1).equal(run.golden(format("route.{}.slot", i)).to(at::kLong)))
        << i;
  }
}

TEST_P(WideNetGolden, BalanceLoss) {
  const Recorded run(GetParam(), at::kDouble);
  EXPECT_NEAR(run.balance().item<double>(), run.golden("balance").sum().item<double>(), 1e-12);
  for (const auto& statistic : run.output().side.statistics) {
    if (statistic.name != "router.balance") continue;
    EXPECT_LT(test::largest_difference(0.01 * statistic.value, run.golden("balance")), 1e-12);
  }
}

TEST_P(WideNetGolden, GradientsInDouble) {
  Recorded run(GetParam(), at::kDouble);
  EXPECT_NEAR(run.loss().item<double>(), run.golden("loss").item<double>(), tolerance() * 10);
  EXPECT_LT(run.gradient_difference("grad.", run.loss()), GetParam().stored_double ? 1e-11 : 2e-6);
}

TEST_P(WideNetGolden, LogitsAndGradientsInFloat) {
  Recorded run(GetParam(), at::kFloat);
  EXPECT_LT(test::largest_difference(run.output().logits, run.golden("logits")), 5e-6);
  EXPECT_LT(test::largest_difference(run.output().logits, run.golden("float32.logits")), 5e-6);
  EXPECT_LT(run.gradient_difference("grad.", run.loss()), 1e-5);
}

TEST_P(WideNetGolden, BalanceGradientReachesRouterAndNorms) {
  if (!GetParam().stored_double || std::string(GetParam().name) == "k1")
    GTEST_SKIP() << "not recorded in this case";
  Recorded run(GetParam(), at::kDouble);
  EXPECT_LT(run.gradient_difference("grad_of_balance.", run.balance()), 1e-11);
}

INSTANTIATE_TEST_SUITE_P(Recorded, WideNetGolden, testing::ValuesIn(kCases));

}  // namespace
}  // namespace stoa
