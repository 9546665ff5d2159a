#pragma once

#include <filesystem>
#include <string>

namespace stoa {

/// The file or folder that `data.path` names: as it is, or where a relative one is not there below
/// $STOA_DATA. Throws DataError saying where it was looked for.
std::filesystem::path find_data(const std::string& path);

}  // namespace stoa
