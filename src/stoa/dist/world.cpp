#include "stoa/dist/world.h"

#include <c10/util/Logging.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <map>
#include <memory>
#include <numeric>
#include <set>
#include <stdexcept>
#include <thread>

#include "stoa/base/format.h"
#include "stoa/base/text.h"
#include "stoa/dist/connection.h"
#include "stoa/dist/errors.h"
#include "stoa/dist/last_words.h"

namespace stoa::dist {
namespace {

using StoreHandle = c10::intrusive_ptr<c10d::Store>;

constexpr double kFarewell = 10;  ///< seconds for which a process waits for the others when it leaves
constexpr double kLastWords =
    2;  ///< and for which rank 0 keeps the store so that all can say what went wrong

/// "rank 2", "ranks 2, 3"; of many the first.
std::string ranks_text(const std::vector<int>& ranks) {
  constexpr std::size_t kShown = 16;
  std::vector<std::string> names;
  for (const int rank : ranks) names.push_back(format("{}", rank));
  if (names.size() > kShown) {
    names.resize(kShown);
    names.push_back(format("... ({} in all)", ranks.size()));
  }
  return (ranks.size() == 1 ? "rank " : "ranks ") + join(names, ", ");
}

/// LibTorch prints what fails with its stack before it throws what is then one line of ours. Within this
/// scope it does not, unless TORCH_CPP_LOG_LEVEL says how much it should.
class QuietScope {
 public:
  QuietScope() {
    constexpr int kFatal = 3;
    if (std::getenv("TORCH_CPP_LOG_LEVEL") == nullptr) FLAGS_caffe2_log_level = kFatal;
  }
  ~QuietScope() { FLAGS_caffe2_log_level = before_; }
  QuietScope(const QuietScope&) = delete;
  QuietScope& operator=(const QuietScope&) = delete;

 private:
  const int before_ = FLAGS_caffe2_log_level;
};

/// A write to a rank that has died is an error that is looked at, in Gloo as in the store; it must not end
/// this process instead. Whoever handles SIGPIPE already keeps doing so.
void ignore_broken_pipes() {
  struct sigaction now {};
  if (::sigaction(SIGPIPE, nullptr, &now) == 0 && now.sa_handler == SIG_DFL) std::signal(SIGPIPE, SIG_IGN);
}

/// What connecting to an address comes to, as errno says it; 0 where somebody listens, ETIMEDOUT where
/// nothing comes back within a second.
int try_address(const addrinfo& address) {
  constexpr int kPatience = 1000;  // milliseconds
  const int socket =
      ::socket(address.ai_family, address.ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, address.ai_protocol);
  if (socket < 0) return errno;
  int error = ::connect(socket, address.ai_addr, address.ai_addrlen) == 0 ? 0 : errno;
  if (error == EINPROGRESS) {
    pollfd ready = {socket, POLLOUT, 0};
    socklen_t size = sizeof error;
    error = ETIMEDOUT;
    if (::poll(&ready, 1, kPatience) == 1) ::getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &size);
  }
  ::close(socket);
  return error;
}

/// Waits until nobody refuses at an address any more; throws after so many seconds. LibTorch itself asks but
/// once a second, and most ranks come a moment before rank 0 listens.
void wait_for_listener(const std::string& host, int port, double seconds) {
  constexpr std::chrono::milliseconds kPause{20};
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  if (::getaddrinfo(host.c_str(), format("{}", port).c_str(), &hints, &found) != 0) return;
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(found, ::freeaddrinfo);
  const auto end = std::chrono::steady_clock::now() + milliseconds(seconds);
  while (true) {
    bool refused = true;  // by every address of the host; whatever else it is, LibTorch will say
    for (const addrinfo* at = found; at != nullptr && refused; at = at->ai_next)
      refused = try_address(*at) == ECONNREFUSED;
    if (!refused) return;
    if (std::chrono::steady_clock::now() > end) throw std::runtime_error("Connection refused");
    std::this_thread::sleep_for(kPause);
  }
}

/// Tells the others that this process has come to `key`, and waits until `count` have, `seconds` at most; a
/// count of 0 only waits for those who tell. Throws nothing: it is for farewells.
void meet(c10d::Store& store, const std::string& key, int count, double seconds, bool waits) noexcept {
  const QuietScope quiet;
  try {
    if (count > 0 && store.add(key, 1) == count) store.set(key + "/all", std::string("1"));
    if (waits) store.wait({key + "/all"}, milliseconds(seconds));
  } catch (const std::exception&) {
  }
}

}  // namespace

struct World::State {
  ProcessPlace place;
  WorldOptions options;
  StoreHandle store;  ///< null for a single process
  GlooDevice device;
  std::shared_ptr<bool> failed = std::make_shared<bool>(false);
  std::vector<std::shared_ptr<Group>> groups;
  std::shared_ptr<Group> all;
  int groups_made = 0, agreements = 0;
  int exceptions = std::uncaught_exceptions();

