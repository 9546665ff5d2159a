#include "stoa/nn/tying.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"

namespace stoa::nn {
namespace {

/// Sum of share * module over modules of equal shapes.
Weights blend(const std::vector<std::pair<const Weights*, double>>& terms, const std::string& list) {
  Weights sum;
  for (const auto& [name, first] : *terms.front().first) {
    at::Tensor total;
    for (const auto& [module, share] : terms) {
      const auto found = module->find(name);
      if (found == module->end() || found->second.sizes() != first.sizes())
        throw DataError(format(
            "the layers of `{}` differ in `{}`; only layers of equal shapes can become one", list, name));
      const auto term = found->second.to(at::kDouble) * share;
      total = total.defined() ? total + term : term;
    }
    sum[name] = total.to(first.scalar_type());
  }
  return sum;
}

std::size_t count(const std::vector<std::vector<std::int64_t>>& served) {
  std::size_t layers = 0;
  for (const auto& own : served) layers += own.size();
  return layers;
}

/// The layers renumbered from 0, in order: for modules that only some of the layers have.
std::vector<std::vector<std::int64_t>> ranks(std::vector<std::vector<std::int64_t>> served) {
  std::vector<std::int64_t> all;
  for (const auto& own : served) all.insert(all.end(), own.begin(), own.end());
  std::ranges::sort(all);
  for (auto& own : served)
    for (auto& layer : own) layer = std::ranges::lower_bound(all, layer) - all.begin();
  return served;
}

Weights average(const std::vector<Weights>& trained, const std::vector<std::int64_t>& layers,
                const std::string& list) {
  std::vector<std::pair<const Weights*, double>> terms;
  for (const auto layer : layers)
    terms.emplace_back(&trained[static_cast<std::size_t>(layer)], 1.0 / static_cast<double>(layers.size()));
  return blend(terms, list);
}

Weights interpolate(const std::vector<Weights>& trained, const std::vector<std::int64_t>& layers,
                    std::int64_t depth, const std::string& list) {
  double middle = 0;
  for (const auto layer : layers)
    middle += (static_cast<double>(layer) + 0.5) / static_cast<double>(layers.size());
  const double last = static_cast<double>(trained.size() - 1);
  const double place =
      std::clamp(middle / static_cast<double>(depth) * static_cast<double>(trained.size()) - 0.5, 0.0, last);
  const double below = std::floor(place), share = place - below;
  const auto at = [&](double i) { return &trained[static_cast<std::size_t>(i)]; };
  return blend({{at(below), 1 - share}, {at(std::min(below + 1, last)), share}}, list);
}

}  // namespace

std::vector<Weights> take_modules(Weights& weights, const std::string& list) {
  std::vector<Weights> modules;
  for (std::size_t number = 0;; ++number) {
    const std::string prefix = format("{}.{}.", list, number);
    Weights module;
    for (auto item = weights.lower_bound(prefix); item != weights.end() && item->first.starts_with(prefix);
         item = weights.erase(item))
      module[item->first.substr(prefix.size())] = item->second;
    if (module.empty()) break;
    modules.push_back(std::move(module));
  }
  const auto rest = weights.lower_bound(list + ".");
  if (rest != weights.end() && rest->first.starts_with(list + "."))
    throw DataError(
        format("tensor `{}` is there, but not those of `{}.{}`", rest->first, list, modules.size()));
  return modules;
}

void put_modules(Weights& weights, const std::string& list, const std::vector<Weights>& modules) {
  for (std::size_t number = 0; number < modules.size(); ++number)
    for (const auto& [name, tensor] : modules[number])
      weights[format("{}.{}.{}", list, number, name)] = tensor;
}

std::vector<Weights> tie_modules(const std::vector<Weights>& trained,
                                 const std::vector<std::vector<std::int64_t>>& served, std::int64_t layers,
                                 Tying tie, const std::string& list) {
  if (trained.size() == served.size()) return trained;
  if (trained.size() == 1) return std::vector<Weights>(served.size(), trained.front());
  if (trained.empty())
    throw ConfigError(format(
        "the weights have no `{0}`, the model has {1}; name a relative's weights, or keep the drawn ones "
        "with `initial.fresh` = [\"{0}\"]",
        list, served.size()));
  const bool one_a_layer = static_cast<std::int64_t>(trained.size()) == layers;
  if (one_a_layer && std::ranges::all_of(served, [](const auto& own) { return own.size() == 1; }))
    tie = Tying::kFirst;
  const bool each = trained.size() == count(served);  // one of every layer that has such a module at all
  if (!each && !one_a_layer && tie != Tying::kInterpolate)
    throw ConfigError(
        format("the weights have {} modules `{}`, the model has {} for {} layers; only `initial.tie` = "
               "\"interpolate\" makes the one from the other",
               trained.size(), list, served.size(), count(served)));
  if (tie == Tying::kRefuse)
    throw ConfigError(
        format("the weights have {} modules `{}`, the model has {}; choose how layers become one with "
               "`initial.tie`: \"average\", \"first\" or \"interpolate\"",
               trained.size(), list, served.size()));
  std::vector<Weights> tied;
  for (const auto& own : each ? ranks(served) : served) {
    if (tie == Tying::kAverage) tied.push_back(average(trained, own, list));
    if (tie == Tying::kFirst) tied.push_back(trained[static_cast<std::size_t>(own.front())]);
    if (tie == Tying::kInterpolate)
      tied.push_back(interpolate(trained, own, each ? std::ssize(trained) : layers, list));
  }
  return tied;
}

}  // namespace stoa::nn
