// Embedding tables whose rows are split over processes: who has which, and how rows and gradients travel.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/nn/embedding_state.h"

namespace stoa::nn {

namespace {

using Counts = RowExchange::Counts;

/// Rows that are worth a thread, and how many of a table travel at once.
constexpr std::int64_t kGrain = 256, kPiece = std::int64_t{1} << 16;

std::size_t index(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

/// Rows of a batch put in order by owner, then field, then id.
struct Routes {
  at::Tensor order;   ///< [rows] int64: which row comes first, second ...
  at::Tensor counts;  ///< [owners, fields] int32
  Counts of_owner;    ///< [owners]
};

Counts sums_of_rows(const at::Tensor& counts) {
  const auto sums = counts.sum(1).to(at::kLong).contiguous();
  const auto* const begin = sums.const_data_ptr<std::int64_t>();
  return {begin, begin + sums.numel()};
}

Routes route(const std::vector<std::int64_t>& first, const std::vector<std::int64_t>& ids,
             const RowSplit& split) {
  const auto fields = std::ssize(first) - 1;
  Routes routes;
  routes.counts = at::zeros({split.size, fields}, at::kInt);
  auto* const counts = routes.counts.mutable_data_ptr<std::int32_t>();
  for (std::int64_t field = 0; field < fields; ++field)
    for (auto i = first[index(field)]; i < first[index(field + 1)]; ++i)
      ++counts[split.owner(field, ids[index(i)]) * fields + field];
  std::vector<std::int64_t> next(index(split.size * fields));
  std::exclusive_scan(counts, counts + next.size(), next.begin(), std::int64_t{0});
  routes.order = at::empty({std::ssize(ids)}, at::kLong);
  auto* const order = routes.order.mutable_data_ptr<std::int64_t>();
  for (std::int64_t field = 0; field < fields; ++field)
    for (auto i = first[index(field)]; i < first[index(field + 1)]; ++i)
      order[next[index(split.owner(field, ids[index(i)]) * fields + field)]++] = i;
  routes.of_owner = sums_of_rows(routes.counts);
  return routes;
}

/// One row of a header [processes, n] for each process.
at::Tensor exchange_headers(RowExchange& exchange, const at::Tensor& headers) {
  const Counts one(index(exchange.size()), 1);
  return exchange.exchange(headers, one, one);
}

/// Ids in the order of their routes, as they travel: int32 [rows].
at::Tensor routed_ids(const std::vector<std::int64_t>& ids, const Routes& routes) {
  const auto travelling = at::empty({std::ssize(ids)}, at::kInt);
  auto* const to = travelling.mutable_data_ptr<std::int32_t>();
  const auto* const order = routes.order.const_data_ptr<std::int64_t>();
  for (std::size_t i = 0; i < ids.size(); ++i) to[i] = static_cast<std::int32_t>(ids[index(order[i])]);
  return travelling;
}

}  // namespace

at::Tensor EmbeddingTables::State::fetch_rows(const std::vector<std::int64_t>& first,
                                              const std::vector<std::int64_t>& ids, bool learn) {
  const auto width = rule.format.width();
  const auto routes = route(first, ids, split);
  const auto mode = at::full({split.size, 1}, learn ? 1 : 0, at::kInt);
  const auto asked = exchange_headers(*exchange, at::cat({routes.counts, mode}, 1));
  const auto asked_counts = asked.narrow(1, 0, fields()).contiguous();
  const auto from_process = sums_of_rows(asked_counts);
  const auto asked_ids = exchange->exchange(routed_ids(ids, routes), routes.of_owner, from_process);

  const auto answers = at::empty({asked_ids.numel(), width}, at::kFloat);
  const auto* counts = asked_counts.const_data_ptr<std::int32_t>();
  const auto* id = asked_ids.const_data_ptr<std::int32_t>();
  float* to = answers.mutable_data_ptr<float>();
  // one process after the other: two may ask for the same row, which is then brought up once
  for (std::int64_t process = 0; process < split.size; ++process) {
    const bool bring_up = asked[process][fields()].item<int>() != 0;
    looked_up = looked_up || bring_up;
    std::vector<float*> places;
    places.reserve(index(from_process[index(process)]));
    for (std::int64_t field = 0; field < fields(); ++field)
      for (auto n = *counts++; n > 0; --n) places.push_back(row(field, split.place(*id++)));
    at::parallel_for(0, std::ssize(places), kGrain, [&](std::int64_t begin, std::int64_t end) {
      copy_rows(places.data() + begin, end - begin, bring_up, to + begin * width);
    });
    to += std::ssize(places) * width;
  }
  const auto answered = exchange->exchange(answers, from_process, routes.of_owner);
  return at::empty_like(answered).index_copy_(0, routes.order, answered);
}

TouchedRows EmbeddingTables::State::send_gradients(const TouchedRows& rows) const {
  const auto routes = route(rows.first, rows.ids, split);
  const auto counts = exchange_headers(*exchange, routes.counts);
  const auto from_process = sums_of_rows(counts);
  const auto occurrences = at::empty({std::ssize(rows.counts)}, at::kInt);
  std::ranges::copy(rows.counts, occurrences.mutable_data_ptr<std::int32_t>());
  const auto marks = exchange->exchange(
      at::stack({routed_ids(rows.ids, routes), occurrences.index_select(0, routes.order)}, 1),
      routes.of_owner, from_process);
  const auto gradients =
      exchange->exchange(rows.gradients.index_select(0, routes.order), routes.of_owner, from_process);
  std::vector<TouchedRows> parts;
  const auto* count = counts.const_data_ptr<std::int32_t>();
  const auto* mark = marks.const_data_ptr<std::int32_t>();
  std::int64_t begin = 0;
  for (const auto n : from_process) {
    auto& part = parts.emplace_back();
    part.first.push_back(0);
    for (std::int64_t field = 0; field < fields(); ++field)
      part.first.push_back(part.first.back() + *count++);
    for (std::int64_t i = 0; i < n; ++i, mark += 2) {
      part.ids.push_back(split.place(mark[0]));
      part.counts.push_back(mark[1]);
    }
    part.gradients = gradients.narrow(0, begin, n);
    begin += n;
  }
  return merged(std::move(parts));
}

void EmbeddingTables::State::sum_over_processes(std::vector<double>& numbers) const {
  if (exchange) exchange->sum(at::from_blob(numbers.data(), {std::ssize(numbers)}, at::kDouble));
}

at::Tensor EmbeddingTables::State::own_rows(std::int64_t field, const at::Tensor& whole) const {
  return whole.slice(0, split.first(field, split.rank), whole.size(0), split.size);
}

void EmbeddingTables::State::gather(std::int64_t field, const TakeRows& take) const {
  const bool here = split.rank == 0;
  const auto rows = size(field), longest = (rows + split.size - 1) / split.size;
  const auto piece = std::max<std::int64_t>(1, kPiece / split.size);  // of each process
  const auto& own = tables[index(field)];
  for (std::int64_t begin = 0; begin < longest; begin += piece) {
    const auto part = [&](std::int64_t process) {
      return std::clamp<std::int64_t>(split.held(field, rows, process) - begin, 0, piece);
    };
    Counts send(index(split.size), 0), receive(index(split.size), 0);
    send[0] = part(split.rank);
    for (std::int64_t process = 0; here && process < split.size; ++process)
      receive[index(process)] = part(process);
    const auto came = exchange->exchange(own.narrow(0, std::min(begin, own.size(0)), send[0]), send, receive);
    if (!here) continue;
    const auto first = begin * split.size;
    const auto in_order = at::empty_like(came);
    std::int64_t done = 0;
    for (std::int64_t process = 0; process < split.size; ++process) {
      const auto n = receive[index(process)], from = split.first(field, process);
      if (n == 0) continue;
      in_order.slice(0, from, from + (n - 1) * split.size + 1, split.size).copy_(came.narrow(0, done, n));
      done += n;
    }
    take(first, in_order);
  }
}

at::Tensor EmbeddingTables::State::gathered(std::int64_t field) const {
  const auto whole = split.rank == 0 ? make_table(size(field)) : at::Tensor();
  gather(field, [&](std::int64_t first, const at::Tensor& rows) {
    whole.narrow(0, first, rows.size(0)).copy_(rows);
  });
  return whole;
}

void EmbeddingTables::State::require_whole(const char* doing) const {
  if (exchange)
    throw Error(
        format("embedding tables whose rows are split over {} processes cannot be {}; join() them first",
               split.size, doing));
}

void EmbeddingTables::split(std::shared_ptr<RowExchange> exchange) {
  auto& s = *state_;
  s.require_trainable();
  s.require_whole("split again");
  if (s.drawn || s.given_up)
    throw Error("embedding tables are split before their weights are drawn or loaded");
  s.split = {exchange->rank(), exchange->size()};
  s.exchange = std::move(exchange);
}

bool EmbeddingTables::is_split() const {
  return state_->exchange != nullptr;
}

void EmbeddingTables::look_up_nothing() {
  auto& s = drawn();
  if (s.exchange) s.fetch_rows(std::vector<std::int64_t>(s.sizes.size() + 1), {}, at::GradMode::is_enabled());
}

void EmbeddingTables::join() {
  auto& s = drawn();
  if (!s.exchange) return;
  s.clear_gradients();
  for (std::int64_t field = 0; field < s.fields(); ++field) {
    const auto whole = s.gathered(field);
    s.tables[index(field)] = at::Tensor();  // field by field: what went is freed
    s.data[index(field)] = nullptr;
    if (whole.defined()) s.set_table(field, whole);
  }
  s.given_up = s.split.rank != 0;
  s.split = {};
  s.exchange.reset();
}

}  // namespace stoa::nn
