#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "stoa/nn/moe/router.h"

// What routers say on its way to the stage with the last layers, where the losses are made (pipeline
// parallelism).
namespace stoa::nn {

/// Numbers in the statistics of one call on one routing group.
std::int64_t statistics_size(const RouterOptions& options);

/// The statistics of calls on one routing group each, end to end: [calls * statistics_size()] of type `type`.
/// Differentiable; `kept` is left out. Throws ShapeError for several groups.
at::Tensor statistics_row(const std::vector<RoutingStatistics>& calls, const RouterOptions& options,
                          at::ScalarType type);

/// What statistics_row() was made of.
std::vector<RoutingStatistics> statistics_of(const at::Tensor& row, const RouterOptions& options);

}  // namespace stoa::nn
