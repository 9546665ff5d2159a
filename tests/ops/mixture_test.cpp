#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <gtest/gtest.h>

#include "ops/mixture_problem.h"
#include "stoa/base/errors.h"
#include "stoa/ops/gemm.h"
#include "stoa/ops/mixture_rows.h"
#include "support/thrown.h"

namespace stoa::ops::test {
namespace {

constexpr Activation kActivations[] = {Activation::kNone, Activation::kGeluTanh, Activation::kGeluErf,
                                       Activation::kRelu};

// The result and every gradient of sum(direction * y).
std::vector<at::Tensor> result_and_gradients(const Problem& problem, const MixtureSettings& settings) {
  const auto y = problem.run(settings);
  auto all = torch::autograd::grad({(y * problem.direction).sum()}, problem.leaves());
  all.push_back(y.detach());
  return all;
}

void expect_backends_agree(at::ScalarType type, double tolerance) {
  for (const auto& problem : make_problems(type)) {
    for (const auto hidden : kActivations) {
      for (const auto output : {Activation::kNone, Activation::kGeluTanh}) {
        const auto expected = result_and_gradients(problem, {hidden, output, MixtureBackend::kNaive});
        for (const auto backend : {MixtureBackend::kPadded, MixtureBackend::kSorted}) {
          SCOPED_TRACE(problem.name);
          const auto found = result_and_gradients(problem, {hidden, output, backend});
          for (std::size_t i = 0; i < expected.size(); ++i) {
            ASSERT_EQ(found[i].sizes(), expected[i].sizes());
            if (expected[i].numel() == 0) continue;
            const double scale = std::max(1.0, expected[i].abs().max().item<double>());
            EXPECT_LE((found[i] - expected[i]).abs().max().item<double>(), tolerance * scale)
                << "tensor " << i << ", activations " << static_cast<int>(hidden) << " and "
                << static_cast<int>(output);
          }
        }
      }
    }
  }
}

TEST(Mixture, BackendsAgreeInDouble) {
  expect_backends_agree(at::kDouble, 1e-12);
}

TEST(Mixture, BackendsAgreeInFloat) {
  expect_backends_agree(at::kFloat, 1e-5);
}

TEST(Mixture, ComputesTheFormula) {
  // one token, two experts of one unit each: 0.5 * (2 relu(3 * 1 + 1) + 1) + 2 * (relu(-1 * 1 + 5) - 1) = 4.5
  // + 6
  const auto value = [](double a, double b, at::IntArrayRef shape) {
    return at::tensor({a, b}, at::kDouble).view(shape);
  };
  const Assignments assignments{at::tensor({0, 0}, at::kLong), at::tensor({0, 1}, at::kLong),
                                value(0.5, 2, {2})};
  const ExpertWeights weights{value(3, -1, {2, 1, 1}), value(1, 5, {2, 1}), value(2, 1, {2, 1, 1}),
                              value(1, -1, {2, 1})};
  for (const auto backend : kBackends) {
    const auto y = mixture(at::ones({1, 1}, at::kDouble), assignments, weights,
                           {Activation::kRelu, Activation::kNone, backend});
    EXPECT_DOUBLE_EQ(y.item<double>(), 10.5);
  }
}

TEST(Mixture, TokenWithoutAssignmentGetsZero) {
  const auto problem = make_problem("", 3, 2, {0, 2}, {1, 0});
  for (const auto backend : kBackends)
    EXPECT_TRUE(problem.run({Activation::kGeluTanh, Activation::kNone, backend})[1].eq(0).all().item<bool>());
}

TEST(Mixture, ExpertWithoutTokensGetsZeroGradients) {
  const auto problem = make_problem("", 3, 4, {0, 1, 2, 0}, {3, 0, 3, 0});
  for (const auto backend : kBackends) {
    const auto all = result_and_gradients(problem, {Activation::kGeluTanh, Activation::kNone, backend});
    for (std::size_t i = 2; i < 6; ++i)
      for (const std::int64_t idle : {1, 2}) EXPECT_TRUE(all[i][idle].eq(0).all().item<bool>()) << i;
  }
}

TEST(Mixture, OnlyNeededGradientsAreMade) {
  for (std::size_t wanted = 0; wanted < 6; ++wanted) {
    const auto problem = make_problem("", 3, 2, {0, 1, 2, 0}, {1, 0, 1, 0});
    const auto leaves = problem.leaves();
    const auto expected = result_and_gradients(problem, {})[wanted];
    for (std::size_t i = 0; i < 6; ++i) leaves[i].requires_grad_(i == wanted);
    (problem.run({}) * problem.direction).sum().backward();
    for (std::size_t i = 0; i < 6; ++i) EXPECT_EQ(leaves[i].grad().defined(), i == wanted);
    EXPECT_TRUE(at::equal(leaves[wanted].grad(), expected));
  }
}

TEST(Mixture, StridedInputsAreAccepted) {
  auto problem = make_problem("", 4, 2, {0, 1, 2, 3, 0}, {1, 0, 1, 1, 0});
  const auto expected = result_and_gradients(problem, {});
  const auto turned = [](const at::Tensor& t) {
    return t.detach().t().contiguous().t().requires_grad_(true);
  };
  problem.x = turned(problem.x);
  problem.direction = turned(problem.direction).detach();
  problem.assignments.gate =
      at::stack({problem.assignments.gate.detach(), problem.assignments.gate.detach()}, 1)
          .select(1, 0)
          .requires_grad_(true);
  const auto found = result_and_gradients(problem, {});
  for (std::size_t i = 0; i < found.size(); ++i)
    EXPECT_TRUE(at::allclose(found[i], expected[i], 1e-12, 1e-12)) << i;
}

TEST(Mixture, GivesTheSameWithoutGradients) {
  for (const auto& problem : make_problems(at::kDouble)) {
    for (const auto backend : kBackends) {
      const MixtureSettings settings{Activation::kGeluTanh, Activation::kGeluTanh, backend};
      const auto x = problem.x.detach().clone();
      const auto expected = problem.run(settings).detach();
      const at::NoGradGuard no_grad;
      EXPECT_TRUE(at::equal(problem.run(settings), expected)) << problem.name;
      EXPECT_TRUE(at::equal(problem.x, x));
    }
  }
}

TEST(Mixture, BackwardTwiceGivesTheSame) {
  const auto problem = with_masks(make_problem("", 4, 2, {0, 1, 2, 3, 0}, {1, 0, 1, 1, 0}));
  const auto loss = (problem.run({Activation::kNone, Activation::kNone}) * problem.direction).sum();
  const auto first = torch::autograd::grad({loss}, problem.leaves(), {}, /*retain_graph=*/true);
  const auto second = torch::autograd::grad({loss}, problem.leaves());
  for (std::size_t i = 0; i < first.size(); ++i) EXPECT_TRUE(at::equal(first[i], second[i])) << i;
}

TEST(Mixture, SecondDerivativesAreRefusedRatherThanWrong) {
  const auto problem = make_problem("", 3, 2, {0, 1, 2}, {1, 0, 1});
  const auto message = stoa::test::thrown<Error>([&] {
    torch::autograd::grad({problem.run({}).square().sum()}, {problem.x}, {}, true, /*create_graph=*/true);
  });
  STOA_EXPECT_CONTAINS(message, "second derivatives");
}

TEST(Mixture, Bfloat16SumsInFloat) {
  // 300 terms of 1: a bf16 sum would stop at 256
  const std::vector<std::int64_t> token(300, 0);
  const std::vector<std::int64_t> expert(300, 0);
  auto problem = make_problem("", 1, 1, token, expert, at::kBFloat16);
  const at::NoGradGuard no_grad;
  problem.assignments.gate = at::ones({300});
  problem.weights.w_out.zero_();
  problem.weights.b_out.fill_(1);
  for (const auto backend : kBackends) {
    const auto y = problem.run({Activation::kRelu, Activation::kNone, backend});
    EXPECT_EQ(y.scalar_type(), at::kBFloat16);
    EXPECT_TRUE(y.eq(300).all().item<bool>()) << y;
  }
}

TEST(Mixture, AutocastComputesInItsTypeAndKeepsGradientsInFloat) {
  const auto problem = with_masks(make_problem("", 4, 3, {0, 0, 1, 1, 2, 3}, {0, 1, 1, 2, 2, 0}, at::kFloat));
  for (const auto backend : kBackends) {
    const MixtureSettings settings{Activation::kGeluTanh, Activation::kNone, backend};
    const auto expected = result_and_gradients(problem, settings);
    at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
    at::autocast::set_autocast_enabled(at::kCPU, true);
    const auto y = problem.run(settings);
    at::autocast::set_autocast_enabled(at::kCPU, false);
    at::autocast::clear_cache();
    // the blocks of the sorted form round inside and keep their tensors in float
    const bool in_blocks = backend == MixtureBackend::kSorted && has_gemm_blocks(Operands::kBfloat16);
    EXPECT_EQ(y.scalar_type(), in_blocks ? at::kFloat : at::kBFloat16);
    const auto gradients = torch::autograd::grad({(y * problem.direction).sum()}, problem.leaves());
    for (std::size_t i = 0; i < gradients.size(); ++i) {
      EXPECT_EQ(gradients[i].scalar_type(), at::kFloat);
      const double scale = expected[i].abs().max().item<double>();
      EXPECT_LE((gradients[i] - expected[i]).abs().max().item<double>(), 0.03 * scale) << i;
    }
  }
}

TEST(Mixture, OperatorIsReachableThroughTheDispatcher) {
  const auto problem = make_problem("", 4, 3, {0, 0, 1, 1, 2, 3}, {0, 1, 1, 2, 2, 0});
  const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("stoa::mixture", "");
  torch::jit::Stack stack;
  for (const auto& tensor :
       {problem.x, problem.assignments.token, problem.assignments.expert, problem.assignments.gate,
        problem.weights.w_in, problem.weights.b_in, problem.weights.w_out, problem.weights.b_out})
    stack.emplace_back(tensor);
  for (const std::int64_t setting : {1, 0, 2}) stack.emplace_back(setting);
  stack.emplace_back();
  stack.emplace_back();
  stack.emplace_back(false);
  op.callBoxed(stack);
  const auto y = stack.at(0).toTensor();
  EXPECT_TRUE(at::equal(y, problem.run({})));
  (y * problem.direction).sum().backward();
  EXPECT_TRUE(at::equal(problem.weights.w_in.grad(), result_and_gradients(problem, {})[2]));
}

TEST(Mixture, MetaTensorsGiveTheShape) {
  const auto problem = make_problem("", 4, 3, {0, 1}, {0, 1});
  const auto meta = [](const at::Tensor& t) { return t.detach().to(at::kMeta); };
  const auto& [token, expert, gate] = problem.assignments;
  const auto& w = problem.weights;
  const auto y = mixture(meta(problem.x), {meta(token), meta(expert), meta(gate)},
                         {meta(w.w_in), meta(w.b_in), meta(w.w_out), meta(w.b_out)}, {});
  EXPECT_EQ(y.sizes(), (std::vector<std::int64_t>{4, 4}));
}

TEST(Mixture, WrongShapesAreNamed) {
  const auto wrong = [](auto change) {
    auto problem = make_problem("", 4, 3, {0, 1}, {0, 1});
    change(problem);
    return stoa::test::thrown<ShapeError>([&] { problem.run({}); });
  };
  STOA_EXPECT_CONTAINS(wrong([](Problem& p) {
                         p.x = at::zeros({4, 6}, at::kDouble);
                       }),
                       "mixture: w_in has shape [3, 5, 7]; [*, 6, *] is needed");
  STOA_EXPECT_CONTAINS(wrong([](Problem& p) { p.x = at::zeros({2, 2, 5}, at::kDouble); }), "mixture: x");
  STOA_EXPECT_CONTAINS(wrong([](Problem& p) { p.x = at::Tensor(); }), "mixture: x is an undefined tensor");
  STOA_EXPECT_CONTAINS(wrong([](Problem& p) { p.assignments.gate = at::zeros({3}, at::kDouble); }),
                       "mixture: gate");
  STOA_EXPECT_CONTAINS(wrong([](Problem& p) {
                         p.weights.b_out = at::zeros({3, 9}, at::kDouble);
                       }),
                       "mixture: b_out");
  STOA_EXPECT_CONTAINS(wrong([](Problem& p) {
                         p.hidden_mask = at::zeros({2, 9}, at::kDouble);
                       }),
                       "hidden_mask");
}

TEST(Mixture, IndicesOutOfRangeAreNamed) {
  for (const auto backend : kBackends) {
    const MixtureSettings settings{Activation::kGeluTanh, Activation::kNone, backend};
    const auto message = [&](std::int64_t token, std::int64_t expert) {
      return stoa::test::thrown<Error>([&] {
        make_problem("", 4, 3, {0, token}, {0, expert}).run(settings);
      });
    };
    STOA_EXPECT_CONTAINS(message(4, 0), "names token 4; there are 4 (0 to 3)");
    STOA_EXPECT_CONTAINS(message(-1, 0), "names token -1");
    STOA_EXPECT_CONTAINS(message(0, 3), "names expert 3; there are 3 (0 to 2)");
  }
}

TEST(Mixture, MixedTypesAreNamed) {
  auto problem = make_problem("", 4, 3, {0, 1}, {0, 1});
  problem.weights.w_out = problem.weights.w_out.to(at::kFloat);
  STOA_EXPECT_CONTAINS(stoa::test::thrown<Error>([&] { problem.run({}); }),
                       "w_out is of type Float and x of type Double");
}

// The row steps behind the padded and the sorted form.

TEST(MixtureRows, PaddedLayoutGivesEveryExpertTheBusiestOnesRows) {
  const auto layout =
      lay_out_rows(at::tensor({2, 0, 1, 0}, at::kLong), at::tensor({1, 1, 0, 1}, at::kLong), 3, 2, true);
  EXPECT_EQ(layout->rows, 6);
  EXPECT_EQ(layout->source, (std::vector<std::int64_t>{2, -1, -1, 0, 1, 3}));
  EXPECT_EQ(layout->row_token, (std::vector<std::int64_t>{1, -1, -1, 2, 0, 0}));
}

TEST(MixtureRows, SortedLayoutHasOneRowAnAssignment) {
  const auto layout =
      lay_out_rows(at::tensor({2, 0, 1, 0}, at::kLong), at::tensor({1, 1, 0, 1}, at::kLong), 3, 2, false);
  EXPECT_EQ(layout->source, (std::vector<std::int64_t>{2, 0, 1, 3}));
  EXPECT_EQ(layout->start, (std::vector<std::int64_t>{0, 1}));
  EXPECT_EQ(layout->count, (std::vector<std::int64_t>{1, 3}));
}

TEST(MixtureRows, CpuKernelsEqualTheirReference) {
  at::manual_seed(3);
  const auto token = at::randint(40, {90}, at::kLong);
  const auto expert = at::randint(5, {90}, at::kLong);
  for (const bool padded : {false, true}) {
    const auto layout = lay_out_rows(token, expert, 40, 5, padded);
    const auto x = at::randn({40, 33}, at::kDouble);
    const auto values = at::randn({layout->rows, 33}, at::kDouble);
    const auto gate = at::randn({90}, at::kDouble);
    const auto mask = at::randn({90, 6}, at::kDouble);
    EXPECT_TRUE(at::equal(gather_tokens(x, *layout), rows_reference::gather_tokens(x, *layout)));
    EXPECT_TRUE(
        at::equal(gather_assignments(mask, *layout), rows_reference::gather_assignments(mask, *layout)));
    for (const auto& weight : {gate, at::Tensor()})
      EXPECT_TRUE(at::allclose(combine_rows(values, weight, *layout),
                               rows_reference::combine_rows(values, weight, *layout), 1e-12, 1e-12));
    const auto found = combine_rows_backward(x, values, gate, *layout);
    const auto expected = rows_reference::combine_rows_backward(x, values, gate, *layout);
    EXPECT_TRUE(at::equal(found.first, expected.first));
    EXPECT_TRUE(at::allclose(found.second, expected.second, 1e-12, 1e-12));
  }
}

TEST(MixtureRows, CombiningDoesNotDependOnThreads) {
  at::manual_seed(4);
  const auto layout =
      lay_out_rows(at::randint(3000, {9000}, at::kLong), at::randint(4, {9000}, at::kLong), 3000, 4, false);
  const auto values = at::randn({9000, 64});
  const auto gate = at::randn({9000});
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const auto alone = combine_rows(values, gate, *layout);
  at::set_num_threads(4);
  const auto together = combine_rows(values, gate, *layout);
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(alone, together));
}

}  // namespace
}  // namespace stoa::ops::test
