#include "stoa/dist/group.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <utility>

#include "stoa/base/format.h"
#include "stoa/dist/connection.h"
#include "stoa/dist/errors.h"
#include "stoa/dist/last_words.h"
#include "stoa/tensor/shape.h"

namespace stoa::dist {
namespace {

using WorkHandle = c10::intrusive_ptr<c10d::Work>;

/// The same memory as bytes: what is only moved may be of any type.
at::Tensor as_bytes(const at::Tensor& t) {
  return t.detach().as_strided({t.numel()}, {1}).view(at::kByte);
}

std::int64_t byte_count(const at::Tensor& t) {
  return static_cast<std::int64_t>(t.nbytes());
}

bool is_half(const at::Tensor& t) {
  return t.scalar_type() == at::kHalf || t.scalar_type() == at::kBFloat16;
}

void check_reducible(const at::Tensor& t, const std::string& doing) {
  if (t.scalar_type() == at::kBool || t.is_complex() || c10::isQIntType(t.scalar_type()))
    throw ShapeError(format("{} needs numbers that can be added and compared; found {}", doing,
                            c10::toString(t.scalar_type())));
}

c10d::ReduceOp operation_of(Reduce reduce) {
  switch (reduce) {
    case Reduce::kMax:
      return c10d::ReduceOp::MAX;
    case Reduce::kMin:
      return c10d::ReduceOp::MIN;
    default:
      return c10d::ReduceOp::SUM;
  }
}

/// The sum over dimension 0, one after the other, fp16 and bf16 in fp32.
at::Tensor sum_in_order(const at::Tensor& parts) {
  at::Tensor sum = parts[0].to(is_half(parts) ? at::kFloat : parts.scalar_type(), false, /*copy=*/true);
  for (std::int64_t i = 1; i < parts.size(0); ++i) sum.add_(parts[i]);
  return sum.to(parts.scalar_type());
}

std::vector<std::int64_t> sizes_of_all(int size, const at::Tensor& t) {
  std::vector<std::int64_t> sizes{size};
  sizes.insert(sizes.end(), t.sizes().begin(), t.sizes().end());
  return sizes;
}

std::int64_t total(const Group::Counts& counts) {
  return std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
}

std::function<WorkHandle(c10d::Backend&)> even_all_to_all(const at::Tensor& from, const at::Tensor& to) {
  return [from, to](c10d::Backend& backend) {
    at::Tensor received = as_bytes(to), sent = as_bytes(from);
    std::vector<std::int64_t> even;
    return backend.alltoall_base(received, sent, even, even);
  };
}

/// Messages that rank `place` after the root passes on in a binomial tree over `size` ranks.
std::int64_t tree_messages(int place, int size) {
  std::int64_t messages = 0;
  for (int step = 1; place + step < size; step *= 2) messages += step > place ? 1 : 0;
  return messages;
}

/// Runs c10d's part of an operation; what it throws becomes one line.
template <class F>
auto explained(const std::string& doing, const Connection& connection, const F& f) {
  try {
    return f();
  } catch (const std::exception& error) {
    *connection.failed = true;
    throw explain_failure(doing, error, connection.timeout_s);
  }
}

}  // namespace

struct Group::Call {
  at::Tensor on;  ///< tells the device
  std::function<WorkHandle(c10d::Backend&)> start;
  std::function<at::Tensor()> finish;  ///< makes the result once the work is done
};

at::Tensor Pending::wait() {
  if (!finish_) return {};
  return std::exchange(finish_, nullptr)();
}

Group::Group(std::string name, std::vector<int> ranks, int rank, std::shared_ptr<Connection> connection)
    : name_(std::move(name)),
      ranks_(std::move(ranks)),
      rank_(rank),
      connection_(std::move(connection)),
      own_messages_(std::make_shared<std::map<int, std::deque<at::Tensor>>>()) {}

Group::~Group() = default;

void Group::close() {
  connection_.reset();
}

std::string Group::doing(const std::string& operation) const {
  return format("rank {}: {} in group `{}`", world_rank(rank_), operation, name_);
}

void Group::check(const at::Tensor& t, const char* operation) const {
  if (!t.defined() || t.layout() != at::kStrided || !t.is_contiguous())
    throw ShapeError(format("{} needs a contiguous tensor; found {}", doing(operation),
                            !t.defined()                 ? "none"
                            : t.layout() != at::kStrided ? "a sparse one"
                                                         : "shape " + shape_text(t.sizes()) +
                                                               " with strides " + shape_text(t.strides())));
  const bool reached = t.is_cpu() || (t.is_cuda() && (!connection_ || connection_->open_cuda));
  if (!reached)
    throw ShapeError(format("{} cannot send a tensor of device {}; move it to {}", doing(operation),
                            t.device().str(),
                            connection_ && connection_->open_cuda ? "a GPU or the CPU" : "the CPU"));
}

void Group::check_rank(int rank, const char* operation) const {
  if (rank < 0 || rank >= size())
    throw DistributedError(
        format("{} failed: there is no rank {} among its {}", doing(operation), rank, size()));
}

void Group::count(std::int64_t messages, std::int64_t bytes) {
  traffic_.messages += messages;
  traffic_.bytes += bytes;
}

Pending Group::launch(const std::string& operation, Call call) {
  const std::string what = doing(operation);
  if (!connection_) throw DistributedError(what + " failed: its world has been left; keep the World alive");
  const auto under_way = std::make_shared<const UnderWay>(what);
  const auto work = explained(what, *connection_, [&] {
    if (!call.on.is_cuda()) return call.start(*connection_->cpu);
    if (!connection_->cuda) connection_->cuda = connection_->open_cuda();
    return call.start(*connection_->cuda);
  });
  // the connection itself may be closed before an abandoned operation is dropped
  Connection outcome;
  outcome.timeout_s = connection_->timeout_s;
  outcome.failed = connection_->failed;
  return Pending([what, work, outcome, under_way, call = std::move(call)] {
    explained(what, outcome, [&] { return work->wait(); });
    return call.finish();
  });
}

Pending Group::start_all_reduce(const at::Tensor& t, Reduce reduce) {
  check(t, "all-reduce");
  check_reducible(t, doing("all-reduce"));
  if (size() == 1 || t.numel() == 0) return Pending([t] { return t; });
  const bool widened = t.is_cpu() && reduce == Reduce::kSum && is_half(t);  // Gloo rounds at every addition
  const at::Tensor sent = widened ? t.detach().to(at::kFloat) : t.detach();
  count(2 * (size() - 1), 2 * (size() - 1) * byte_count(sent) / size());
  const auto start = [sent, reduce](c10d::Backend& backend) {
    c10d::AllreduceOptions options;
    options.reduceOp = operation_of(reduce);
    std::vector<at::Tensor> tensors{sent};
    return backend.allreduce(tensors, options);
  };
  const auto finish = [t, sent, widened] {
    if (widened) t.detach().copy_(sent);
    return t;
  };
  return launch("all-reduce", {t, start, finish});
}

Pending Group::start_all_gather(const at::Tensor& t) {
  check(t, "all-gather");
  const at::Tensor gathered = at::empty(sizes_of_all(size(), t), t.options());
  if (size() == 1) gathered.copy_(t.detach().unsqueeze(0));
  if (size() == 1 || t.numel() == 0) return Pending([gathered] { return gathered; });
  count(size() - 1, (size() - 1) * byte_count(t));
  const auto start = [t, gathered](c10d::Backend& backend) {
    at::Tensor to = as_bytes(gathered), from = as_bytes(t);
    return backend._allgather_base(to, from);
  };
  return launch("all-gather", {t, start, [gathered] { return gathered; }});
}

Pending Group::start_reduce_scatter(const at::Tensor& t) {
  check(t, "reduce-scatter");
  check_reducible(t, doing("reduce-scatter"));
  if (t.dim() == 0 || t.size(0) != size())
    throw ShapeError(format("{} needs a tensor of shape [{}, ...]; found {}", doing("reduce-scatter"), size(),
                            shape_text(t.sizes())));
  if (size() == 1 || t.numel() == 0) return Pending([part = t.detach()[0].clone()] { return part; });
  count(size() - 1, (size() - 1) * byte_count(t) / size());
  if (t.is_cuda()) {
    const at::Tensor part = at::empty_like(t.detach()[0]);
    const auto start = [t, part](c10d::Backend& backend) {
      at::Tensor to = part.view({-1}), from = t.detach().view({-1});
      return backend._reduce_scatter_base(to, from);
    };
    return launch("reduce-scatter", {t, start, [part] { return part; }});
  }
  // Gloo's own rounds fp16 and bf16 at every addition. These travel in their own type and are summed here.
  const at::Tensor parts = at::empty_like(t.detach());
  return launch("reduce-scatter", {t, even_all_to_all(t, parts), [parts] { return sum_in_order(parts); }});
}

Pending Group::start_all_to_all(const at::Tensor& t) {
  check(t, "all-to-all");
  if (t.dim() == 0 || t.size(0) % size() != 0)
    throw ShapeError(format("{} needs a first dimension that is a multiple of {}; found shape {}",
                            doing("all-to-all"), size(), shape_text(t.sizes())));
  if (size() == 1 || t.numel() == 0) return Pending([copy = t.detach().clone()] { return copy; });
  count(size() - 1, (size() - 1) * byte_count(t) / size());
  const at::Tensor received = at::empty_like(t.detach());
  return launch("all-to-all", {t, even_all_to_all(t, received), [received] { return received; }});
}

void Group::check_counts(const at::Tensor& rows, const Counts& send, const Counts& receive) const {
  const auto own = static_cast<std::size_t>(rank_);
  const auto fits = [&](const Counts& counts) {
    return counts.size() == ranks_.size() &&
           std::ranges::all_of(counts, [](std::int64_t n) { return n >= 0; });
  };
  if (rows.dim() > 0 && fits(send) && fits(receive) && total(send) == rows.size(0) &&
      send[own] == receive[own])
    return;
  throw ShapeError(format(
      "{} of rows {} cannot send {} and receive {}; {} counts each are needed, those sent must sum to the "
      "rows, and this rank sends itself what it receives from itself",
      doing("all-to-all"), shape_text(rows.sizes()), shape_text(send), shape_text(receive), size()));
}

Pending Group::start_all_to_all(const at::Tensor& rows, const Counts& send, const Counts& receive) {
  check(rows, "all-to-all");
  check_counts(rows, send, receive);
  auto sizes = rows.sizes().vec();
  sizes[0] = total(receive);
  const at::Tensor received = at::empty(sizes, rows.options());
  const std::int64_t row_bytes = c10::multiply_integers(rows.sizes().slice(1)) * rows.element_size();
  if (size() == 1) received.copy_(rows.detach());
  if (size() == 1 || row_bytes == 0) return Pending([received] { return received; });
  Counts sent_bytes = send, received_bytes = receive;
  for (auto& n : sent_bytes) n *= row_bytes;
  for (auto& n : received_bytes) n *= row_bytes;
  for (std::size_t i = 0; i < sent_bytes.size(); ++i)
    if (i != static_cast<std::size_t>(rank_) && send[i] > 0) count(1, sent_bytes[i]);
  const auto start = [rows, received, sent_bytes, received_bytes](c10d::Backend& backend) {
    at::Tensor to = as_bytes(received), from = as_bytes(rows);
    Counts to_counts = received_bytes, from_counts = sent_bytes;  // which c10d wants to be able to change
    return backend.alltoall_base(to, from, to_counts, from_counts);
  };
  return launch("all-to-all", {rows, start, [received] { return received; }});
}

Pending Group::start_broadcast(const at::Tensor& t, int root) {
  check(t, "broadcast");
  check_rank(root, "broadcast");
  if (size() == 1 || t.numel() == 0) return Pending([t] { return t; });
  const auto messages = tree_messages((rank_ - root + size()) % size(), size());
  count(messages, messages * byte_count(t));
  const auto start = [t, root](c10d::Backend& backend) {
    c10d::BroadcastOptions options;
    options.rootRank = root;
    std::vector<at::Tensor> tensors{as_bytes(t)};
    return backend.broadcast(tensors, options);
  };
  return launch(format("broadcast from rank {}", world_rank(root)), {t, start, [t] { return t; }});
}

Pending Group::start_send(const at::Tensor& t, int to, int tag) {
  check(t, "sending");
  check_rank(to, "sending");
  if (to == rank_) {
    (*own_messages_)[tag].push_back(t.detach().clone());
    return Pending([t] { return t; });
  }
  count(1, byte_count(t));
  const auto start = [t, to, tag](c10d::Backend& backend) {
    std::vector<at::Tensor> tensors{as_bytes(t)};
    return backend.send(tensors, to, tag);
  };
  return launch(format("sending to rank {}", world_rank(to)), {t, start, [t] { return t; }});
}

Pending Group::take_own(const at::Tensor& t, int tag) {
  return Pending([t, tag, what = doing("receiving from itself"), messages = own_messages_] {
    auto& waiting = (*messages)[tag];
    if (waiting.empty()) throw DistributedError(what + " failed: nothing was sent; send before wait()");
    t.detach().copy_(waiting.front());
    waiting.pop_front();
    return t;
  });
}

Pending Group::start_receive(const at::Tensor& t, int from, int tag) {
  check(t, "receiving");
  check_rank(from, "receiving");
  if (from == rank_) return take_own(t, tag);
  const auto start = [t, from, tag](c10d::Backend& backend) {
    std::vector<at::Tensor> tensors{as_bytes(t)};
    return backend.recv(tensors, from, tag);
  };
  return launch(format("receiving from rank {}", world_rank(from)), {t, start, [t] { return t; }});
}

Pending Group::start_exchange(const at::Tensor& out, int to, const at::Tensor& in, int from, int tag) {
  if (!out.is_cuda() || to == rank_ || from == rank_) {
    Pending received = start_receive(in, from, tag), sent = start_send(out, to, tag);
    return Pending([received, sent]() mutable {
      const at::Tensor result = received.wait();
      sent.wait();
      return result;
    });
  }
  for (const auto& t : {out, in}) check(t, "exchange");
  for (const int rank : {to, from}) check_rank(rank, "exchange");
  count(1, byte_count(out));
  const auto start = [out, to, in, from, tag](c10d::Backend& backend) {
    std::vector<at::Tensor> received{as_bytes(in)}, sent{as_bytes(out)};
    backend.startCoalescing();  // NCCL runs what is in between as one
    backend.recv(received, from, tag);
    backend.send(sent, to, tag);
    return backend.endCoalescing();
  };
  return launch(format("exchange with ranks {} and {}", world_rank(to), world_rank(from)),
                {out, start, [out, in] { return in; }});
}

void Group::all_reduce(const at::Tensor& t, Reduce reduce) {
  start_all_reduce(t, reduce).wait();
}
at::Tensor Group::all_gather(const at::Tensor& t) {
  return start_all_gather(t).wait();
}
at::Tensor Group::reduce_scatter(const at::Tensor& t) {
  return start_reduce_scatter(t).wait();
}
at::Tensor Group::all_to_all(const at::Tensor& t) {
  return start_all_to_all(t).wait();
}
at::Tensor Group::all_to_all(const at::Tensor& rows, const Counts& send, const Counts& receive) {
  return start_all_to_all(rows, send, receive).wait();
}
void Group::broadcast(const at::Tensor& t, int root) {
  start_broadcast(t, root).wait();
}

void Group::barrier() {
  if (size() == 1) return;
  std::int64_t rounds = 0;
  while ((1 << rounds) < size()) ++rounds;
  count(rounds, 0);
  const auto start = [](c10d::Backend& backend) { return backend.barrier(); };
  launch("barrier", {at::empty({0}), start, [] { return at::Tensor(); }}).wait();
}

}  // namespace stoa::dist
