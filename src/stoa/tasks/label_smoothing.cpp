#include "stoa/tasks/label_smoothing.h"

#include "stoa/base/errors.h"
#include "stoa/base/format.h"

namespace stoa {

void check_label_smoothing(double share) {
  if (!(share >= 0 && share < 1))
    throw ConfigError(format("`task.label_smoothing` is {}; it must be at least 0 and below 1", share));
}

}  // namespace stoa
