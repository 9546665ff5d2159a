// Embedding tables whose rows are split over processes are those of one process.
#include "stoa/dist/table_exchange.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "nn/embedding_problem.h"
#include "stoa/base/errors.h"
#include "stoa/dist/world.h"
#include "support/processes.h"
#include "support/tensor_meter.h"
#include "support/thrown.h"

namespace stoa::nn {
namespace {

/// The one row of field 2 is with one process.
const std::vector<std::int64_t> kFields = {7, 400, 1, 31};
constexpr std::int64_t kBatch = 16;

std::shared_ptr<dist::World> join_world() {
  return dist::World::join(dist::read_place());
}

std::shared_ptr<dist::TableExchange> exchange_of(dist::World& world) {
  return std::make_shared<dist::TableExchange>(world.all_shared());
}

/// Ids [kBatch, fields] and gradients of a step's batch.
struct Problem {
  explicit Problem(int step) {
    at::manual_seed(static_cast<std::uint64_t>(step));
    std::vector<at::Tensor> columns;
    for (const auto size : kFields)
      columns.push_back((at::rand({kBatch}).pow(3) * static_cast<double>(size)).floor().to(at::kLong));
    ids = at::stack(columns, 1);
    slopes = at::randn({kBatch, std::ssize(kFields), 10}) * 0.01;
    linear_slopes = at::randn({kBatch, std::ssize(kFields)}) * 0.01;
  }
  void backward(EmbeddingTables& tables, std::int64_t begin, std::int64_t end) const {
    const auto rows = tables.lookup(ids.slice(0, begin, end));
    ((rows.embeddings * slopes.slice(0, begin, end)).sum() +
     (rows.linear * linear_slopes.slice(0, begin, end)).sum())
        .backward();
  }
  at::Tensor ids, slopes, linear_slopes;
};

/// What a process has of a step's batch: every third step nothing at all for rank 1.
std::pair<std::int64_t, std::int64_t> part_of(int step, std::int64_t rank, std::int64_t world) {
  if (step % 3 == 0) {
    const auto others = world - 1, place = rank == 0 ? 0 : rank - 1;
    if (rank == 1) return {kBatch / others, kBatch / others};
    return {kBatch * place / others, kBatch * (place + 1) / others};
  }
  return {kBatch * rank / world, kBatch * (rank + 1) / world};
}

/// Gathers the gradients of this process's part, in micro-batches of three samples.
void learn(EmbeddingTables& tables, int step, std::int64_t rank, std::int64_t world) {
  constexpr std::int64_t kPiece = 3, kMost = (kBatch + kPiece - 1) / kPiece;
  const Problem problem(step);
  const auto [begin, end] = part_of(step, rank, world);
  tables.zero_grad();
  {
    const at::AutoGradMode learns(end > begin);  // what has nothing to learn from is only read
    for (auto i = (end - begin + kPiece - 1) / kPiece; i < kMost; ++i) tables.look_up_nothing();
  }
  for (auto i = begin; i < end; i += kPiece) problem.backward(tables, i, std::min(i + kPiece, end));
}

double relative(const at::Tensor& a, const at::Tensor& b) {
  return ((a - b).abs().max() / b.abs().max().clamp_min(1e-12)).item<double>();
}

/// Weights, both moments and the step each row has been brought up to, of every field.
void expect_same(const std::map<std::string, at::Tensor>& found,
                 const std::map<std::string, at::Tensor>& expected, const std::string& what) {
  ASSERT_EQ(found.size(), expected.size()) << what;
  for (const auto& [name, tensor] : expected) {
    const auto& other = found.at(name);
    ASSERT_EQ(other.sizes(), tensor.sizes()) << what << ", " << name;
    if (!name.starts_with("tables.rows.")) {
      EXPECT_TRUE(at::equal(other, tensor)) << what << ", " << name;
      continue;
    }
    for (int part = 0; part < 3; ++part)
      EXPECT_LT(relative(other.narrow(1, 11 * part, 11), tensor.narrow(1, 11 * part, 11)), 1e-6)
          << what << ", " << name << ", part " << part;
    EXPECT_TRUE(at::equal(other.select(1, 33).contiguous().view(at::kInt),
                          tensor.select(1, 33).contiguous().view(at::kInt)))
        << what << ", " << name;
  }
}

void expect_equal(const std::map<std::string, at::Tensor>& found,
                  const std::map<std::string, at::Tensor>& expected, const std::string& what) {
  ASSERT_EQ(found.size(), expected.size()) << what;
  for (const auto& [name, tensor] : expected)
    EXPECT_TRUE(at::equal(found.at(name), tensor)) << what << ", " << name;
}

/// Tables of all rows, and tables that share them out, in every process.
struct Pair {
  Pair(dist::World& world, const EmbeddingOptions& options)
      : whole(kFields, options, 5), split(kFields, options, 5) {
    split.split(exchange_of(world));
  }
  EmbeddingTables whole, split;
};

void expect_same_training(dist::World& world, const EmbeddingOptions& options, int steps,
                          const std::string& what) {
  Pair tables(world, options);
  for (int t = 0; t < steps; ++t) {
    tables.whole.zero_grad();
    Problem(t).backward(tables.whole, 0, kBatch);
    learn(tables.split, t, world.rank(), world.size());
    const double expected = tables.whole.squared_gradient();
    EXPECT_NEAR(tables.split.squared_gradient(), expected, 1e-5 * expected) << what << ", step " << t;
    const auto numbers = tables.split.step(), expected_numbers = tables.whole.step();
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      EXPECT_EQ(numbers[i].first, expected_numbers[i].first);
      EXPECT_NEAR(numbers[i].second, expected_numbers[i].second, 1e-6 * std::abs(expected_numbers[i].second))
          << what << ", step " << t << ", " << numbers[i].first;
    }
    EXPECT_EQ(tables.split.gradient_norms().rows, tables.whole.gradient_norms().rows) << what;
  }
  const auto found = tables.split.state();
  if (world.rank() == 0)
    expect_same(found, tables.whole.state(), what);
  else
    EXPECT_TRUE(found.empty()) << what;
  const double penalty = tables.whole.penalty();
  EXPECT_NEAR(tables.split.penalty(), penalty, 1e-6 * penalty) << what;
}

STOA_PROCESS_TEST(TableExchange, TrainsAsOneProcessDoes, 2, 3) {
  const auto world = join_world();
  const std::vector<std::pair<std::string, AbsentRows>> modes = {{"dense", AbsentRows::kDense},
                                                                 {"replay", AbsentRows::kReplay},
                                                                 {"strided", AbsentRows::kStrided},
                                                                 {"lazy", AbsentRows::kLazy}};
  for (const auto& [name, absent] : modes)  // strides begin after 24 missed steps
    expect_same_training(*world, small(absent), absent == AbsentRows::kStrided ? 50 : 20, name);
  const std::vector<std::pair<std::string, RowClip>> clips = {{"global", RowClip::kGlobal},
                                                              {"field", RowClip::kField},
                                                              {"id_const", RowClip::kIdConst},
                                                              {"field_adaptive", RowClip::kFieldAdaptive}};
  for (const auto& [name, clip] : clips) {
    auto options = small();
    options.clip = clip;
    options.clip_floor = clip == RowClip::kFieldAdaptive ? 1e-5 : 1e-2;
    expect_same_training(*world, options, 8, name);
  }
}

STOA_PROCESS_TEST(TableExchange, HoldsWhatOneProcessHolds, 3) {
  const auto world = join_world();
  const bool first = world->rank() == 0;
  Pair tables(*world, small());
  const auto drawn = tables.split.state();
  if (first) expect_equal(drawn, tables.whole.state(), "drawn");
  const at::NoGradGuard no_gradients;
  for (int t = 0; t < 2; ++t) {  // what is stored, read and measured, in each step alike
    const auto ids = Problem(40 + t).ids.narrow(0, 0, world->rank() == 1 ? 0 : kBatch - world->rank());
    const auto found = tables.split.lookup(ids), expected = tables.whole.lookup(ids);
    EXPECT_TRUE(at::equal(found.embeddings, expected.embeddings)) << t;
    EXPECT_TRUE(at::equal(found.linear, expected.linear)) << t;
    for (std::int64_t field = 0; field < std::ssize(kFields); ++field)
      EXPECT_EQ(tables.split.weight_norms(field).rows, tables.whole.weight_norms(field).rows) << field;
    for (int i = 0; i < 30; ++i) {
      const at::AutoGradMode gradients(true);
      Problem(i).backward(tables.whole, 0, kBatch);
      tables.whole.step();
    }
    tables.split.load(copy_of(tables.whole.state()), "a checkpoint");
    EXPECT_EQ(tables.split.steps(), tables.whole.steps());
    const auto loaded = tables.split.state();
    if (first) expect_equal(loaded, tables.whole.state(), "loaded");
  }
  // a warm start from fewer rows, and what is set
  EmbeddingTables yesterday({7, 300, 1, 2}, small(), 9), whole(kFields, small(), 5),
      split(kFields, small(), 5);
  split.split(exchange_of(*world));
  for (auto* started : {&whole, &split}) {
    started->start_from(copy_of(yesterday.state()), "yesterday");
    started->set_weights(1, at::arange(4000).view({400, 10}).to(at::kFloat), at::arange(400).to(at::kFloat));
  }
  const auto started = split.state();
  if (first) expect_equal(started, whole.state(), "started");
}

STOA_PROCESS_TEST(TableExchange, ComesToProcessZeroPieceByPieceToBeSaved, 2, 3) {
  const auto world = join_world();
  auto options = small();
  options.dim = 1;
  const std::vector<std::int64_t> sizes = {500'000, 5, 1};
  EmbeddingTables whole(sizes, options, 5), split(sizes, options, 5);
  split.split(exchange_of(*world));
  whole.draw();
  split.draw();
  const auto state = whole.state();
  std::map<std::string, std::int64_t> rows;  // that have come
  auto& meter = test::TensorMeter::get();
  meter.start();
  const auto stored = split.streamed_state();
  ASSERT_EQ(stored.size(), state.size());
  for (const auto& [name, source] : stored) {
    const auto& wanted = state.at(name);
    EXPECT_EQ(wanted.sizes(), at::IntArrayRef(source.sizes)) << name;
    if (source.tensor.defined()) {
      EXPECT_TRUE(at::equal(source.tensor, wanted)) << name;
      continue;
    }
    auto& done = rows[name];
    source.bring([&, &table = wanted](const at::Tensor& piece) {
      EXPECT_EQ(world->rank(), 0);
      // as bits: the last column is a whole number
      const auto part = table.narrow(0, done, piece.size(0));
      EXPECT_EQ(std::memcmp(piece.const_data_ptr(), part.const_data_ptr(), piece.nbytes()), 0) << done;
      done += piece.size(0);
    });
  }
  constexpr std::int64_t kPiece = 65'536, kRow = 7 * 4;
  // as they came and in order, and what the threads that carry messages have not given back yet: of 8 pieces
  EXPECT_LT(meter.peak(), 5 * kPiece * kRow);
  for (std::size_t field = 0; field < sizes.size(); ++field)
    EXPECT_EQ(rows.at("tables.rows." + std::to_string(field)), world->rank() == 0 ? sizes[field] : 0);
}

STOA_PROCESS_TEST(TableExchange, SendsEachDistinctRowOnce, 3) {
  const auto world = join_world();
  Pair tables(*world, small());
  tables.split.draw();
  constexpr int kStep = 1;
  const std::int64_t fields = std::ssize(kFields), size = world->size(), width = 11;
  const Problem problem(kStep);
  /// Distinct rows of the part of process `rank` that lie with process `owner`
  const auto rows_of = [&](std::int64_t rank, std::int64_t owner) {
    const auto [begin, end] = part_of(kStep, rank, size);
    std::set<std::pair<std::int64_t, std::int64_t>> rows;
    for (auto i = begin; i < end; ++i)
      for (std::int64_t field = 0; field < fields; ++field)
        if (const auto id = problem.ids[i][field].item<std::int64_t>(); (id + field) % size == owner)
          rows.emplace(field, id);
    return std::ssize(rows);
  };
  std::int64_t asked = 0, answered = 0;
  for (std::int64_t other = 0; other < size; ++other) {
    if (other == world->rank()) continue;
    asked += rows_of(world->rank(), other);
    answered += rows_of(other, world->rank());
  }
  const auto [begin, end] = part_of(kStep, world->rank(), size);
  const auto sent = [&] { return world->all().traffic().bytes; };
  auto before = sent();
  problem.backward(tables.split, begin, end);
  EXPECT_EQ(sent() - before, 4 * (fields + 1) * (size - 1) + 4 * asked + 4 * width * answered);
  before = sent();
  tables.split.squared_gradient();
  EXPECT_EQ(sent() - before, 4 * fields * (size - 1) + (8 + 4 * width) * asked + 2 * (size - 1) * 8 / size);
  before = sent();
  tables.split.step();
  EXPECT_EQ(sent() - before,
            2 * (size - 1) * 8 * (3 + std::ssize(tables.split.gradient_norms().rows)) / size);
  // a process keeps about an Nth of the rows
  const auto most = (std::int64_t{7 + 400 + 1 + 31} + size - 1) / size + fields;
  before = sent();
  tables.split.state();
  EXPECT_LE(sent() - before, most * 34 * 4);
}

STOA_PROCESS_TEST(TableExchange, ComesTogetherInProcessZero, 2) {
  const auto world = join_world();
  Pair tables(*world, small());
  const auto refused = test::thrown<Error>([&] { tables.split.serve(ServedType::kFloat); });
  STOA_EXPECT_CONTAINS(refused, "split over 2 processes cannot be exported");
  STOA_EXPECT_CONTAINS(test::thrown<Error>([&] { tables.split.grow(kFields); }), "cannot be made larger");
  STOA_EXPECT_CONTAINS(
      test::thrown<Error>([&] { tables.whole.draw(), tables.whole.split(exchange_of(*world)); }),
      "before their weights are drawn");
  for (auto* trained : {&tables.whole, &tables.split})
    for (int i = 0; i < 3; ++i) {
      Problem(i).backward(*trained, 0, kBatch);
      trained->step();
    }
  tables.split.join();
  EXPECT_FALSE(tables.split.is_split());
  if (world->rank() != 0) {
    STOA_EXPECT_CONTAINS(test::thrown<Error>([&] { tables.split.lookup(Problem(0).ids); }),
                         "have gone to process 0");
    return;
  }
  const at::NoGradGuard no_gradients;  // the other process answers no more
  const auto found = tables.split.lookup(Problem(0).ids);
  EXPECT_TRUE(at::equal(found.embeddings.select(1, 1),
                        tables.split.embeddings(1).index_select(0, Problem(0).ids.select(1, 1))));
  EXPECT_EQ(tables.split.state().at("tables.rows.1").size(0), 400);
  EXPECT_EQ(tables.split.steps(), 3);
}

}  // namespace
}  // namespace stoa::nn
