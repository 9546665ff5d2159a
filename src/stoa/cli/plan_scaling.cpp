#include "stoa/cli/plan_scaling.h"

#include <cmath>

#include "stoa/base/format.h"
#include "stoa/base/text.h"
#include "stoa/cli/table.h"

namespace stoa::cli {
namespace {

using Rows = std::vector<std::vector<std::string>>;

constexpr std::int64_t kMostDevices = 1024;

struct Method {
  ScalingMethod method;
  const char *heading, *key;
};
constexpr Method kMethods[] = {{ScalingMethod::kRing, "ring", "ring"},
                               {ScalingMethod::kAllToAll, "all-to-all", "all_to_all"},
                               {ScalingMethod::kTensor, "tensor", "tensor"},
                               {ScalingMethod::kData, "data", "data"}};

struct Growing {
  Growth growth;
  const char* key;
  std::string heading;
};

std::vector<Growing> growings(const PlanModel& model) {
  return {{Growth::kSequence, "sequence",
           format("Sequences grow: {} x {} tokens for each device", model.batch, model.tokens)},
          {Growth::kBatch, "batch",
           format("Batches grow: {} x {} tokens for each device", model.batch, model.tokens)},
          {Growth::kNothing, "nothing",
           format("The work stays: {} x {} tokens for all devices together", model.batch, model.tokens)}};
}

std::string cell(const ScalingPoint& point) {
  return format("{} {:3.0f} % {:>9}", seconds_text(point.time.total()), 100 * point.efficiency,
                bytes(point.memory.tensors()));
}

Json point_json(const ScalingPoint& point) {
  return {{"seconds", point.time.total()},
          {"efficiency", point.efficiency},
          {"memory", std::llround(point.memory.tensors())}};
}

}  // namespace

BlockTable scaling_table(const PlanModel& model, const PlanMachine& machine, const std::string& speeds) {
  BlockTable table;
  table.json = {{"table", "scaling"},
                {"computed", true},
                {"link_bandwidth", machine.link.bytes_per_s},
                {"link_latency", machine.link.latency_s},
                {"flops", machine.flops},
                {"memory_bandwidth", machine.bandwidth}};
  table.text = format(
      "Computed, not measured: time of a step, share of it that one device without limits would need for its "
      "part of the work, and tensors of a device.\n{}",
      speeds);
  for (const auto& [growth, key, heading] : growings(model)) {
    Rows rows = {{"devices"}};
    for (const auto& method : kMethods) rows[0].emplace_back(method.heading);
    table.json[key] = Json::array();
    for (std::int64_t devices = 1; devices <= kMostDevices; devices *= 2) {
      Json row = {{"devices", devices}};
      std::vector<std::string> cells = {format("{}", devices)};
      for (const auto& method : kMethods) {
        const auto point = scaling_point(model, growth, method.method, devices, machine);
        row[method.key] = point ? point_json(*point) : Json(nullptr);
        cells.push_back(point ? cell(*point) : "-");
      }
      table.json[key].push_back(row);
      rows.push_back(cells);
    }
    table.text += format("\n{}\n\n{}", heading, text_table(rows));
  }
  table.text += "-: heads, samples or tokens are not divided by so many\n";
  return table;
}

}  // namespace stoa::cli
