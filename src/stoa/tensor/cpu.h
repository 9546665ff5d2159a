#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace stoa {

/// The CPU's name as the system gives it, or "unknown".
std::string cpu_model();

/// The CPU's features that the kernel lets programs use, as Linux spells them ("avx2", "avx512_bf16",
/// "amx_bf16").
const std::vector<std::string>& cpu_flags();

/// True if cpu_flags() has `flag`.
bool cpu_has(std::string_view flag);

/// Cores granted by the content of a cgroup v2 `cpu.max` file ("150000 100000" is 1.5), nothing where it says
/// "max" or is not understood.
std::optional<double> parse_cpu_max(std::string_view text);

/// The smallest CPU quota, in cores, among this process's control group and its ancestors; nothing where
/// there is none.
std::optional<double> cpu_quota();

}  // namespace stoa
