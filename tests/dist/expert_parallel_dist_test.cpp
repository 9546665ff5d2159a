// Mixtures whose tokens and experts are shared by processes compute what one process computes.
#include "stoa/dist/expert_parallel.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "stoa/base/errors.h"
#include "stoa/dist/environment.h"
#include "stoa/dist/mesh.h"
#include "stoa/dist/split_weights.h"
#include "stoa/dist/world.h"
#include "stoa/nn/moe/mixture.h"
#include "stoa/ops/dropout.h"
#include "stoa/tensor/runtime.h"
#include "support/processes.h"
#include "support/thrown.h"

namespace stoa::dist {
namespace {

constexpr std::int64_t kDim = 6, kSamples = 7, kTokens = 5, kExperts = 12, kStep = 11;

nn::MixtureOptions options_of(const std::function<void(nn::MixtureOptions&)>& change = {}) {
  nn::MixtureOptions options;
  options.dim = kDim;
  options.hidden = 8;
  options.router.experts = kExperts;
  options.router.top_k = 2;
  options.router.noise = 1;
  options.router.capacity_factor = 1.3;
  options.router.balance_weight = 0.5;
  options.router.z_weight = 0.1;
  if (change) change(options);
  return options;
}

nn::Mixture make(const nn::MixtureOptions& options) {
  at::manual_seed(1);
  nn::Mixture mixture(options);
  mixture->to(at::kDouble);
  const at::NoGradGuard no_gradients;
  mixture->b_in.normal_();
  mixture->b_out.normal_();
  return mixture;
}

/// A mesh whose replicas deal out the experts among `expert` of them, and cut them into `tensor` parts.
struct Setting {
  explicit Setting(std::int64_t expert, std::shared_ptr<World> joined = World::join(read_place()),
                   std::int64_t tensor = 1)
      : world(std::move(joined)), mesh(*world, options_for(expert, tensor)) {}
  static ParallelOptions options_for(std::int64_t expert, std::int64_t tensor) {
    ParallelOptions options;
    options.expert = expert;
    options.tensor = tensor;
    return options;
  }
  SplitWeights cut(nn::Mixture& mixture) const {
    return mesh.tensor().size() == 1 ? SplitWeights()
                                     : SplitWeights(*mixture, mesh.shared(GroupKind::kTensor));
  }
  ExpertParallel share(nn::Mixture& mixture, bool together = true) const {
    return {
        *mixture,
        {mesh.shared(GroupKind::kData), mesh.shared(GroupKind::kExpert), mesh.shared(GroupKind::kExpertData)},
        together};
  }
  std::shared_ptr<World> world;
  Mesh mesh;
};

struct Pass {
  nn::MixtureOutput result;
  at::Tensor x;
  std::vector<at::Tensor> losses;
};

/// Forward and backward of some samples of the whole input, whose losses count by `share`.
Pass pass_of(nn::Mixture& mixture, std::int64_t begin, std::int64_t end, double share) {
  at::manual_seed(2);
  const auto whole = at::randn({kSamples, kTokens, kDim}, at::kDouble);
  const auto direction = at::randn({kSamples, kTokens, kDim}, at::kDouble);
  Pass pass;
  pass.x = whole.slice(0, begin, end).clone().requires_grad_();
  const ops::BatchPartScope part({begin, 3});
  pass.result = mixture->forward(pass.x);
  auto total = (pass.result.output * direction.slice(0, begin, end)).sum();
  const auto side = nn::routing_outputs({pass.result.statistics}, mixture->options().router);
  for (const auto& loss : side.losses) {
    total = total + loss.value * share;
    pass.losses.push_back(loss.value.detach());
  }
  for (const auto& statistic : side.statistics) pass.losses.push_back(statistic.value.detach());
  total.backward();
  return pass;
}

void expect_close(const at::Tensor& found, const at::Tensor& wanted, const std::string& what) {
  ASSERT_EQ(found.sizes(), wanted.sizes()) << what;
  if (found.numel() > 0) {
    EXPECT_LE((found - wanted).abs().max().item<double>(), 1e-12) << what;
  }
}

/// Gradients, slots, losses and statistics of this process's samples and experts against those of one.
void expect_as_one(const Setting& setting, const nn::MixtureOptions& options, const std::string& what,
                   const std::function<void(nn::Mixture&)>& change = {}) {
  const auto rank = setting.mesh.data().rank(), size = setting.mesh.data().size();
  const auto begin = kSamples * rank / size, end = kSamples * (rank + 1) / size;
  auto whole = make(options), mine = make(options);
  for (auto* const mixture : {&whole, &mine})
    if (change) change(*mixture);
  const auto weights = setting.cut(mine);
  const auto experts = setting.share(mine);
  const auto wanted = pass_of(whole, 0, kSamples, 1);
  const auto found = pass_of(mine, begin, end, static_cast<double>(end - begin) / kSamples);
  expect_close(found.result.output, wanted.result.output.slice(0, begin, end), what + ": output");
  expect_close(found.x.grad(), wanted.x.grad().slice(0, begin, end), what + ": gradient of x");
  if (wanted.result.routing.slot.defined()) {
    if (options.router.capacity_factor > 0) {
      EXPECT_GT(wanted.result.statistics.drop_rate.item<double>(), 0) << what;
    }
    EXPECT_TRUE(at::equal(found.result.routing.slot,
                          wanted.result.routing.slot.slice(0, begin * kTokens, end * kTokens)))
        << what;
  }
  ASSERT_EQ(found.losses.size(), wanted.losses.size());
  for (std::size_t i = 0; i < wanted.losses.size(); ++i)
    expect_close(found.losses[i], wanted.losses[i], what + ": loss or statistic " + std::to_string(i));

  const auto router = mine->router->weight.grad().clone();
  setting.mesh.data().all_reduce(router);
  expect_close(router, whole->router->weight.grad(), what + ": gradient of the router");
  const auto& group = setting.mesh.expert();
  for (const std::string name : {"w_in", "b_in", "w_out", "b_out"}) {
    auto sum = mine->named_parameters()[name].grad().clone();
    setting.mesh.expert_data().all_reduce(sum);
    const auto held = kExperts / group.size();
    expect_close(weights.whole({{name, sum}}).at(name),
                 whole->named_parameters()[name].grad().narrow(0, group.rank() * held, held),
                 what + ": gradient of " + name);
  }
}

void expect_all_kinds_as_one(const Setting& setting) {
  using O = nn::MixtureOptions;
  const std::vector<std::pair<const char*, std::function<void(O&)>>> kinds = {
      {"choice by choice", [](O&) {}},
      {"token by token", [](O& o) { o.router.fill = nn::FillOrder::kToken; }},
      {"by priority", [](O& o) { o.router.fill = nn::FillOrder::kPriority; }},
      {"groups across processes", [](O& o) { o.router.group_size = 2; }},
      {"dropless", [](O& o) { o.router.capacity_factor = 0; }},
      {"expert choice, normalised gates",
       [](O& o) {
         o.router.routing = nn::RoutingKind::kExpertChoice;
         o.router.renormalise_gates = true;
       }},
      {"losses of V-MoE, dropout, padded",
       [](O& o) {
         o.router.importance_weight = o.router.load_weight = 0.2;
         o.dropout = 0.3;
         o.backend = ops::MixtureBackend::kPadded;
       }},
  };
  for (const auto& [name, change] : kinds) expect_as_one(setting, options_of(change), name);
}

STOA_PROCESS_TEST(ExpertParallel, RoutesAndComputesAsOneProcess, 2, 3) {
  const int world = read_place().world;
  const Setting dealt(world);
  expect_all_kinds_as_one(dealt);
  // every token goes to the first expert: other processes have nothing to compute
  expect_as_one(dealt, options_of([](auto& o) {
                  o.router.top_k = 1;
                  o.router.noise = 0;
                  o.dropout = 0.3;
                }),
                "one busy expert", [](nn::Mixture& mixture) { mixture->router->weight.detach().zero_(); });
}

STOA_PROCESS_TEST(ExpertParallel, BlocksOfReplicasShareExperts, 4) {
  const Setting pairs(2);
  expect_all_kinds_as_one(pairs);
  const Setting none(1, pairs.world);  // data alone
  expect_as_one(none, options_of(), "data");
}

STOA_PROCESS_TEST(ExpertParallel, HiddenUnitsOfDealtExpertsAreSplit, 4) {
  const Setting both(2, World::join(read_place()), 2);
  expect_all_kinds_as_one(both);
  const Setting parts(1, both.world, 4);  // of one replica
  expect_as_one(parts, options_of([](auto& o) { o.dropout = 0.3; }), "hidden units alone");
  auto mixture = make(options_of());
  const auto weights = both.cut(mixture);
  const auto experts = both.share(mixture);
  EXPECT_EQ(mixture->w_in.sizes(), at::IntArrayRef({kExperts / 2, kDim, 4}));
  EXPECT_EQ(mixture->w_out.sizes(), at::IntArrayRef({kExperts / 2, 4, kDim}));
  // in one form and back
  auto whole = make(options_of());
  const auto state = weights.whole(experts.whole(nn::module_state(*mixture)));
  const auto shares = experts.shares(weights.shares(nn::module_state(*whole)));
  for (const auto& [name, tensor] : nn::module_state(*mixture))
    EXPECT_TRUE(at::equal(shares.at(name), tensor)) << name;
  for (const auto& [name, tensor] : nn::module_state(*whole))
    if (both.mesh.expert().rank() == 0) {
      EXPECT_TRUE(at::equal(state.at(name), tensor)) << name;
    }
}

TEST(SplitExperts, StayWholeWhereMoreThanASumFollows) {
  auto mixture = make(options_of([](auto& o) { o.output_activation = ops::Activation::kGeluTanh; }));
  EXPECT_TRUE(mixture->cuts().empty());
  mixture->require_parts(3);
  STOA_EXPECT_CONTAINS(test::thrown<ConfigError>([] { make(options_of())->require_parts(3); }),
                       "`parallel.tensor` is 3, which does not divide the 8 hidden units of experts");
}

STOA_PROCESS_TEST(ExpertParallel, SendsEachTokenOnceAChoice, 3) {
  const Setting setting(read_place().world);
  const std::int64_t world = setting.world->size(), samples = 4, tokens = kExperts, dim = kExperts;
  auto options = options_of([](auto& o) {
    o.dim = kExperts;
    o.router.top_k = 1;
    o.router.noise = o.router.capacity_factor = 0;
  });
  auto mixture = make(options);
  mixture->router->weight.detach().copy_(10 * at::eye(kExperts, at::kDouble));  // token i goes to expert i
  const auto experts = setting.share(mixture);
  const auto x = at::eye(dim, at::kDouble).repeat({samples, 1, 1}).requires_grad_();
  const auto& group = setting.mesh.expert();
  const auto before = group.traffic().bytes;
  const auto output = mixture->forward(x).output;
  const auto rows = samples * tokens * dim * 8 * (world - 1) / world;
  const auto counts = (world - 1) * kExperts / world * 8;
  EXPECT_EQ(group.traffic().bytes - before, 2 * rows + counts);
  // routing: tokens and whether all is finite, counts, sums of probabilities and three numbers more
  EXPECT_EQ(setting.mesh.data().traffic().bytes, (world - 1) * 8 * (2 + kExperts + kExperts + 3));
  output.sum().backward();
  EXPECT_EQ(group.traffic().bytes - before, 4 * rows + counts);
}

STOA_PROCESS_TEST(ExpertParallel, KeepsStatesAndWeightsOfItsExperts, 2) {
  const Setting setting(2);
  auto mixture = make(options_of()), whole = make(options_of());
  auto experts = setting.share(mixture);
  const int rank = setting.world->rank();
  EXPECT_TRUE(experts.meets() && experts.deals());
  EXPECT_EQ(mixture->w_in.size(0), kExperts / 2);
  EXPECT_TRUE(experts.is_dealt("w_in") && experts.is_dealt("b_out.exp_avg"));
  EXPECT_FALSE(experts.is_dealt("router.weight") || experts.is_dealt("w_input"));
  for (const auto& parameter : nn::distinct_parameters(*mixture))
    EXPECT_EQ(parameter.slices, parameter.name == "router.weight" ? 1 : kExperts / 2);
  const auto all = nn::module_state(*whole);
  const auto shares = experts.shares(all);
  const auto own = nn::module_state(*mixture);
  for (const auto& [name, tensor] : own) EXPECT_TRUE(at::equal(tensor, shares.at(name))) << name;
  const auto gathered = experts.whole(own);
  const auto checks = [&](const std::map<std::string, at::Tensor>& state) {
    for (const auto& [name, tensor] : all)
      if (rank == 0) {
        EXPECT_TRUE(at::equal(tensor, state.at(name))) << name;
      }
  };
  checks(gathered);
  experts.join(*mixture);
  EXPECT_FALSE(experts.deals());
  checks(nn::module_state(*mixture));
  if (rank == 0) {
    pass_of(mixture, 0, kSamples, 1);  // needs nobody
  }

  auto odd = make(options_of([](auto& o) { o.router.experts = 3; }));
  STOA_EXPECT_CONTAINS(test::thrown<ConfigError>([&] { setting.share(odd); }),
                       "`parallel.expert` is 2, which does not divide the 3 experts");
  nn::Router none(kDim, options_of().router);
  STOA_EXPECT_CONTAINS(test::thrown<ConfigError>([&] {
                         ExpertParallel(
                             *none,
                             {setting.mesh.shared(GroupKind::kData), setting.mesh.shared(GroupKind::kExpert),
                              setting.mesh.shared(GroupKind::kExpertData)},
                             true);
                       }),
                       "no mixture");
}

/// In evaluation every process has the whole batch.
void expect_own_evaluation(const Setting& setting) {
  auto options = options_of([](auto& o) { o.router.eval_capacity_factor = -1; });
  auto mixture = make(options), whole = make(options);
  const auto experts = setting.share(mixture);
  mixture->eval();
  whole->eval();
  at::manual_seed(4);  // all processes evaluate the same
  const auto x = at::randn({2, kTokens, kDim}, at::kDouble);
  const at::NoGradGuard no_gradients;
  expect_close(mixture->forward(x).output, whole->forward(x).output, "evaluation");
}

void expect_half_precision(const Setting& setting) {
  const auto options = options_of([](auto& o) { o.router.noise = 0; });
  auto mixture = make(options), whole = make(options);
  mixture->to(at::kFloat);
  whole->to(at::kFloat);
  const auto experts = setting.share(mixture);
  Runtime runtime;
  runtime.bf16 = true;
  const AutocastScope autocast(runtime);
  at::manual_seed(5 + setting.world->rank());
  const auto own = at::randn({2, kTokens, kDim}).requires_grad_();
  const auto all = setting.mesh.data().all_gather(own.detach()).flatten(0, 1).requires_grad_();
  const auto begin = 2 * setting.world->rank();
  const auto wanted = whole->forward(all).output, found = mixture->forward(own).output;
  EXPECT_EQ(found.scalar_type(), wanted.scalar_type());
  wanted.sum().backward();
  found.sum().backward();
  EXPECT_LT((found - wanted.slice(0, begin, begin + 2)).abs().max().item<double>(), 0.02);
  EXPECT_LT((own.grad() - all.grad().slice(0, begin, begin + 2)).abs().max().item<double>(), 0.05);
}

/// All processes hear of it.
void expect_bad_gates_found(const Setting& setting) {
  auto mixture = make(options_of());
  const auto experts = setting.share(mixture);
  auto x = at::randn({2, kTokens, kDim}, at::kDouble);
  if (setting.world->rank() == 1) x[0][0][0] = std::numeric_limits<double>::infinity();
  STOA_EXPECT_CONTAINS(test::thrown<NumericError>([&] { mixture->forward(x); }), "not finite");
}

STOA_PROCESS_TEST(ExpertParallel, EvaluatesComputesInHalfPrecisionAndFindsBadGates, 2) {
  const Setting setting(2);
  expect_own_evaluation(setting);
  expect_half_precision(setting);
  expect_bad_gates_found(setting);
}

}  // namespace
}  // namespace stoa::dist
