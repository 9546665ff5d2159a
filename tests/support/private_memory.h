#pragma once

#include <cstdint>
#include <sstream>
#include <string>

#include "stoa/base/files.h"

namespace stoa::test {

/// Bytes of memory that this process has for itself; pages of mapped files do not count.
inline std::int64_t private_memory() {
  std::istringstream status(read_file("/proc/self/status"));
  for (std::string word; status >> word;)
    if (word == "RssAnon:") {
      std::int64_t kilobytes = 0;
      status >> kilobytes;
      return kilobytes * 1024;
    }
  return 0;
}

}  // namespace stoa::test
