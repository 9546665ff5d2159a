#pragma once

#include <ATen/record_function.h>

namespace stoa::nn {

/// Names the part of a model whose forward pass runs in its scope, as ModelPart::name does ("attention",
/// "experts"), for `stoa train --profile` and for every profiler of LibTorch: the operators of the scope, and
/// the backward pass of what they computed, count as the part's; of nested scopes the inner one counts. Costs
/// nanoseconds where nobody records.
class PartScope {
 public:
  explicit PartScope(const char* name) : record_(at::RecordScope::USER_SCOPE) {
    if (record_.isActive()) record_.before(name);
  }

 private:
  at::RecordFunction record_;
};

/// What `work` returns, done as the part `name`.
template <class Work>
auto in_part(const char* name, const Work& work) {
  const PartScope part(name);
  return work();
}

}  // namespace stoa::nn
