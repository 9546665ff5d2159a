#pragma once

namespace stoa {

/// Checks `task.label_smoothing`, the share of each target that is spread over all classes. Throws
/// ConfigError unless it is at least 0 and below 1.
void check_label_smoothing(double share);

}  // namespace stoa
