#include "stoa/ops/linear_cross_entropy.h"

#include <gtest/gtest.h>

#include <limits>

#include "ops/fused_cases.h"
#include "ops/linear_cross_entropy_cases.h"
#include "stoa/base/errors.h"
#include "stoa/ops/gemm.h"
#include "stoa/tensor/runtime.h"
#include "support/thrown.h"

namespace stoa::ops::test {
namespace {

using stoa::test::thrown;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// one row and one class; below, at and above blocks of classes; several chunks of rows; nothing
constexpr LossSize kSizes[] = {{1, 1, 1},     {1, 7, 258},   {0, 4, 9},       {3, 31, 65},
                               {70, 64, 256}, {65, 20, 999}, {1100, 17, 300}, {90, 4, 140001}};

/// Results and the gradients of three times the loss, all double.
std::vector<at::Tensor> all(const LinearCrossEntropy& found, const std::vector<at::Tensor>& leaves) {
  std::vector<at::Tensor> result;
  for (const auto& gradient : torch::autograd::grad({found.loss * 3}, leaves))
    result.push_back(gradient.to(at::kDouble));
  result.push_back(found.loss.detach().to(at::kDouble));
  result.push_back(found.row_loss.to(at::kDouble));
  return result;
}

void expect_near(const std::vector<at::Tensor>& found, const std::vector<at::Tensor>& wanted,
                 double tolerance) {
  ASSERT_EQ(found.size(), wanted.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    ASSERT_EQ(found[i].sizes(), wanted[i].sizes()) << "tensor " << i;
    if (wanted[i].numel() == 0) continue;
    // gradients of a mean are small numbers: held to the largest of them, however small
    const double scale = std::max(1e-3, wanted[i].abs().max().item<double>());
    EXPECT_LT((found[i] - wanted[i]).abs().max().item<double>() / scale, tolerance) << "tensor " << i;
  }
}

/// Runs every problem of every size in `type` against the reference in double on the same numbers.
void hold_to_the_reference(at::ScalarType type, double tolerance) {
  for (const auto& size : kSizes) {
    const auto problems = loss_problems(size, type, type);
    const auto exact = loss_problems(size, type, at::kDouble);
    for (std::size_t i = 0; i < problems.size(); ++i) {
      SCOPED_TRACE(problems[i].name());
      const auto found = problems[i].run(), wanted = exact[i].reference();
      expect_near(all(found, problems[i].leaves()), all(wanted, exact[i].leaves()), tolerance);
      EXPECT_TRUE(found.correct.equal(wanted.correct));
      EXPECT_EQ(found.loss.scalar_type(), type == at::kDouble ? at::kDouble : at::kFloat);
    }
  }
}

TEST(LinearCrossEntropy, EqualsTheReferenceInSinglePrecision) {
  hold_to_the_reference(at::kFloat, 1e-5);
}

TEST(LinearCrossEntropy, EqualsTheReferenceInDoublePrecision) {
  hold_to_the_reference(at::kDouble, 1e-12);
}

TEST(LinearCrossEntropy, EqualsTheReferenceByChunksOfPlainProducts) {
  forbid_gemm_blocks(true);
  hold_to_the_reference(at::kFloat, 1e-5);
  forbid_gemm_blocks(false);
}

TEST(LinearCrossEntropy, EqualsTorch) {
  for (const auto& p : loss_problems({70, 33, 150}, at::kFloat, at::kFloat)) {
    const auto wanted = at::cross_entropy_loss(
        at::linear(p.x, p.weight, p.bias.defined() ? std::optional(p.bias) : std::nullopt), p.target, {},
        at::Reduction::Mean, -100, p.smoothing);
    EXPECT_NEAR(p.run().loss.item<float>(), wanted.item<float>(), 1e-5) << p.name();
  }
}

TEST(LinearCrossEntropy, EverySimdLevelAgrees) {
  const auto problems = loss_problems({70, 50, 533}, at::kFloat, at::kFloat);
  const auto exact = loss_problems({70, 50, 533}, at::kFloat, at::kDouble);
  every_simd_level([&] {
    for (std::size_t i = 0; i < problems.size(); ++i)
      expect_near(all(problems[i].run(), problems[i].leaves()), all(exact[i].reference(), exact[i].leaves()),
                  1e-5);
  });
}

TEST(LinearCrossEntropy, DoesNotDependOnTheNumberOfThreads) {
  for (const LossSize& size : {LossSize{1100, 17, 300}, LossSize{130, 40, 5000}})
    for (const bool bf16 : {false, true})
      for (const auto& p : loss_problems(size, at::kFloat, at::kFloat)) {
        const auto work = [&] { return all(p.run(bf16), p.leaves()); };
        const auto one = on_threads(1, work);
        expect_equal(on_threads(2, work), one);
        expect_equal(on_threads(3, work), one);
      }
}

TEST(LinearCrossEntropy, IsTheSameWithoutGradients) {
  for (const auto& p : loss_problems({100, 40, 700}, at::kFloat, at::kFloat)) {
    const auto with = p.run();
    const at::NoGradGuard no_grad;
    const auto without = p.run();
    EXPECT_TRUE(with.loss.equal(without.loss) && with.row_loss.equal(without.row_loss));
    EXPECT_FALSE(without.loss.requires_grad());
  }
}

TEST(LinearCrossEntropy, TakesViewsOfAnyStrideAndAlignment) {
  for (const auto& p : loss_problems({21, 30, 77}, at::kFloat, at::kFloat)) {
    const auto wanted = all(p.run(), p.leaves());
    for (auto* const view : {&unaligned, &strided}) {
      auto q = p;
      q.x = view(p.x.detach()).requires_grad_();
      q.weight = view(p.weight.detach()).requires_grad_();
      if (p.bias.defined()) q.bias = view(p.bias.detach()).requires_grad_();
      q.target = view(p.target);
      expect_equal(all(q.run(), q.leaves()), wanted);
    }
  }
}

TEST(LinearCrossEntropy, OnlyWhatIsAskedForIsDifferentiated) {
  const auto p = loss_problems({33, 12, 140}, at::kFloat, at::kFloat)[3];
  const auto wanted = all(p.run(), p.leaves());
  for (std::size_t learns = 0; learns < 3; ++learns) {
    std::vector<at::Tensor> inputs;
    for (const auto& leaf : p.leaves())
      inputs.push_back(leaf.detach().clone().requires_grad_(inputs.size() == learns));
    const auto loss = linear_cross_entropy(inputs[0], inputs[1], inputs[2], p.target, p.smoothing).loss * 3;
    loss.backward();
    for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(inputs[i].grad().defined(), i == learns);
    EXPECT_TRUE(inputs[learns].grad().to(at::kDouble).equal(wanted[learns])) << "input " << learns;
  }
}

TEST(LinearCrossEntropy, DifferentiatesOneTensorInBothPlaces) {
  at::manual_seed(3);
  const auto table = at::randn({40, 16}).requires_grad_();
  const auto target = at::arange(40);
  const auto found = linear_cross_entropy(table, table, {}, target).loss;
  const auto wanted = linear_cross_entropy_reference(table, table, {}, target).loss;
  expect_close(torch::autograd::grad({found}, {table}), torch::autograd::grad({wanted}, {table}), 1e-6);
}

TEST(LinearCrossEntropy, BackwardMayRunTwice) {
  const auto p = loss_problems({9, 12, 40}, at::kFloat, at::kFloat)[1];
  const auto loss = p.run().loss;
  loss.backward({}, /*retain_graph=*/true);
  const auto once = p.weight.grad().clone();
  loss.backward();
  EXPECT_TRUE(p.weight.grad().equal(once * 2));
  STOA_EXPECT_CONTAINS(
      thrown<Error>([&] { torch::autograd::grad({p.run().loss}, {p.x}, {}, {}, /*create_graph=*/true); }),
      "linear_cross_entropy_reference");
}

TEST(LinearCrossEntropy, RowsThatDoNotCountReachNothing) {
  for (const auto type : {at::kFloat, at::kDouble}) {
    auto p = loss_problems({6, 5, 11}, type, type)[3];
    p.target = at::tensor({3, -100, 0, 10, -100, 2}, at::kLong);
    const auto kept = p.target.ne(-100);
    auto q = p;
    q.x = p.x.detach().clone().masked_fill_(~kept.unsqueeze(1), kNan).requires_grad_();
    const auto found = all(q.run(), q.leaves());
    expect_equal(found, all(p.run(), p.leaves()));
    EXPECT_TRUE(found[0].index({~kept}).eq(0).all().item<bool>());
    const auto own = linear_cross_entropy(p.x, p.weight, p.bias, p.target.masked_fill(~kept, 7), 0.1, 7).loss;
    EXPECT_TRUE(own.equal(p.run().loss));
  }
}

TEST(LinearCrossEntropy, IsZeroWhereNoRowCounts) {
  for (const auto type : {at::kFloat, at::kDouble})
    for (const std::int64_t rows : {0, 5}) {
      auto p = loss_problems({rows, 5, 11}, type, type)[3];
      p.target.fill_(-100);
      for (const auto& result : all(p.run(), p.leaves())) EXPECT_TRUE(result.eq(0).all().item<bool>());
      EXPECT_FALSE(p.run().correct.any().item<bool>());
    }
}

TEST(LinearCrossEntropy, NonFiniteInputsReachTheLossTheirRowAndTheWeights) {
  for (const float bad : {kNan, kInfinity}) {
    auto p = loss_problems({70, 5, 200}, at::kFloat, at::kFloat)[3];
    p.target.fill_(1);
    p.x = p.x.detach().clone().requires_grad_();
    p.x.data()[66][2] = bad;
    const auto found = p.run();
    EXPECT_TRUE(found.loss.isnan().item<bool>());
    EXPECT_TRUE(found.row_loss.isnan().equal(at::arange(70).eq(66)));
    EXPECT_FALSE(found.correct[66].item<bool>());
    const auto gradients = all(found, p.leaves());
    EXPECT_TRUE(gradients[0].isnan().all(1).equal(at::arange(70).eq(66)));
    EXPECT_TRUE(gradients[1].isnan().all().item<bool>());
  }
}

TEST(LinearCrossEntropy, ClassesMayBeRuledOutAndScoresLarge) {
  auto p = loss_problems({9, 8, 700}, at::kFloat, at::kFloat)[2];
  p.target.clamp_(600);  // whole blocks are ruled out before
  p.bias.data().narrow(0, 0, 600).fill_(-kInfinity);
  p.x.data().mul_(300);
  auto q = p;
  q.x = p.x.detach().to(at::kDouble).requires_grad_();
  q.weight = p.weight.detach().to(at::kDouble).requires_grad_();
  q.bias = p.bias.detach().to(at::kDouble).requires_grad_();
  expect_near(all(p.run(), p.leaves()), all(q.reference(), q.leaves()), 1e-3);
  EXPECT_TRUE(p.run().loss.isfinite().item<bool>());
}

TEST(LinearCrossEntropy, RoundsOnlyTheOperandsInBfloat16) {
  if (!has_gemm_blocks(Operands::kBfloat16)) GTEST_SKIP() << "this CPU does not multiply bf16 natively";
  const auto problems = loss_problems({70, 33, 300}, at::kBFloat16, at::kFloat);
  const auto exact = loss_problems({70, 33, 300}, at::kBFloat16, at::kDouble);
  for (std::size_t i = 0; i < problems.size(); ++i) {
    const auto found = all(problems[i].run(/*bf16=*/true), problems[i].leaves());
    const auto wanted = all(exact[i].reference(), exact[i].leaves());
    const auto results = problems[i].leaves().size();
    for (std::size_t t = 0; t < found.size(); ++t)  // only the gradients of the scores are rounded
      expect_near({found[t]}, {wanted[t]}, t == results || t == results + 1 || t == 2 ? 1e-5 : 5e-3);
  }
}

TEST(LinearCrossEntropy, AutocastKeepsASingleLoss) {
  Runtime runtime;
  runtime.bf16 = true;
  for (const auto& p : loss_problems({20, 16, 60}, at::kBFloat16, at::kFloat)) {
    const auto wanted = p.run().loss.item<float>();
    const AutocastScope autocast(runtime);
    const auto found = p.run();
    EXPECT_EQ(found.loss.scalar_type(), at::kFloat);
    EXPECT_NEAR(found.loss.item<float>(), wanted, 0.05);
    auto q = p;
    q.x = p.x.detach().to(at::kBFloat16).requires_grad_();
    q.run().loss.backward();
    EXPECT_EQ(q.x.grad().scalar_type(), at::kBFloat16);
    forbid_gemm_blocks(true);
    EXPECT_NEAR(p.run().loss.item<float>(), wanted, 0.05);
    forbid_gemm_blocks(false);
  }
}

TEST(LinearCrossEntropy, TakesHalfPrecision) {
  for (const auto type : {at::kBFloat16, at::kHalf}) {
    const auto problems = loss_problems({70, 33, 300}, type, type);
    const auto exact = loss_problems({70, 33, 300}, type, at::kDouble);
    for (std::size_t i = 0; i < problems.size(); ++i)
      expect_near(all(problems[i].run(), problems[i].leaves()), all(exact[i].reference(), exact[i].leaves()),
                  0.05);
  }
}

TEST(LinearCrossEntropy, RefusesATargetThatIsNoClass) {
  for (const auto type : {at::kFloat, at::kDouble}) {
    const auto run = [&](std::int64_t wrong) {
      linear_cross_entropy(at::zeros({4, 3}, type), at::zeros({10, 3}, type), {},
                           at::tensor(std::vector<std::int64_t>{1, -100, 9, wrong}));
    };
    EXPECT_EQ(thrown<DataError>([&] { run(10); }),
              "linear_cross_entropy: the target of row 3 is 10; a class from 0 to 9 is needed, or -100 for a "
              "row that does not count");
    STOA_EXPECT_CONTAINS(thrown<DataError>([&] { run(-1); }), "row 3 is -1");
  }
}

TEST(LinearCrossEntropy, RefusesArgumentsThatDoNotFit) {
  const auto x = at::zeros({4, 3}), weight = at::zeros({10, 3}), target = at::zeros({4}, at::kLong);
  const auto refused = [](const char* part, const auto& work) {
    STOA_EXPECT_CONTAINS(thrown<ShapeError>(work), part);
  };
  refused("x has shape", [&] { linear_cross_entropy(at::zeros({3}), weight, {}, target); });
  refused("weight has shape", [&] { linear_cross_entropy(x, at::zeros({10, 4}), {}, target); });
  refused("weight has no row", [&] { linear_cross_entropy(x, at::zeros({0, 3}), {}, target); });
  refused("bias has shape", [&] { linear_cross_entropy(x, weight, at::zeros({9}), target); });
  refused("target has shape", [&] { linear_cross_entropy(x, weight, {}, target.narrow(0, 0, 3)); });
  STOA_EXPECT_CONTAINS(thrown<Error>([&] { linear_cross_entropy(x, weight, {}, target.to(at::kInt)); }),
                       "int64");
  STOA_EXPECT_CONTAINS(thrown<Error>([&] { linear_cross_entropy(x, weight.to(at::kDouble), {}, target); }),
                       "Double");
  STOA_EXPECT_CONTAINS(thrown<Error>([&] { linear_cross_entropy(x, weight, {}, target, 1.5); }), "1.5");
}

}  // namespace
}  // namespace stoa::ops::test
