#pragma once

#include <cstdint>
#include <functional>

#include "stoa/base/progress.h"

namespace stoa {

/// Calls task(0) ... task(count - 1) from one thread per CPU core and waits for all. Where tasks throw, no
/// new ones start and the error of the lowest number is thrown. `progress`, if given, is kept up to date and
/// finished.
void for_each_parallel(std::int64_t count, const std::function<void(std::int64_t)>& task,
                       Progress* progress = nullptr);

}  // namespace stoa
