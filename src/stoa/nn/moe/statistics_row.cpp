#include "stoa/nn/moe/statistics_row.h"

#include <ATen/ATen.h>

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

std::int64_t statistics_size(const RouterOptions& options) {
  return std::ssize(kByExpert) * options.experts + std::ssize(kScalars);
}

at::Tensor statistics_row(const std::vector<RoutingStatistics>& calls, const RouterOptions& options,
                          at::ScalarType type) {
  std::vector<at::Tensor> values;
  for (const auto& call : calls) {
    for (const auto member : kByExpert) {
      check_shape(call.*member, {1, options.experts}, "statistics of a router's only group");
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

std::vector<RoutingStatistics> statistics_of(const at::Tensor& row, const RouterOptions& options) {
  std::vector<RoutingStatistics> calls;
  const auto size = statistics_size(options);
  for (std::int64_t begin = 0; begin < row.numel(); begin += size) {
    auto place = begin;
    auto& call = calls.emplace_back();
    for (const auto member : kByExpert) {
      call.*member = row.narrow(0, place, options.experts).unsqueeze(0);
      place += options.experts;
    }
    for (const auto member : kScalars) call.*member = row[place++];
    for (const auto member :
         {&RoutingStatistics::fraction, &RoutingStatistics::drop_rate, &RoutingStatistics::entropy})
      call.*member = (call.*member).detach();
  }
  return calls;
}

}  // namespace stoa::nn
