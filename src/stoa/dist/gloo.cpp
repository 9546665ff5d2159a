// The one file that sees ProcessGroupGloo: see gloo_forward/gloo/context.h.
#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include <cmath>
#include <cstdlib>

#include "stoa/dist/connection.h"

#ifndef USE_C10D_GLOO
#error "this LibTorch was built without Gloo; Stoa needs one with USE_DISTRIBUTED and USE_GLOO"
#endif

namespace stoa::dist {
namespace {

/// The address of this machine from which `host` is reached, or an empty text. Asks the kernel where a
/// datagram would leave; none is sent.
std::string address_towards(const std::string& host, int port) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_DGRAM;
  if (::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found) != 0) return "";
  std::string address;
  for (const addrinfo* at = found; at != nullptr && address.empty(); at = at->ai_next) {
    const int socket = ::socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC, at->ai_protocol);
    if (socket < 0) continue;
    sockaddr_storage own{};
    socklen_t length = sizeof own;
    auto* const named = reinterpret_cast<sockaddr*>(&own);
    char text[NI_MAXHOST];
    if (::connect(socket, at->ai_addr, at->ai_addrlen) == 0 && ::getsockname(socket, named, &length) == 0 &&
        ::getnameinfo(named, length, text, sizeof text, nullptr, 0, NI_NUMERICHOST) == 0)
      address = text;
    ::close(socket);
  }
  ::freeaddrinfo(found);
  return address;
}

bool is_loopback(const std::string& address) {
  return address == "localhost" || address == "::1" || address.starts_with("127.");
}

}  // namespace

std::chrono::milliseconds milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<std::int64_t>(std::ceil(1000 * seconds)));
}

GlooDevice open_gloo_device(const ProcessPlace& place, const std::string& interface) {
  const char* const variable = std::getenv("GLOO_SOCKET_IFNAME");
  const std::string name = !interface.empty() ? interface : variable != nullptr ? variable : "";
  if (!name.empty()) return c10d::ProcessGroupGloo::createDeviceForInterface(name);
  if (place.local_world == place.world || is_loopback(place.address))
    return c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1");
  // the name of the machine, Gloo's own choice, often stands for the loopback address
  const std::string address = address_towards(place.address, place.port);
  if (address.empty() || is_loopback(address)) return c10d::ProcessGroupGloo::createDefaultDevice();
  return c10d::ProcessGroupGloo::createDeviceForHostname(address);
}

c10::intrusive_ptr<c10d::Backend> connect_gloo(const c10::intrusive_ptr<c10d::Store>& store, int rank,
                                               int size, double timeout_s, const GlooDevice& device) {
  auto options = c10d::ProcessGroupGloo::Options::create(milliseconds(timeout_s));
  options->devices.push_back(device);
  return c10::make_intrusive<c10d::ProcessGroupGloo>(store, rank, size, options);
}

}  // namespace stoa::dist
