#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "stoa/nn/moe/expert_exchange.h"
#include "stoa/nn/moe/router.h"

// What routers say on its way to the stage with the last layers, where the losses are made (pipeline
// parallelism).
namespace stoa::nn {

/// How many routing groups the statistics of one call are of, for a batch of so many samples. Where other
/// processes have parts of that batch, which `exchange` reaches (null for none), all of them make this call.
std::int64_t routing_groups(std::int64_t samples, const RouterOptions& options,
                            const ExpertExchange* exchange);

/// Numbers in the statistics of one call.
std::int64_t statistics_size(const RouterOptions& options, std::int64_t groups = 1);

/// The statistics of calls, end to end: [calls * statistics_size()] of type `type`. Differentiable; `kept` is
/// left out. Throws ShapeError for calls on different numbers of groups.
at::Tensor statistics_row(const std::vector<RoutingStatistics>& calls, const RouterOptions& options,
                          at::ScalarType type);

/// What statistics_row() was made of.
std::vector<RoutingStatistics> statistics_of(const at::Tensor& row, const RouterOptions& options,
                                             std::int64_t groups = 1);

}  // namespace stoa::nn
