#include "stoa/dist/free_port.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <random>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"

namespace stoa::dist {

int free_port() {
  constexpr int kFirst = 20'000, kLast = 32'767, kTries = 256;  // Linux gives away 32768 and up
  std::random_device random;                                    // launchers that start at once draw apart
  std::uniform_int_distribution<int> port(kFirst, kLast);
  for (int i = 0; i < kTries; ++i) {
    const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (socket < 0) break;
    sockaddr_in address{};
    address.sin_family = AF_INET;
    const int drawn = port(random);
    address.sin_port = htons(static_cast<std::uint16_t>(drawn));
    const bool found = ::bind(socket, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
    const int error = errno;
    ::close(socket);
    if (found) return drawn;
    errno = error;
  }
  throw IoError(
      format("no free port was found from {} to {}: {}; name one by --master 127.0.0.1:PORT or MASTER_PORT",
             kFirst, kLast, std::strerror(errno)));
}

}  // namespace stoa::dist
