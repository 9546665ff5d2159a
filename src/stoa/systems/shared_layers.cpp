#include "stoa/systems/shared_layers.h"

#include <ATen/ATen.h>
#include <torch/nn/modules/normalization.h>

#include <algorithm>
#include <string>

#include "stoa/base/format.h"

namespace stoa {
namespace {

std::vector<std::string> numbered(const char* what, std::int64_t number) {
  std::vector<std::string> names;
  for (std::int64_t i = 0; i < number; ++i) names.push_back(format("{} {}", what, i + 1));
  return names;
}

std::vector<double> values(const at::Tensor& tensor) {
  const auto flat = tensor.detach().to(at::kCPU, at::kDouble).contiguous().flatten();
  return {flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel()};
}

}  // namespace

at::Tensor ln_spread(const at::Tensor& norms) {
  // over j: mean (a_i - a_j)^2 = (a_i - mean)^2 + variance, coordinate by coordinate
  const auto x = norms.detach().to(at::kDouble);
  const auto from_mean = (x - x.mean(0)).square();
  return (from_mean + from_mean.mean(0)).mean(1);
}

at::Tensor norm_weights(const torch::nn::ModuleList& norms) {
  return norm_weights(norms, {0, static_cast<std::int64_t>(norms->size())});
}

at::Tensor norm_weights(const torch::nn::ModuleList& norms, nn::LayerRange layers) {
  std::vector<at::Tensor> rows;
  for (auto i = layers.begin; i < layers.end; ++i)
    rows.push_back(norms->ptr(static_cast<std::size_t>(i))->as<torch::nn::LayerNorm>()->weight.detach());
  return at::stack(rows);
}

std::vector<Exhibit> shared_layer_exhibits(const std::vector<nn::NamedTensor>& statistics,
                                           const std::vector<std::int64_t>& mixing,
                                           const torch::nn::ModuleList& norm1,
                                           const torch::nn::ModuleList& norm2) {
  std::vector<Exhibit> exhibits;
  for (const auto& item : statistics) {
    if (item.name != "router.load") continue;
    HeatMapExhibit map;
    map.row_title = "layer";
    map.column_title = "expert";
    for (const auto layer : mixing) map.rows.push_back(format("layer {}", layer + 1));
    map.columns = numbered("expert", item.value.size(1));
    map.values = values(item.value);
    map.percent = true;
    exhibits.push_back(
        {"Experts by depth",
         "Share of each layer's assignments (row) that each expert (column) takes on the test data. Equal "
         "cells mean balance; rows that differ mean that depths use the shared experts differently.",
         map});
  }
  if (norm1->size() > 1) {
    const auto spread = [&](const char* statistic, const torch::nn::ModuleList& norms) {
      const auto given = std::ranges::find(statistics, statistic, &nn::NamedTensor::name);
      const auto by_layer = given == statistics.end() ? ln_spread(norm_weights(norms)) : given->value;
      return format("{:.3e}", by_layer.mean().item<double>());
    };
    TableExhibit table;
    table.headings = {"layer norms", "spread between layers"};
    table.rows = {{"before attention", spread("norm1.spread", norm1)},
                  {"before the perceptron or mixture", spread("norm2.spread", norm2)}};
    exhibits.push_back(
        {"Layer norms",
         "Mean squared difference of layer-norm weights between layers: what the layers of a shared model "
         "have of their own.",
         table});
  }
  return exhibits;
}

}  // namespace stoa
