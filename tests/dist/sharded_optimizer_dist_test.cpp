#include "stoa/dist/sharded_optimizer.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <string>

#include "stoa/base/errors.h"
#include "stoa/dist/environment.h"
#include "stoa/dist/mesh.h"
#include "stoa/dist/shards.h"
#include "stoa/dist/world.h"
#include "support/parameters.h"
#include "support/processes.h"
#include "support/thrown.h"

namespace stoa::dist {
namespace {

using optim::LambDialect;
using optim::OptimizerKind;
using optim::OptimizerOptions;
using test::distance;
using test::parameter;
using Gradients = ShardedOptimizer::Gradients;
using Parameters = std::vector<nn::NamedParameter>;

constexpr double kLr = 0.05;

/// How a run updates.
struct Rule {
  OptimizerOptions options;
  double limit = 0;
  bool each_slice = false;
};

OptimizerOptions options_of(OptimizerKind kind) {
  OptimizerOptions options;
  options.kind = kind;
  options.lr = kLr;
  options.weight_decay = 0.1;
  options.exclude = {"spared"};
  return options;
}

/// Every rule of the house, with every kind of clipping.
std::vector<Rule> rules() {
  std::vector<Rule> all;
  all.push_back({options_of(OptimizerKind::kSgd), 0.5, false});
  all.back().options.nesterov = true;
  all.push_back({options_of(OptimizerKind::kAdamW), 0.5, false});
  all.push_back({options_of(OptimizerKind::kAdamW), 0.2, true});
  all.back().options.decoupled = false;
  for (const auto dialect :
       {LambDialect::kPaper, LambDialect::kNvLamb, LambDialect::kV1, LambDialect::kClip}) {
    const bool each_slice = dialect == LambDialect::kPaper || dialect == LambDialect::kClip;
    all.push_back({options_of(OptimizerKind::kLamb), 0.3, each_slice});
    all.back().options.dialect = dialect;
  }
  all.push_back({options_of(OptimizerKind::kLamb), 0, false});
  all.back().options.dialect = LambDialect::kNvLamb;
  all.back().options.use_nvlamb = true;
  return all;
}

/// Odd shapes: fewer elements than ranks, sizes that no number of ranks divides, a matrix of several chunks,
/// slices cut by the borders of shards; one is frozen.
Parameters odd_parameters() {
  at::manual_seed(5);
  const auto random = [](std::vector<std::int64_t> sizes) { return at::randn(sizes, at::kDouble); };
  Parameters all{parameter("scalar", random({})),          parameter("one", random({1})),
                 parameter("vector", random({3})),         parameter("matrix", random({7, 5})),
                 parameter("stack", random({4, 6, 5}), 4), parameter("fused", random({33, 4}), 3),
                 parameter("spared", random({6, 3})),      parameter("large", random({130, 70}))};
  all.push_back({"frozen", random({4, 4})});
  return all;
}

/// The gradient that a rank has of a parameter in a step.
at::Tensor gradient_of(const nn::NamedParameter& p, std::int64_t place, int step, int rank) {
  at::manual_seed(static_cast<std::uint64_t>(1000 * step + 100 * place + rank + 1));
  return (at::randn(p.tensor.sizes(), at::kDouble) * 0.05).to(p.tensor.scalar_type());
}

void set_sum(const Parameters& all, int step, int ranks) {
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (!all[i].tensor.requires_grad()) continue;
    const auto place = static_cast<std::int64_t>(i);
    auto sum = gradient_of(all[i], place, step, 0);
    for (int rank = 1; rank < ranks; ++rank) sum.add_(gradient_of(all[i], place, step, rank));
    test::set_gradient(all[i], sum);
  }
}

void set_own(const Parameters& all, int step, int rank) {
  for (std::size_t i = 0; i < all.size(); ++i)
    if (all[i].tensor.requires_grad())
      test::set_gradient(all[i], gradient_of(all[i], static_cast<std::int64_t>(i), step, rank));
}

void step_plain(optim::Optimizer& optimizer, const Rule& rule, const Parameters& all, int step, int ranks) {
  set_sum(all, step, ranks);
  optimizer.step(kLr, optimizer.clipping(rule.limit, rule.each_slice));
}

void step_sharded(ShardedOptimizer& optimizer, GradientBuckets& buckets, const Rule& rule,
                  const Parameters& all, int step, int rank) {
  optimizer.zero_grad();
  buckets.arm();
  set_own(all, step, rank);
  buckets.finish();
  optimizer.step(kLr, optimizer.clipping(rule.limit, rule.each_slice));
}

/// Every rank has this tensor, to the bit.
void expect_on_all(Group& group, const at::Tensor& tensor, const std::string& name) {
  const auto all = group.all_gather(tensor.detach().contiguous());
  for (int rank = 1; rank < group.size(); ++rank) EXPECT_TRUE(at::equal(all[rank], all[0])) << name;
}

std::int64_t bytes_of(const ShardedOptimizer::State& state) {
  std::int64_t bytes = 0;
  for (const auto& [name, tensor] : state) bytes += static_cast<std::int64_t>(tensor.nbytes());
  return bytes;
}

STOA_PROCESS_TEST(ShardedOptimizer, UpdatesAsOneProcessDoes, 1, 2, 3, 5) {
  const auto world = World::join(read_place());
  auto& group = world->all();
  for (const auto& rule : rules()) {
    const auto plain = odd_parameters(), shared = odd_parameters();
    const auto one = optim::make_optimizer(plain, rule.options);
    ShardedOptimizer many(shared, rule.options, group);
    const auto buckets = many.make_buckets(rule.each_slice ? Gradients::kParts : Gradients::kWhole, 256);
    for (int step = 0; step < 10; ++step) {
      step_plain(*one, rule, plain, step, world->size());
      step_sharded(many, *buckets, rule, shared, step, world->rank());
    }
    const auto kind = std::to_string(static_cast<int>(rule.options.kind)) + "/" +
                      std::to_string(static_cast<int>(rule.options.dialect));
    for (std::size_t i = 0; i < plain.size(); ++i) {
      EXPECT_LT(distance(shared[i].tensor, plain[i].tensor), 1e-12) << kind << " " << plain[i].name;
      expect_on_all(group, shared[i].tensor, shared[i].name);
    }
    const auto slack = static_cast<std::int64_t>(2 * plain.size() * sizeof(double));
    EXPECT_LE(bytes_of(many.state()), bytes_of(one->state()) / world->size() + slack);
    const auto state = many.whole_of(many.state());
    const auto wanted = world->rank() == 0 ? one->state() : ShardedOptimizer::State();
    ASSERT_EQ(state.size(), wanted.size());
    for (const auto& [name, tensor] : wanted) {
      ASSERT_EQ(state.at(name).sizes(), tensor.sizes()) << name;
      EXPECT_LT(distance(state.at(name), tensor), 1e-12) << kind << " " << name;
    }
  }
}

STOA_PROCESS_TEST(ShardedOptimizer, UpdatesHalfPrecisionByLists, 3) {
  const auto world = World::join(read_place());
  const auto made = [] {
    at::manual_seed(6);
    return Parameters{parameter("half", at::randn({9, 7}).to(at::kBFloat16), 3),
                      parameter("tiny", at::randn({1, 2}).to(at::kHalf)),
                      parameter("float", at::randn({11, 2}))};
  };
  for (const auto& rule : rules()) {
    const auto plain = made(), shared = made();
    auto options = rule.options;
    options.exclude = {};
    const auto one = optim::make_optimizer(plain, options);
    ShardedOptimizer many(shared, options, world->all());
    const auto buckets = many.make_buckets(Gradients::kParts);
    for (int step = 0; step < 5; ++step) {
      for (const auto& set : {plain, shared})
        for (const auto& p : set) p.tensor.mutable_grad().reset();
      buckets->arm();
      if (world->rank() == 1) set_own(shared, step, 0);  // others have none, so that the sums are exact
      set_own(plain, step, 0);
      buckets->finish();
      one->step(kLr, one->clipping(rule.limit, rule.each_slice));
      many.step(kLr, many.clipping(rule.limit, rule.each_slice));
    }
    for (std::size_t i = 0; i < plain.size(); ++i) {
      const auto unit = i == 0 ? 0.008 : 1e-3;  // the last bits of bf16 and fp16
      EXPECT_LE(distance(shared[i].tensor, plain[i].tensor), i == 2 ? 1e-6 : 2 * unit) << plain[i].name;
    }
  }
}

STOA_PROCESS_TEST(ShardedOptimizer, EqualsSummingEverywhereToTheBit, 2) {
  // two numbers have one sum, and without norms there is no other
  const auto world = World::join(read_place());
  auto& group = world->all();
  for (const auto kind : {OptimizerKind::kSgd, OptimizerKind::kAdamW}) {
    const Rule rule{options_of(kind)};
    auto everywhere = odd_parameters();
    const auto shared = odd_parameters();
    everywhere.pop_back();
    const auto plain = optim::make_optimizer(everywhere, rule.options);
    GradientBuckets sums(everywhere, group);
    ShardedOptimizer many(shared, rule.options, group);
    const auto buckets = many.make_buckets(Gradients::kParts);
    for (int step = 0; step < 10; ++step) {
      sums.arm();
      set_own(everywhere, step, world->rank());
      sums.finish();
      plain->step(kLr);
      step_sharded(many, *buckets, rule, shared, step, world->rank());
    }
    for (std::size_t i = 0; i < everywhere.size(); ++i)
      EXPECT_TRUE(at::equal(shared[i].tensor, everywhere[i].tensor)) << everywhere[i].name;
  }
}

/// Parameters that 2 and 3 ranks divide.
Parameters even_parameters() {
  Parameters all;
  for (int i = 0; i < 6; ++i)
    all.push_back(parameter("p" + std::to_string(i), at::ones({12, 6}, at::kDouble)));
  return all;
}

void run_backward(const Parameters& all, GradientBuckets& buckets) {
  buckets.arm();
  auto loss = at::zeros({}, at::kDouble);
  for (const auto& p : all) loss = loss + p.tensor.square().sum();
  loss.backward();
}

STOA_PROCESS_TEST(ShardedOptimizer, SharesOutStateAndTrafficAndGradients, 2, 3) {
  const auto world = World::join(read_place());
  auto& group = world->all();
  const Rule rule{options_of(OptimizerKind::kAdamW)};
  auto options = rule.options;
  options.exclude = {};

  const auto everywhere = even_parameters();
  const auto plain = optim::make_optimizer(everywhere, options);
  const auto bytes = bytes_of(plain->state());
  GradientBuckets sums(everywhere, group, 1024);
  const auto traffic_of_step = [&](const auto& step) {
    step();  // the first also agrees on the order
    const auto before = group.traffic().bytes;
    step();
    return group.traffic().bytes - before;
  };
  const auto data_parallel = traffic_of_step([&] {
    plain->zero_grad();
    run_backward(everywhere, sums);
    sums.finish();
    plain->step(kLr);
  });

  const auto shared = even_parameters();
  ShardedOptimizer many(shared, options, group);
  const auto buckets = many.make_buckets(Gradients::kParts, 1024);
  int released = 0;
  const auto zero = traffic_of_step([&] {
    many.zero_grad();
    run_backward(shared, *buckets);
    released = 0;
    for (const auto& p : shared) released += p.tensor.grad().defined() ? 0 : 1;
    buckets->finish();
    for (const auto& p : shared) EXPECT_FALSE(p.tensor.grad().defined());
    many.step(kLr);
  });
  EXPECT_EQ(zero, data_parallel);
  EXPECT_GT(buckets->overlapped(), 0);
  EXPECT_GT(released, 0) << "before the backward pass was over";
  EXPECT_EQ(bytes_of(many.state()) - 8, (bytes - 8) / world->size());  // all but the step

  for (std::size_t i = 0; i < shared.size(); ++i)
    EXPECT_LT(distance(shared[i].tensor, everywhere[i].tensor), 1e-15);
}

void expect_to_go_on_from_one_process(World& world) {
  const Rule rule{options_of(OptimizerKind::kLamb), 0.3, true};
  const auto plain = odd_parameters();
  const auto one = optim::make_optimizer(plain, rule.options);
  for (int step = 0; step < 4; ++step) step_plain(*one, rule, plain, step, world.size());

  const auto shared = odd_parameters();
  ShardedOptimizer many(shared, rule.options, world.all());
  {
    const at::NoGradGuard no_gradients;
    for (std::size_t i = 0; i < plain.size(); ++i) shared[i].tensor.copy_(plain[i].tensor);
  }
  many.load(many.own_of(one->state(), "here"), "here");
  const auto buckets = many.make_buckets(Gradients::kWhole);
  for (int step = 4; step < 8; ++step) {
    step_plain(*one, rule, plain, step, world.size());
    step_sharded(many, *buckets, rule, shared, step, world.rank());
  }
  for (std::size_t i = 0; i < plain.size(); ++i)
    EXPECT_LT(distance(shared[i].tensor, plain[i].tensor), 1e-12) << plain[i].name;

  auto misshapen = one->state();
  misshapen["matrix.exp_avg"] = at::zeros({5, 7}, at::kDouble);
  auto message = test::thrown<DataError>([&] { many.load(many.own_of(misshapen, "here"), "here"); });
  STOA_EXPECT_CONTAINS(message, "here: tensor `matrix.exp_avg` has shape [5, 7], [7, 5] is needed");
  misshapen.erase("matrix.exp_avg");
  message = test::thrown<DataError>([&] { many.load(many.own_of(misshapen, "here"), "here"); });
  STOA_EXPECT_CONTAINS(message, "`matrix.exp_avg` is missing");
}

void expect_to_find_what_is_not_finite(World& world) {
  const auto all = odd_parameters();
  ShardedOptimizer many(all, options_of(OptimizerKind::kAdamW), world.all());
  const auto buckets = many.make_buckets(Gradients::kParts);
  for (const bool bad : {false, true}) {
    many.zero_grad();
    buckets->arm();
    set_own(all, 0, world.rank());
    if (bad && world.rank() == 1)
      all[3].tensor.mutable_grad().select(0, 6).fill_(std::numeric_limits<double>::infinity());
    buckets->finish();
    EXPECT_EQ(std::isfinite(many.clipping(1, false).norm), !bad);
    EXPECT_EQ(many.first_not_finite(), bad ? 3 : -1);
  }
}

void expect_autograd_to_be_told(World& world) {
  const auto all = odd_parameters();
  ShardedOptimizer many(all, options_of(OptimizerKind::kSgd), world.all());
  const auto before = all[1].tensor._version();
  many.step(kLr);
  EXPECT_GT(all[1].tensor._version(), before);
}

void expect_transposed_to_be_refused(World& world) {
  const Parameters all{{"strided", at::randn({6, 5}).t().requires_grad_()}};
  const auto message =
      test::thrown<ShapeError>([&] { ShardedOptimizer(all, options_of(OptimizerKind::kSgd), world.all()); });
  STOA_EXPECT_CONTAINS(message, "`strided` of shape [5, 6]");
  STOA_EXPECT_CONTAINS(message, "parallel.zero");
}

STOA_PROCESS_TEST(ShardedOptimizer, LoadsFindsFaultsTellsAndRefuses, 3) {
  const auto world = World::join(read_place());
  expect_to_go_on_from_one_process(*world);
  expect_to_find_what_is_not_finite(*world);
  expect_autograd_to_be_told(*world);
  expect_transposed_to_be_refused(*world);
}

/// Parameters, and four experts, of which a rank has those from `first` on.
Parameters with_experts(std::int64_t first, std::int64_t count) {
  auto all = odd_parameters();
  const auto experts = at::randn({4, 3, 5}, at::kDouble);
  all.push_back(parameter("experts", experts.narrow(0, first, count), count));
  return all;
}

/// Blocks of two ranks, each with half of the experts.
struct Blocks {
  explicit Blocks(World& world) : mesh(world, options()), first(2 * mesh.expert().rank()) {}
  static ParallelOptions options() {
    ParallelOptions options;
    options.expert = 2;
    return options;
  }
  ShardGroups groups() const {
    return {mesh.data_sequence(), mesh.expert_data(),
            [](const std::string& name) { return name.starts_with("experts"); }};
  }
  /// The last two squares are of experts.
  double joint_square(const std::vector<double>& squares) const {
    const auto shared = std::accumulate(squares.begin(), squares.end() - 2, 0.0);
    const auto own = at::full({1}, squares.end()[-1] + squares.end()[-2], at::kDouble);
    mesh.expert().all_reduce(own);
    return shared + own.item<double>();
  }
  /// Of a state of all experts that of this rank's.
  State own(const State& whole) const {
    State own;
    for (const auto& [name, tensor] : whole)
      own[name] = name.starts_with("experts") ? tensor.narrow(0, first, 2) : tensor;
    return own;
  }
  /// Gradients of a step: here this rank's own, there the sums of all that have a parameter.
  void set(const Parameters& here, const Parameters& there, int step) const {
    set_own(here, step, mesh.data().rank());
    set_sum(there, step, mesh.data().size());
    const auto place = std::ssize(there) - 1;
    const auto& experts = there.back();
    const auto sum = at::zeros_like(experts.tensor).detach();
    for (int rank = 0; rank < mesh.data().size(); ++rank) {
      const auto held = gradient_of(experts, place, step, rank).narrow(0, 2 * (rank % 2), 2);
      sum.narrow(0, 2 * (rank % 2), 2).add_(held);
      if (rank == mesh.data().rank()) test::set_gradient(here.back(), held.clone());
    }
    test::set_gradient(experts, sum);
  }
  Mesh mesh;
  std::int64_t first;
};

void expect_close(const State& found, const State& wanted, const std::string& what) {
  ASSERT_EQ(found.size(), wanted.size()) << what;
  for (const auto& [name, tensor] : wanted) {
    ASSERT_EQ(found.at(name).sizes(), tensor.sizes()) << what << name;
    if (tensor.numel() == 0) continue;
    EXPECT_LT(distance(found.at(name), tensor), 1e-12) << what << name;
  }
}

STOA_PROCESS_TEST(ShardedOptimizer, SharesOutExpertsAmongThoseThatHoldThem, 2, 4) {
  const auto world = World::join(read_place());
  const Blocks blocks(*world);
  for (const auto& rule : rules()) {
    const auto plain = with_experts(0, 4), shared = with_experts(blocks.first, 2);
    const auto one = optim::make_optimizer(plain, rule.options);
    ShardedOptimizer many(shared, rule.options, blocks.groups(), {}, nullptr,
                          [&](const auto& squares) { return blocks.joint_square(squares); });
    const auto keep = rule.each_slice ? Gradients::kParts : Gradients::kWhole;
    const auto buckets = many.make_buckets(keep), of_experts = many.make_expert_buckets(keep);
    EXPECT_EQ(of_experts == nullptr, world->size() == 2);  // who has experts alone
    for (int step = 0; step < 5; ++step) {
      many.zero_grad();
      for (auto* const sums : {buckets.get(), of_experts.get()})
        if (sums != nullptr) sums->arm();
      blocks.set(shared, plain, step);
      for (auto* const sums : {buckets.get(), of_experts.get()})
        if (sums != nullptr) sums->finish();
      const auto scale = one->clipping(rule.limit, rule.each_slice),
                 shared_scale = many.clipping(rule.limit, rule.each_slice);
      EXPECT_NEAR(shared_scale.norm, scale.norm, 1e-12);
      EXPECT_NEAR(shared_scale.scaled_norm, scale.scaled_norm, 1e-12);
      one->step(kLr, scale);
      many.step(kLr, shared_scale);
    }
    const auto kind = std::to_string(static_cast<int>(rule.options.kind)) + "/" +
                      std::to_string(static_cast<int>(rule.options.dialect)) + " ";
    State weights, wanted;
    for (std::size_t i = 0; i < plain.size(); ++i) {
      weights[shared[i].name] = shared[i].tensor.detach();
      wanted[plain[i].name] = plain[i].tensor.detach();
    }
    expect_close(weights, blocks.own(wanted), kind);
    auto state = blocks.own(one->state());  // rank 0 has all, the other of its block its experts
    const auto own = many.state();
    if (world->rank() == 1)
      std::erase_if(state, [](const auto& item) { return !item.first.starts_with("experts"); });
    if (world->rank() > 1) state.clear();
    expect_close(many.whole_of(many.state()), state, kind);
    ShardedOptimizer again(shared, rule.options, blocks.groups());
    again.load(again.own_of(blocks.own(one->state()), "here"), "here");
    expect_close(again.state(), own, kind);
  }
}

TEST(Shards, DealAndCollectOddSizes) {
  for (const int ranks : {1, 2, 3, 5, 8}) {
    std::vector<at::Tensor> tensors, back;
    for (const auto& sizes : std::vector<std::vector<std::int64_t>>{{}, {3}, {0}, {4, 5}, {16}, {7, 3}}) {
      tensors.push_back(at::randn(sizes));
      back.push_back(at::zeros(sizes));
    }
    const auto rows = deal(tensors, ranks);
    collect(rows, back);
    std::vector<std::int64_t> elements;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      EXPECT_TRUE(at::equal(tensors[i], back[i])) << ranks << " ranks, tensor " << i;
      elements.push_back(tensors[i].numel());
    }
    for (int rank = 0; rank < ranks; ++rank) {
      std::vector<at::Tensor> shards;
      for (const auto& tensor : tensors) shards.push_back(shard_of(tensor, rank, ranks));
      EXPECT_TRUE(at::equal(dealt_row(shards, elements, ranks), rows[rank])) << rank << " of " << ranks;
    }
  }
}

}  // namespace
}  // namespace stoa::dist
