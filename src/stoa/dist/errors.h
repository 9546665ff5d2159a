#pragma once

#include <exception>
#include <string>

#include "stoa/base/errors.h"

namespace stoa::dist {

/// Processes that should work together and do not: one ended, hangs, differs or never came. The line names
/// rank, group, operation, what happened and what to try. Exit code 1.
class DistributedError : public Error {
 public:
  using Error::Error;
};

/// "`doing` failed: no answer within 60 s; ..." from what LibTorch or Gloo threw. `doing` names rank,
/// operation and group.
DistributedError explain_failure(const std::string& doing, const std::exception& error, double timeout_s);

}  // namespace stoa::dist
