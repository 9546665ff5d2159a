#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace stoa::dist {

struct Connection;  // connection.h

enum class Reduce { kSum, kMax, kMin };

/// What one rank has sent.
struct Traffic {
  std::int64_t messages = 0, bytes = 0;
};

/// An operation under way. Keeps its tensors alive; nobody may write to them before wait(). One that is
/// dropped without wait() is abandoned, and its group should not be used any more.
class Pending {
 public:
  Pending() = default;
  /// Waits for the end and returns the result: the tensor that was reduced, received or sent, or the new one
  /// of a gather or scatter; undefined where nothing was under way. Throws DistributedError.
  at::Tensor wait();

 private:
  friend class Group;
  explicit Pending(std::function<at::Tensor()> finish) : finish_(std::move(finish)) {}
  std::function<at::Tensor()> finish_;
};

/// Processes that exchange tensors. All call the same operations in the same order, with sizes that fit (Gloo
/// ends a process where they do not), from one thread at a time. One of size 1 sends nothing. Tensors are
/// contiguous and on the CPU (Gloo), or a GPU where LibTorch has NCCL; others are a ShapeError. Failures are
/// DistributedErrors, after which the group is of no more use. Ranks in calls count within the group.
class Group {
 public:
  /// Rows for, or from, each rank.
  using Counts = std::vector<std::int64_t>;

  const std::string& name() const { return name_; }
  int rank() const { return rank_; }
  int size() const { return static_cast<int>(ranks_.size()); }
  /// The members' ranks in the world, by rank in the group.
  const std::vector<int>& ranks() const { return ranks_; }

  /// Replaces t by the sum, maximum or minimum over all ranks, equal to the bit on all. fp16 and bf16 on the
  /// CPU are summed in fp32 (and travel as such), rounded once.
  void all_reduce(const at::Tensor& t, Reduce reduce = Reduce::kSum);
  /// Every rank's t, of one shape: [size, ...].
  at::Tensor all_gather(const at::Tensor& t);
  /// t [size, ...] -> [...]: the sum over all ranks of their t[rank]. On the CPU added in the order of the
  /// ranks, fp16 and bf16 in fp32.
  at::Tensor reduce_scatter(const at::Tensor& t);
  /// Part i of dimension 0, which is cut into `size` equal ones, goes to rank i; returns what came, in the
  /// order of ranks.
  at::Tensor all_to_all(const at::Tensor& t);
  /// rows [sum of send, ...], those for rank 0 first: send[i] of them go to rank i, receive[i] come from it.
  at::Tensor all_to_all(const at::Tensor& rows, const Counts& send, const Counts& receive);
  /// Replaces t by that of rank `root`.
  void broadcast(const at::Tensor& t, int root);
  /// Returns when all ranks have called it.
  void barrier();

  Pending start_all_reduce(const at::Tensor& t, Reduce reduce = Reduce::kSum);
  Pending start_all_gather(const at::Tensor& t);
  Pending start_reduce_scatter(const at::Tensor& t);
  Pending start_all_to_all(const at::Tensor& t);
  Pending start_all_to_all(const at::Tensor& rows, const Counts& send, const Counts& receive);
  Pending start_broadcast(const at::Tensor& t, int root);
  /// One message to a rank, which receives it with the same tag (from 0) into a tensor of the same type and
  /// number of elements (Gloo ends the process where it is not). Those of one pair and tag arrive in order.
  /// On a GPU use start_exchange: NCCL waits there for each message in turn.
  Pending start_send(const at::Tensor& t, int to, int tag = 0);
  Pending start_receive(const at::Tensor& t, int from, int tag = 0);
  /// A step of a ring: sends `out` to rank `to` and fills `in`, the result, from rank `from`, both at once.
  Pending start_exchange(const at::Tensor& out, int to, const at::Tensor& in, int from, int tag = 0);

  /// What this rank sent so far, by the textbook count for N ranks and n bytes: all-reduce 2 (N-1) messages
  /// of n/N; all-gather N-1 of n; reduce-scatter and all-to-all N-1 of n/N (uneven: as it is); broadcast a
  /// binomial tree; barrier ceil(log2 N) of nothing. Shares of uneven n are rounded down.
  Traffic traffic() const { return traffic_; }

  /// Internal, for World: members' world ranks, this process's place among them, and their connection (null
  /// for one member).
  Group(std::string name, std::vector<int> ranks, int rank, std::shared_ptr<Connection> connection);
  ~Group();
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;
  /// Internal: ends the connection; later calls are refused.
  void close();

 private:
  struct Call;
  std::string doing(const std::string& operation) const;
  int world_rank(int rank) const { return ranks_[static_cast<std::size_t>(rank)]; }
  void check(const at::Tensor& t, const char* operation) const;
  void check_rank(int rank, const char* operation) const;
  void check_counts(const at::Tensor& rows, const Counts& send, const Counts& receive) const;
  Pending launch(const std::string& operation, Call call);
  Pending take_own(const at::Tensor& t, int tag);
  void count(std::int64_t messages, std::int64_t bytes);

  std::string name_;
  std::vector<int> ranks_;
  int rank_;
  std::shared_ptr<Connection> connection_;  ///< null for one member, and once closed
  Traffic traffic_;
  /// What was sent to this rank itself, by tag.
  std::shared_ptr<std::map<int, std::deque<at::Tensor>>> own_messages_;
};

}  // namespace stoa::dist
