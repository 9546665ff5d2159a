#include "stoa/dist/environment.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <limits>
#include <optional>
#include <string_view>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"

namespace stoa::dist {
namespace {

constexpr int kMaxInt = std::numeric_limits<int>::max();

/// The variables, checked as they are read.
class Variables {
 public:
  explicit Variables(const Environment& environment) : environment_(environment) {}

  /// Empty counts as not set, as it does to a shell's ${X:-...}.
  std::optional<std::string> text(const char* name) const {
    const char* value = environment_(name);
    if (value == nullptr || *value == '\0') return std::nullopt;
    return value;
  }
  bool has(const char* name) const { return text(name).has_value(); }

  std::optional<int> number(const char* name, int least, int most) const {
    const auto value = text(name);
    if (!value) return std::nullopt;
    int result = 0;
    const auto [end, error] = std::from_chars(value->data(), value->data() + value->size(), result);
    if (error != std::errc() || end != value->data() + value->size() || result < least || result > most)
      throw ConfigError(
          most == kMaxInt
              ? format("{} is `{}`; a whole number of at least {} is needed", name, *value, least)
              : format("{} is `{}`; a whole number from {} to {} is needed", name, *value, least, most));
    return result;
  }
  int needed(const char* name, int least, int most, const char* because) const {
    const auto value = number(name, least, most);
    if (!value)
      throw ConfigError(
          format("{} is set to `{}` but {} is not set; a launcher sets both", because, *text(because), name));
    return *value;
  }

  /// Reads a rank and a count, which need each other. False where neither is set.
  bool pair(const char* rank_name, const char* count_name, int& rank, int& count, int most = kMaxInt) const {
    if (!has(rank_name) && !has(count_name)) return false;
    count = needed(count_name, 1, most, rank_name);
    rank = needed(rank_name, 0, count - 1, count_name);
    return true;
  }

  void read_address(ProcessPlace& place) const {
    if (const auto address = text("MASTER_ADDR")) place.address = *address;
    if (const auto port = number("MASTER_PORT", 1, 65535)) place.port = *port;
  }

