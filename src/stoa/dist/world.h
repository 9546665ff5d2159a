#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "stoa/dist/environment.h"
#include "stoa/dist/group.h"

namespace stoa::dist {

struct WorldOptions {
  double timeout_s = 60;      ///< how long a process waits for the others, in every operation
  double join_timeout_s = 0;  ///< and for all to have started; 0 takes timeout_s
  /// Network interface to send over; empty takes GLOO_SOCKET_IFNAME, or the one that leads to rank 0.
  std::string interface {};
};

/// All processes that were started together.
class World {
 public:
  /// Meets the other processes at the place's address and port. Throws DistributedError that names the ranks
  /// that did not come in time.
  static std::shared_ptr<World> join(const ProcessPlace& place, const WorldOptions& options = {});
  /// Waits shortly for the others, so that none loses what is on its way, closes every group, then the store;
  /// rank 0, which keeps the store, goes last. After a failure it waits for nobody.
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  const ProcessPlace& place() const;
  int rank() const { return place().rank; }
  int size() const { return place().world; }
  /// The group of all ranks, `world`.
  Group& all();
  std::shared_ptr<Group> all_shared();

  /// Forms a group of these ranks, in this order. Every rank of the world calls it with the same arguments in
  /// the same order; those that are not members get null. Throws ConfigError for ranks that are twice or not
  /// in the world, DistributedError where a member does not come.
  std::shared_ptr<Group> make_group(const std::string& name, const std::vector<int>& ranks);

  /// Compares a value, e.g. a fingerprint of the recipe, over all ranks, which all call it. Throws
  /// DistributedError on every rank that names the ranks that differ from the most, or did not come.
  void agree(const std::string& name, std::uint64_t value);

 private:
  struct State;
  explicit World(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace stoa::dist