  std::string doing(const std::string& operation) const {
    return format("rank {}: {}", place.rank, operation);
  }
  void open_store();
  std::vector<std::string> collect(const std::string& operation, const std::string& key,
                                   const std::string& value, double timeout_s);
  void meet_all();
  [[noreturn]] void fail(const std::string& operation, const std::string& key, int witnesses,
                         const std::string& why);
  std::shared_ptr<Connection> connect(const std::string& name, const std::vector<int>& ranks, int rank);
};

void World::State::open_store() {
  c10d::TCPStoreOptions tcp;
  tcp.port = static_cast<std::uint16_t>(place.port);
  tcp.isServer = place.rank == 0 && !place.store_is_served;
  tcp.numWorkers = static_cast<std::size_t>(place.world);
  tcp.waitWorkers = false;  // meet_all() does it, and can say who is missing
  tcp.timeout = milliseconds(options.join_timeout_s);
  const auto operation = format("joining {} processes at {}:{}", place.world, place.address, place.port);
  const QuietScope quiet;
  try {
    if (!tcp.isServer) wait_for_listener(place.address, place.port, options.join_timeout_s);
    // a launcher that starts everything anew may keep its store, and with it the keys of the time before
    store = c10::make_intrusive<c10d::PrefixStore>(format("stoa/{}", place.attempt),
                                                   c10::make_intrusive<c10d::TCPStore>(place.address, tcp));
  } catch (const std::exception& error) {
    throw explain_failure(doing(operation), error, options.join_timeout_s);
  }
}

/// Throws; rank 0, with the store, ends only after as many `witnesses` have come to the same end.
void World::State::fail(const std::string& operation, const std::string& key, int witnesses,
                        const std::string& why) {
  *failed = true;
  meet(*store, key + "/failed", witnesses, kLastWords, place.rank == 0);
  throw DistributedError(format("{} failed: {}", doing(operation), why));
}

/// Every rank's value, by rank.
std::vector<std::string> World::State::collect(const std::string& operation, const std::string& key,
                                               const std::string& value, double timeout_s) {
  std::vector<std::string> keys, values;
  for (int rank = 0; rank < place.world; ++rank) keys.push_back(format("{}/{}", key, rank));
  std::vector<int> missing;
  const QuietScope quiet;
  try {
    store->set(keys[static_cast<std::size_t>(place.rank)], value);
    try {
      store->wait(keys, milliseconds(timeout_s));
    } catch (const std::exception&) {
      for (int rank = 0; rank < place.world; ++rank)
        if (!store->check({keys[static_cast<std::size_t>(rank)]})) missing.push_back(rank);
    }
    if (missing.empty())
      for (const auto& bytes : store->multiGet(keys)) values.emplace_back(bytes.begin(), bytes.end());
  } catch (const std::exception& error) {
    *failed = true;
    throw explain_failure(doing(operation), error, timeout_s);
  }
  if (!missing.empty())
    fail(operation, key, place.world - static_cast<int>(missing.size()),
         format("{} did not come within {} s; see whether {}, and what was printed", ranks_text(missing),
                timeout_s,
                missing.size() == 1 ? "it was started, hangs or ended" : "they were started, hang or ended"));
  return values;
}

/// Waits until every rank is there, and sees to it that they were all started as one.
void World::State::meet_all() {
  const auto operation = format("joining {} processes at {}:{}", place.world, place.address, place.port);
  const auto own = format("{}", place.world);
  std::int64_t claims = 0;
  try {
    claims = store->add(format("claim/{}", place.rank), 1);
  } catch (const std::exception& error) {
    throw explain_failure(doing(operation), error, options.join_timeout_s);
  }
  if (claims > 1)
    throw DistributedError(
        format("{} failed: another process came as rank {}; give each its own, or the other run "
               "another port by MASTER_PORT",
               doing(operation), place.rank));
  const auto worlds = collect(operation, "present", own, options.join_timeout_s);
  for (std::size_t rank = 0; rank < worlds.size(); ++rank)
    if (worlds[rank] != own)
      fail(operation, "present", place.world,
           format("rank {} was started as one of {}; start all with the same number", rank, worlds[rank]));
}

std::shared_ptr<Connection> World::State::connect(const std::string& name, const std::vector<int>& ranks,
                                                  int rank) {
  const QuietScope quiet;
  const auto prefix = format("group/{}", groups_made);
  const int size = static_cast<int>(ranks.size());
  try {
    auto connection = std::make_shared<Connection>();
    connection->cpu = connect_gloo(c10::make_intrusive<c10d::PrefixStore>(prefix + "/cpu", store), rank, size,
                                   options.timeout_s, device);
    if (has_nccl())
      connection->open_cuda = [prefix, rank, size, store = store, seconds = options.timeout_s] {
        return connect_nccl(c10::make_intrusive<c10d::PrefixStore>(prefix + "/cuda", store), rank, size,
                            seconds);
      };
    connection->timeout_s = options.timeout_s;
    connection->failed = failed;
    return connection;
  } catch (const std::exception& error) {
    *failed = true;
    throw explain_failure(doing(format("connecting with {} in group `{}`", ranks_text(ranks), name)), error,
                          options.timeout_s);
  }
}

