#include "stoa/data/find.h"

#include <cstdlib>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"

namespace stoa {

namespace fs = std::filesystem;

fs::path find_data(const std::string& path) {
  if (fs::exists(path)) return path;
  std::string also;
  if (const char* root = std::getenv("STOA_DATA"); root && !fs::path(path).is_absolute()) {
    const fs::path below = fs::path(root) / path;
    if (fs::exists(below)) return below;
    also = format(", nor {}", below.string());
  }
  throw DataError(format(
      "{}: no such folder{}; correct data.path or set STOA_DATA to the folder that holds it", path, also));
}

}  // namespace stoa
