#pragma once

#include "stoa/train/task.h"

namespace stoa {

/// Every pair of task and model that recipes can name. A new system adds its line here and nowhere else.
const Catalog& catalog();

}  // namespace stoa