World::World(std::unique_ptr<State> state) : state_(std::move(state)) {}

std::shared_ptr<World> World::join(const ProcessPlace& place, const WorldOptions& options) {
  if (place.world < 1 || place.rank < 0 || place.rank >= place.world || place.port < 1 || place.port > 65535)
    throw ConfigError(
        format("rank {} of {} processes at port {} is out of range", place.rank, place.world, place.port));
  for (const double seconds : {options.timeout_s, options.join_timeout_s + options.timeout_s})
    if (!(seconds > 0) || !std::isfinite(seconds))
      throw ConfigError(format("the time for which ranks wait is {} s; it must be over 0", seconds));
  auto state = std::make_unique<State>();
  state->place = place;
  state->options = options;
  if (!(options.join_timeout_s > 0)) state->options.join_timeout_s = options.timeout_s;
  if (place.world > 1) {
    ignore_broken_pipes();
    try {
      state->device = open_gloo_device(place, options.interface);
    } catch (const std::exception& error) {
      throw explain_failure(state->doing(format("opening the network interface `{}`", options.interface)),
                            error, options.timeout_s);
    }
    state->open_store();
    state->meet_all();
    note_meeting();
    explain_errors_of_gloo(state->doing("what another rank sent"));
  }
  std::shared_ptr<World> world(new World(std::move(state)));
  std::vector<int> ranks(static_cast<std::size_t>(place.world));
  std::iota(ranks.begin(), ranks.end(), 0);
  world->state_->all = world->make_group("world", ranks);
  return world;
}

World::~World() {
  State& state = *state_;
  const int others = state.place.world - 1;
  const bool in_order = !*state.failed && std::uncaught_exceptions() <= state.exceptions;
  if (others > 0 && in_order)
    meet(*state.store, "leave", others + 1, std::min(kFarewell, state.options.timeout_s), true);
  for (const auto& group : state.groups) group->close();
  if (others > 0 && in_order) {
    if (state.place.rank != 0)
      meet(*state.store, "left", others, 0, false);
    else
      meet(*state.store, "left", 0, kLastWords, true);
  }
}

const ProcessPlace& World::place() const {
  return state_->place;
}
Group& World::all() {
  return *state_->all;
}
std::shared_ptr<Group> World::all_shared() {
  return state_->all;
}

std::shared_ptr<Group> World::make_group(const std::string& name, const std::vector<int>& ranks) {
  std::set<int> distinct;
  for (const int rank : ranks)
    if (rank < 0 || rank >= size() || !distinct.insert(rank).second)
      throw ConfigError(
          format("group `{}` cannot have rank {}; each must be there once and below {}", name, rank, size()));
  if (ranks.empty()) throw ConfigError(format("group `{}` has no ranks; it needs one", name));
  ++state_->groups_made;
  const auto at = std::ranges::find(ranks, rank());
  if (at == ranks.end()) return nullptr;
  const int place = static_cast<int>(at - ranks.begin());
  auto connection = ranks.size() > 1 ? state_->connect(name, ranks, place) : nullptr;
  state_->groups.push_back(std::make_shared<Group>(name, ranks, place, std::move(connection)));
  return state_->groups.back();
}

void World::agree(const std::string& name, std::uint64_t value) {
  if (size() == 1) return;
  const auto key = format("agree/{}", state_->agreements++);
  const auto operation = format("agreeing on `{}` in group `world`", name);
  // with the name, so that ranks which ask about different things are told apart too; where it says all,
  // alone
  const auto own = value == 0 ? name : format("{} {:016x}", name, value);
  const auto values = state_->collect(operation, key, own, state_->options.timeout_s);
  std::map<std::string, std::vector<int>> holders;
  for (std::size_t rank = 0; rank < values.size(); ++rank)
    holders[values[rank]].push_back(static_cast<int>(rank));
  if (holders.size() == 1) return;
  const auto most = std::ranges::max_element(holders, {}, [](const auto& held) {
    return std::pair(held.second.size(), -held.second.front());  // of as many, those with the lowest rank
  });
  std::vector<std::string> others;
  for (auto held = holders.begin(); held != holders.end(); ++held)
    if (held != most) others.push_back(format("{} with `{}`", ranks_text(held->second), held->first));
  state_->fail(operation, key, size(),
               format("{}, others with `{}`; start every rank with the same recipe, data and program",
                      stoa::join(others, ", "), most->first));
}

}  // namespace stoa::dist