 private:
  const Environment& environment_;
};

bool is_loopback(const std::string& address) {
  return address == "localhost" || address == "::1" || address.starts_with("127.");
}

/// First host of Slurm's short form: "gpu[07-09,12],login" -> "gpu07".
std::string first_host(const char* variable, const std::string& list) {
  const auto refuse = [&] {
    return ConfigError(
        format("{} is `{}`, which is no list of hosts such as `node[01-04],login`; set MASTER_ADDR "
               "to the host of rank 0",
               variable, list));
  };
  std::string host;
  for (std::size_t i = 0; i < list.size() && list[i] != ','; ++i) {
    if (list[i] != '[') {
      host += list[i];
      continue;
    }
    const auto close = list.find(']', i);
    if (close == std::string::npos) throw refuse();
    const std::string first = list.substr(i + 1, list.find_first_of(",-]", i) - i - 1);
    if (first.empty()) throw refuse();
    host += first;
    i = close;
  }
  if (host.empty() || host.find_first_of("] \t") != std::string::npos) throw refuse();
  return host;
}

void read_slurm_address(const Variables& variables, ProcessPlace& place) {
  for (const char* name : {"SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"})
    if (const auto list = variables.text(name)) {
      place.address = first_host(name, *list);
      break;
    }
  constexpr int kFirstPort = 20000, kPorts = 10000;  // below those that systems give away
  if (const auto job = variables.number("SLURM_JOB_ID", 0, kMaxInt)) place.port = kFirstPort + *job % kPorts;
}

/// The number of tasks on this node from "4(x2),3": 4 on nodes 0 and 1, 3 on node 2.
std::optional<int> slurm_local_world(const Variables& variables) {
  for (const char* name : {"SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"}) {
    const auto text = variables.text(name);
    if (!text) continue;
    int node = variables.number("SLURM_NODEID", 0, kMaxInt).value_or(0);
    for (const char *at = text->data(), *const end = at + text->size();; ++at) {
      int tasks = 0, times = 1;
      at = std::from_chars(at, end, tasks).ptr;
      if (std::string_view(at, static_cast<std::size_t>(end - at)).starts_with("(x")) {
        times = 0;
        at = std::from_chars(at + 2, end, times).ptr;
        if (at < end && *at == ')')
          ++at;
        else
          times = 0;
      }
      if (tasks < 1 || times < 1 || (at < end && *at != ','))
        throw ConfigError(format("{} is `{}`; counts such as `4(x2),3` are needed", name, *text));
      if (node < times) return tasks;
      node -= times;
      if (at == end) break;
    }
  }
  return std::nullopt;
}

bool read_torch(const Variables& variables, ProcessPlace& place) {
  if (!variables.pair("RANK", "WORLD_SIZE", place.rank, place.world)) return false;
  variables.read_address(place);
  if (variables.has("LOCAL_WORLD_SIZE")) {
    variables.pair("LOCAL_RANK", "LOCAL_WORLD_SIZE", place.local_rank, place.local_world, place.world);
  } else if (const auto local = variables.number("LOCAL_RANK", 0, place.world - 1)) {
    place.local_rank = *local;
    place.local_world = is_loopback(place.address) ? place.world : *local + 1;
  } else if (is_loopback(place.address)) {
    place.local_rank = place.rank;
    place.local_world = place.world;
  }
  place.store_is_served = variables.text("TORCHELASTIC_USE_AGENT_STORE") == "True";
  place.attempt = variables.number("TORCHELASTIC_RESTART_COUNT", 0, kMaxInt).value_or(0);
  place.launcher = variables.has("TORCHELASTIC_RUN_ID")          ? "torchrun"
                   : variables.has("TORCHELASTIC_RESTART_COUNT") ? "stoa launch"
                                                                 : "RANK and WORLD_SIZE";
  return true;
}

bool read_mpi(const Variables& variables, ProcessPlace& place) {
  if (variables.pair("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", place.rank, place.world)) {
    variables.pair("OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE", place.local_rank,
                   place.local_world, place.world);
    place.launcher = "Open MPI";
  } else if (variables.pair("PMI_RANK", "PMI_SIZE", place.rank, place.world)) {
    if (const auto local = variables.number("MPI_LOCALRANKID", 0, place.world - 1)) {
      place.local_rank = *local;
      place.local_world = variables.number("MPI_LOCALNRANKS", *local + 1, place.world).value_or(*local + 1);
    }
    place.launcher = "MPI";
  } else {
    return false;
  }
  read_slurm_address(variables, place);
  variables.read_address(place);
  return true;
}

bool read_slurm(const Variables& variables, ProcessPlace& place) {
  // a shell inside an allocation has the number of tasks but is none of them
  if (!variables.has("SLURM_PROCID")) return false;
  const char* const count = variables.has("SLURM_STEP_NUM_TASKS") ? "SLURM_STEP_NUM_TASKS" : "SLURM_NTASKS";
  if (variables.number(count, 1, kMaxInt).value_or(1) == 1) return false;
  variables.pair("SLURM_PROCID", count, place.rank, place.world);
  const auto local_world = slurm_local_world(variables);
  const int most = std::min(local_world.value_or(place.world), place.world);
  place.local_rank = variables.number("SLURM_LOCALID", 0, most - 1).value_or(0);
  place.local_world = local_world ? most : place.local_rank + 1;
  read_slurm_address(variables, place);
  variables.read_address(place);
  place.launcher = "Slurm";
  return true;
}

}  // namespace

ProcessPlace read_place(const Environment& environment) {
  const Variables variables(environment);
  ProcessPlace place;
  if (!read_torch(variables, place) && !read_mpi(variables, place) && !read_slurm(variables, place))
    return {};
  if (place.world > place.local_world && !variables.has("MASTER_ADDR") && is_loopback(place.address))
    throw ConfigError(format(
        "MASTER_ADDR is not set, and {} of {} processes run on this machine; set it to the host of rank 0",
        place.local_world, place.world));
  return place;
}

ProcessPlace read_place() {
  return read_place([](const char* name) -> const char* { return std::getenv(name); });
}

}  // namespace stoa::dist
