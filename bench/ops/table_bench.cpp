// Embedding tables: the loops over rows beside the plain ones, and whole steps of tables with a long tail in
// the modes of absent rows. 33,762,577 rows are Criteo's; they take 4.6 GB. bytes/s counts what rows have to
// move.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "stoa/base/format.h"
#include "stoa/base/random.h"
#include "stoa/nn/embedding_tables.h"
#include "stoa/ops/table_rows_kernels.h"

namespace {

using namespace stoa;

constexpr std::int64_t kCriteoRows = 33'762'577, kFields = 26;

nn::EmbeddingOptions options_for(nn::AbsentRows absent) {
  nn::EmbeddingOptions options;
  options.absent = absent;
  return options;
}

/// Vocabularies that fall off by half from one field to the next, as Criteo's roughly do.
std::vector<std::int64_t> field_sizes(std::int64_t rows) {
  std::vector<std::int64_t> sizes;
  auto left = rows;
  for (std::int64_t field = 0; field < kFields; ++field) {
    const auto size = field + 1 == kFields ? left : std::max<std::int64_t>(1, left * 3 / 10);
    sizes.push_back(size);
    left -= field + 1 == kFields ? 0 : size;
  }
  return sizes;
}

/// Ids whose k-th most frequent has a probability about 1 / (k + 10), in no order of memory.
at::Tensor tail_ids(std::int64_t batch, const std::vector<std::int64_t>& sizes, std::uint64_t seed) {
  const auto ids = at::empty({batch, kFields}, at::kInt);
  auto* const to = ids.mutable_data_ptr<std::int32_t>();
  RandomStream random(seed);
  for (std::int64_t i = 0; i < batch * kFields; ++i) {
    const auto size = sizes[static_cast<std::size_t>(i % kFields)];
    const double reach = std::log((static_cast<double>(size) + 10) / 10);
    const auto rank =
        std::min(size - 1, static_cast<std::int64_t>(10 * (std::exp(reach * random.uniform()) - 1)));
    to[i] = static_cast<std::int32_t>(rank * 2'654'435'761 % size);
  }
  return ids;
}

/// One training step without the network: lookup, backward, update. Returns how many rows it touched.
double step(nn::EmbeddingTables& tables, const at::Tensor& ids, const at::Tensor& slopes) {
  tables.zero_grad();
  const auto rows = tables.lookup(ids);
  rows.embeddings.backward(slopes);
  return tables.step().at(1).second;
}

/// How many steps are measured, and how many are made before, after which rows that come back have missed
/// some.
struct Steps {
  std::int64_t before, measured;
};
Steps steps_of(std::int64_t batch) {
  if (batch <= 1024) return {1000, 50};
  return batch <= 8192 ? Steps{200, 20} : Steps{10, 5};
}

void whole_step(benchmark::State& state, nn::AbsentRows absent, std::int64_t rows, std::int64_t batch) {
  const auto sizes = field_sizes(rows);
  nn::EmbeddingTables tables(sizes, options_for(absent), 1);
  const auto slopes = at::randn({batch, kFields, 10}).mul_(0.3 / static_cast<double>(batch));
  const auto [before, measured] = steps_of(batch);
  std::uint64_t next = 0;
  for (; absent != nn::AbsentRows::kDense && next < static_cast<std::uint64_t>(before); ++next)
    step(tables, tail_ids(batch, sizes, next), slopes);
  std::vector<at::Tensor> batches;
  for (std::int64_t k = 0; k < measured; ++k) batches.push_back(tail_ids(batch, sizes, 10'000 + next++));
  double ids = 0;
  std::size_t k = 0;
  for (auto _ : state) ids += step(tables, batches[k++], slopes);
  state.counters["ids"] = ids / static_cast<double>(measured);
}

/// A table outside the cache, and rows of it here and there.
struct Table {
  explicit Table(std::int64_t count) : tables({count}, options_for(nn::AbsentRows::kLazy), 1) {
    rule.pull = 2e-5f;
    rates.assign(2, 1e-4f);
    rule.rates = rates.data();
    rule.last_rate = 1;
    rule.fine = rates.data();
    first = tables.state().at("tables.rows.0").mutable_data_ptr<float>();
    // a prime step: rows here and there, none of them twice
    for (std::int64_t i = 0; i < kTouched; ++i)
      places.push_back(first + i * 2'654'435'761 % count * rule.format.stride());
    gradients = at::randn({kTouched, rule.format.width()}).mul_(1e-4);
    counts.assign(kTouched, 1);
    norms.resize(kTouched);
  }
  static constexpr std::int64_t kTouched = 1 << 18;

  nn::EmbeddingTables tables;
  ops::RowRule rule;
  std::vector<float> rates, norms;
  float* first;
  std::vector<float*> places;
  at::Tensor gradients;
  std::vector<std::int32_t> counts;
};

const ops::TableRowKernels& loops(bool fast) {
  return fast ? ops::table_row_kernels() : ops::table_row_kernels_reference();
}

/// L2, clip and Adam of random rows.
void update(benchmark::State& state, bool fast) {
  Table table(8'000'000);
  const float* const gradients = table.gradients.const_data_ptr<float>();
  for (auto _ : state)
    at::parallel_for(0, Table::kTouched, 4096, [&](std::int64_t begin, std::int64_t end) {
      loops(fast).update(table.places.data() + begin, gradients + begin * table.rule.format.width(),
                         table.counts.data() + begin, end - begin, 1, table.rule, {1, 3e-5f, 1},
                         table.norms.data() + begin);
    });
  state.counters["rows/s"] =
      benchmark::Counter(Table::kTouched, benchmark::Counter::kIsIterationInvariantRate);
}

/// One step of every row.
void pass(benchmark::State& state, bool fast) {
  constexpr std::int64_t kRows = 8'000'000;
  Table table(kRows);
  std::int64_t now = 0;
  for (auto _ : state) {
    ++now;
    at::parallel_for(0, kRows, 4096, [&](std::int64_t begin, std::int64_t end) {
      loops(fast).advance_range(table.first + begin * table.rule.format.stride(), end - begin, now,
                                table.rule);
    });
  }
  state.counters["bytes/s"] =
      benchmark::Counter(2.0 * 4 * static_cast<double>(kRows * table.rule.format.stride()),
                         benchmark::Counter::kIsIterationInvariantRate);
}

benchmark::internal::Benchmark* run_as(const std::string& name,
                                       const std::function<void(benchmark::State&)>& f) {
  return benchmark::RegisterBenchmark(name.c_str(), f)->Unit(benchmark::kMillisecond)->UseRealTime();
}

const bool registered = [] {
  for (const bool fast : {true, false}) {
    run_as(format("update/{}", fast ? "fast" : "plain"),
           [fast](benchmark::State& state) { update(state, fast); });
    run_as(format("pass/{}", fast ? "fast" : "plain"),
           [fast](benchmark::State& state) { pass(state, fast); });
  }
  for (const auto rows : {std::int64_t{1'000'000}, kCriteoRows})
    for (const std::int64_t batch : {1024, 8192, 131072})
      for (const auto& [name, absent] : {std::pair{"dense", nn::AbsentRows::kDense},
                                         {"strided", nn::AbsentRows::kStrided},
                                         {"replay", nn::AbsentRows::kReplay},
                                         {"lazy", nn::AbsentRows::kLazy}})
        run_as(format("step/{}_rows/{}/{}", rows, batch, name), [rows, batch,
                                                                 absent = absent](benchmark::State& state) {
          whole_step(state, absent, rows, batch);
        })->Iterations(steps_of(batch).measured);
  return true;
}();

}  // namespace
