#include "stoa/train/metrics.h"

#include <algorithm>
#include <limits>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/text.h"

namespace stoa {
namespace {

auto find(auto& items, const std::string& name) {
  return std::ranges::find_if(items, [&](const auto& item) { return item.first == name; });
}

}  // namespace

void Metrics::set(const std::string& name, double value) {
  if (const auto item = find(items_, name); item != items_.end())
    item->second = value;
  else
    items_.emplace_back(name, value);
}

bool Metrics::has(const std::string& name) const {
  return find(items_, name) != items_.end();
}

double Metrics::operator[](const std::string& name) const {
  if (const auto item = find(items_, name); item != items_.end()) return item->second;
  std::vector<std::string> names;
  for (const auto& item : items_) names.push_back(item.first);
  throw Error(format("there is no metric `{}`{}", name, suggestion(name, names)));
}

Json Metrics::to_json() const {
  Json json = Json::object();
  for (const auto& [name, value] : items_) json[name] = value;
  return json;
}

Metrics Metrics::from_json(const Json& json) {
  Metrics metrics;
  for (const auto& [name, value] : json.items())
    if (value.is_number())
      metrics.set(name, value.get<double>());
    else if (value.is_null())  // JSON's form of a number that is not finite
      metrics.set(name, std::numeric_limits<double>::quiet_NaN());
  return metrics;
}

std::string Metrics::text() const {
  std::vector<std::string> parts;
  for (const auto& [name, value] : items_) parts.push_back(format("{} {:.4g}", name, value));
  return join(parts, ", ");
}

}  // namespace stoa
