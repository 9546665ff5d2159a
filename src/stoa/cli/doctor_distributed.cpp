#include "stoa/cli/doctor_distributed.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/cli/table.h"
#include "stoa/dist/world.h"

namespace stoa::cli {
namespace {

constexpr std::int64_t kBytes = std::int64_t{16} << 20;  // of a message whose speed is measured

// Median seconds of a call, of the slowest rank of the world.
template <class Call>
double seconds(dist::Group& world, int calls, const Call& call) {
  using Clock = std::chrono::steady_clock;
  call();  // the first one connects
  std::vector<double> times;
  for (int i = 0; i < calls; ++i) {
    const auto start = Clock::now();
    call();
    times.push_back(std::chrono::duration<double>(Clock::now() - start).count());
  }
  std::ranges::sort(times);
  const auto median = at::full({1}, times[times.size() / 2], at::kDouble);
  world.all_reduce(median, dist::Reduce::kMax);
  return median.item<double>();
}

}  // namespace

GroupSpeed measure_group(dist::Group& world, dist::Group& group) {
  GroupSpeed speed{group.name(), group.size()};
  const auto small = at::zeros({1}), large = at::zeros({kBytes / 4}), other = at::empty_like(large);
  speed.latency_us = 1e6 * seconds(world, 50, [&] { group.all_reduce(small); });
  const int next = (group.rank() + 1) % group.size(),
            previous = (group.rank() + group.size() - 1) % group.size();
  const double bytes = static_cast<double>(kBytes) / 1e9;
  speed.exchange =
      bytes / seconds(world, 5, [&] { group.start_exchange(large, next, other, previous).wait(); });
  speed.all_reduce = bytes / seconds(world, 5, [&] { group.all_reduce(large); });
  return speed;
}

void examine_processes(const Program& program, const dist::ParallelOptions& options) {
  options.validate();
  const auto place = dist::read_place();
  if (place.world == 1)
    throw ConfigError("this is a single process; start several: stoa launch -n 4 -- doctor --distributed");
  dist::WorldOptions world_options;
  world_options.timeout_s = options.timeout;
  const auto world = dist::World::join(place, world_options);
  const dist::Mesh mesh(*world, options);
  // kinds of one rank, or of the same ranks as another kind, tell nothing
  std::vector<dist::Group*> groups_seen = {&mesh.world()};
  for (const auto kind : dist::kGroupKinds) {
    auto& group = mesh.group(kind);
    const auto same = [&](const dist::Group* other) { return other->ranks() == group.ranks(); };
    if (group.size() > 1 && std::ranges::none_of(groups_seen, same)) groups_seen.push_back(&group);
  }
  std::vector<GroupSpeed> speeds;
  for (auto* const group : groups_seen) speeds.push_back(measure_group(mesh.world(), *group));
  if (world->rank() != 0) return;
  Json groups = Json::array();
  std::vector<std::vector<std::string>> rows = {
      {"group", "ranks", "latency us", "to the next GB/s", "all-reduce GB/s"}};
  for (const auto& speed : speeds) {
    groups.push_back({{"name", speed.name},
                      {"ranks", speed.size},
                      {"latency_us", speed.latency_us},
                      {"exchange_gb_per_s", speed.exchange},
                      {"all_reduce_gb_per_s", speed.all_reduce}});
    rows.push_back({speed.name, format("{}", speed.size), format("{:.0f}", speed.latency_us),
                    format("{:.2f}", speed.exchange), format("{:.2f}", speed.all_reduce)});
  }
  print_result(
      program, {{"processes", world->size()}, {"launcher", place.launcher}, {"groups", groups}},
      format("{} processes, started by {}\n\n{}\n{}\n"
             "16 MiB a message; the slowest rank counts, and groups of one kind work at the same time.\n",
             world->size(), place.launcher, mesh.table(), text_table(rows)));
}

}  // namespace stoa::cli
