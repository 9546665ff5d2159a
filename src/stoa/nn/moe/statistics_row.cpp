#include "stoa/nn/moe/statistics_row.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "stoa/nn/moe/joint_routing.h"
#include "stoa/nn/moe/selection.h"
#include "stoa/tensor/shape.h"

namespace stoa::nn {
namespace {

constexpr at::Tensor RoutingStatistics::*kByExpert[] = {&RoutingStatistics::fraction,
                                                        &RoutingStatistics::probability};
/// Some are undefined where no loss is made of them.
constexpr at::Tensor RoutingStatistics::*kScalars[] = {
    &RoutingStatistics::z, &RoutingStatistics::importance, &RoutingStatistics::load_loss,
    &RoutingStatistics::drop_rate, &RoutingStatistics::entropy};

}  // namespace

std::int64_t routing_groups(std::int64_t samples, const RouterOptions& options,
                            const ExpertExchange* exchange) {
  if (options.group_size == 0) return 1;
  if (exchange != nullptr && exchange->parts() > 1) {
    const JointTokens samples_of_all(*exchange, samples, options.group_size, /*finite=*/true, at::kCPU);
    if (samples_of_all.share_groups()) return samples_of_all.all().count();
  }
  return RoutingGroups{samples, std::min(options.group_size, samples)}.count();
}

std::int64_t statistics_size(const RouterOptions& options, std::int64_t groups) {
  return std::ssize(kByExpert) * groups * options.experts + std::ssize(kScalars);
}

at::Tensor statistics_row(const std::vector<RoutingStatistics>& calls, const RouterOptions& options,
                          at::ScalarType type) {
  std::vector<at::Tensor> values;
  for (const auto& call : calls) {
    for (const auto member : kByExpert) {
      check_shape(call.*member, {calls.front().fraction.size(0), options.experts},
                  "statistics of a router, of as many groups as the first call's");
      values.push_back((call.*member).flatten().to(type));
    }
    for (const auto member : kScalars) {
      const auto& value = call.*member;
      values.push_back(value.defined() ? value.reshape({1}).to(type)
                                       : at::zeros({1}, call.fraction.options().dtype(type)));
    }
  }
  return at::cat(values);
}

std::vector<RoutingStatistics> statistics_of(const at::Tensor& row, const RouterOptions& options,
                                             std::int64_t groups) {
  std::vector<RoutingStatistics> calls;
  const auto size = statistics_size(options, groups), by_expert = groups * options.experts;
  for (std::int64_t begin = 0; begin < row.numel(); begin += size) {
    auto place = begin;
    auto& call = calls.emplace_back();
    for (const auto member : kByExpert) {
      call.*member = row.narrow(0, place, by_expert).view({groups, options.experts});
      place += by_expert;
    }
    for (const auto member : kScalars) call.*member = row[place++];
    for (const auto member :
         {&RoutingStatistics::fraction, &RoutingStatistics::drop_rate, &RoutingStatistics::entropy})
      call.*member = (call.*member).detach();
  }
  return calls;
}

}  // namespace stoa::nn
