#pragma once

#include <memory>

namespace stoa::ops {

/// For inference: while it lives, this thread's linear layers and mixtures keep the copies of weights in the
/// order that products of few rows read them, instead of making them anew at every call (layers that share
/// weights share the copy). The weights must neither change nor go meanwhile. Scopes may be nested; the
/// outermost keeps.
class KeepPacked {
 public:
  KeepPacked();
  ~KeepPacked();
  /// Whether this thread is in such a scope.
  static bool active();
  KeepPacked(const KeepPacked&) = delete;
  KeepPacked& operator=(const KeepPacked&) = delete;

 private:
  struct Kept;
  std::unique_ptr<Kept> kept_;
};

}  // namespace stoa::ops
