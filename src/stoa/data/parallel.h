#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace stoa {

/// Calls task(0) ... task(count - 1) from one thread per CPU core and waits for all. Where tasks throw, no
/// new ones start and the error of the lowest number is thrown. `label` names the work in a progress line (""
/// shows none).
void for_each_parallel(std::int64_t count, const std::string& label,
                       const std::function<void(std::int64_t)>& task);

}  // namespace stoa
