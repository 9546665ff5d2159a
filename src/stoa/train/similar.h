#pragma once

#include <filesystem>
#include <functional>
#include <string>

namespace stoa {

/// "; did you mean `runs/first`?" with what lies beside `missing` under the name most like its own, of what
/// `fits`; empty where nothing is near enough to be meant.
std::string similar_path(std::filesystem::path missing,
                         const std::function<bool(const std::filesystem::path&)>& fits);

}  // namespace stoa
