#include "stoa/cli/plan_text.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "stoa/base/format.h"
#include "stoa/base/text.h"
#include "stoa/cli/table.h"

namespace stoa::cli {
namespace {

using Rows = std::vector<std::vector<std::string>>;

std::vector<std::pair<const char*, double>> parts_of(const PlanMemory& memory) {
  return {{"weights", memory.weights},
          {"gradients", memory.gradients},
          {"optimizer", memory.optimizer},
          {"activations", memory.activations},
          {"work of an operator", memory.work},
          {"message buffers", memory.buffers},
          {"batches", memory.inputs},
          {"room between tensors", memory.spare},
          {"the program itself", memory.program}};
}

std::vector<std::pair<const char*, double>> parts_of(const PlanTime& time) {
  return {{"arithmetic", time.arithmetic},   {"passes over memory", time.memory},
          {"gradient sums", time.gradients}, {"keys and values", time.sequence},
          {"tensor sums", time.tensor},      {"rows to experts", time.expert},
          {"idle stages", time.pipeline}};
}

std::string details(const PlannedSplit& planned) {
  Rows rows = {{"memory when " + planned.memory.moment, ""}};
  for (const auto& [name, value] : parts_of(planned.memory))
    if (value > 0) rows.push_back({name, bytes(value)});
  rows.push_back({});
  rows.push_back({planned.fits ? "total, fits" : "total, does not fit", bytes(planned.memory.total())});
  Rows times = {{"time of a step", ""}};
  for (const auto& [name, value] : parts_of(planned.time))
    if (value > 0) times.push_back({name, seconds_text(value)});
  times.push_back({});
  times.push_back({"total", seconds_text(planned.time.total())});
  return text_table(rows) + "\n" + text_table(times);
}

std::string flags_of(const Split& split) {
  std::string text = format("{}", split.micro_batch);
  return split.recompute ? text + " again" : text;
}

}  // namespace

std::string seconds_text(double seconds) {
  if (seconds >= 100) return duration(seconds);
  if (seconds >= 1) return format("{:.1f} s", seconds);
  if (seconds >= 1e-3) return format("{:.3g} ms", 1e3 * seconds);
  return format("{:.3g} us", 1e6 * seconds);
}

std::string plan_text(const std::vector<PlannedSplit>& splits, std::size_t most) {
  if (splits.size() == 1 && splits[0].split.devices() == 1) return details(splits[0]);
  const std::size_t shown = most == 0 ? splits.size() : std::min(most, splits.size());
  bool again = false, marked = false;
  // the last column is text, flush left
  std::string heading = "what limits it";
  std::size_t widest = heading.size();
  for (std::size_t i = 0; i < shown; ++i) widest = std::max(widest, splits[i].reason.size());
  heading.resize(widest, ' ');
  const bool experts = std::ranges::any_of(splits, [](const auto& s) { return s.split.expert > 1; });
  Rows rows = {{"data", "sequence", "tensor", "pipeline", "expert", "zero", "micro-batch", "memory", "a step",
                "today", heading}};
  for (std::size_t i = 0; i < shown; ++i) {
    const auto& [split, memory, time, fits, refused, reason] = splits[i];
    again = again || split.recompute;
    marked = marked || !refused.empty();
    const auto padded = reason + std::string(widest - reason.size(), ' ');
    rows.push_back({format("{}", split.data), format("{}", split.sequence), format("{}", split.tensor),
                    format("{}", split.pipeline), format("{}", split.expert), format("{}", split.zero),
                    flags_of(split), bytes(memory.total()), fits ? seconds_text(time.total()) : "too large",
                    refused.empty() ? "runs" : "computed", padded});
  }
  constexpr std::ptrdiff_t kExpert = 4;
  if (!experts)
    for (auto& row : rows) row.erase(row.begin() + kExpert);
  std::string text = text_table(rows);
  if (shown < splits.size()) text += format("{} more splits: --all\n", splits.size() - shown);
  if (again) text += "again: blocks are run again in the backward pass (model.recompute)\n";
  if (marked) text += "computed: `stoa train` cannot run this split yet\n";
  return text;
}

Json plan_json(const std::vector<PlannedSplit>& splits) {
  Json list = Json::array();
  for (const auto& [split, memory, time, fits, refused, reason] : splits) {
    list.push_back({{"data", split.data},
                    {"sequence", split.sequence},
                    {"tensor", split.tensor},
                    {"pipeline", split.pipeline},
                    {"expert", split.expert},
                    {"zero", split.zero},
                    {"micro_batch", split.micro_batch},
                    {"recompute", split.recompute},
                    {"fits", fits},
                    {"runs_today", refused.empty()},
                    {"reason", reason},
                    {"memory",
                     {{"total", std::llround(memory.total())},
                      {"moment", memory.moment},
                      {"weights", std::llround(memory.weights)},
                      {"gradients", std::llround(memory.gradients)},
                      {"optimizer", std::llround(memory.optimizer)},
                      {"activations", std::llround(memory.activations)},
                      {"work", std::llround(memory.work)},
                      {"buffers", std::llround(memory.buffers)},
                      {"inputs", std::llround(memory.inputs)},
                      {"spare", std::llround(memory.spare)},
                      {"program", std::llround(memory.program)}}},
                    {"seconds",
                     {{"total", time.total()},
                      {"arithmetic", time.arithmetic},
                      {"memory", time.memory},
                      {"gradients", time.gradients},
                      {"sequence", time.sequence},
                      {"tensor", time.tensor},
                      {"expert", time.expert},
                      {"pipeline", time.pipeline}}}});
    if (!refused.empty()) list.back()["refused"] = refused;
  }
  return list;
}

std::string command_of(const std::string& recipe, const PlanModel& model, const Split& split) {
  std::string text = split.devices() > 1 ? format("stoa launch -n {} -- train {}", split.devices(), recipe)
                                         : "stoa train " + recipe;
  const auto set = [&](const char* key, std::int64_t value, std::int64_t usual) {
    if (value != usual) text += format(" --set {}={}", key, value);
  };
  const auto& now = model.parallel;
  // 0 takes what the others leave
  set("parallel.data", now.data == 0 ? 0 : split.data, now.data);
  set("parallel.sequence", split.sequence, now.sequence);
  set("parallel.tensor", split.tensor, now.tensor);
  set("parallel.pipeline", split.pipeline, now.pipeline);
  set("parallel.expert", split.expert, now.expert);
  set("parallel.zero", split.zero, now.zero);
  const std::int64_t share = (model.batch + split.data - 1) / split.data;
  if (split.micro_batch < std::min(share, model.micro_batch))
    text += format(" --set train.micro_batch_size={}", split.micro_batch);
  if (split.recompute && !model.recomputes) text += " --set model.recompute=true";
  return text;
}

namespace {

struct Column {
  const char* heading;
  const char* key;
  std::function<double(const dist::BlockShape&)> value;
};

std::vector<Column> columns_of(const std::string& kind, double memory) {
  using dist::BlockMethod;
  if (kind == "mlp")
    return {{"tensor", "tensor", dist::mlp_by_tensor}, {"sequence", "sequence", dist::mlp_by_sequence}};
  if (kind == "attention")
    return {{"tensor", "tensor", dist::attention_by_tensor},
            {"RSA", "rsa", dist::attention_by_rsa},
            {"ring", "ring", dist::attention_by_ring},
            {"Linformer", "linformer", dist::linformer_by_sequence}};
  const auto longest = [memory](BlockMethod method) {
    return [method, memory](const dist::BlockShape& shape) {
      constexpr double kStep = 1024;
      return longest_sequence(method, shape, memory, kStep);
    };
  };
  return {{"tensor, scores kept", "tensor_scores", longest(BlockMethod::kTensorScores)},
          {"tensor, tiled", "tensor_tiled", longest(BlockMethod::kTensorTiled)},
          {"RSA", "rsa", longest(BlockMethod::kRsa)},
          {"ring", "ring", longest(BlockMethod::kRing)}};
}

}  // namespace

BlockTable block_table(const std::string& kind, const dist::BlockShape& shape, double memory) {
  constexpr std::int64_t kMostRanks = 1024;
  const auto columns = columns_of(kind, memory);
  const bool length = kind == "length";
  BlockTable table;
  table.json = {{"table", kind},        {"computed", true},     {"batch", shape.batch},
                {"width", shape.width}, {"heads", shape.heads}, {"head_dim", shape.head_dim},
                {"rows", Json::array()}};
  if (length)
    table.json["memory"] = memory;
  else
    table.json["length"] = shape.length;
  Rows rows = {{"ranks"}};
  for (const auto& column : columns) rows[0].emplace_back(column.heading);
  for (std::int64_t ranks = 1; ranks <= kMostRanks; ranks *= 2) {
    auto at = shape;
    at.ranks = static_cast<double>(ranks);
    Json row = {{"ranks", ranks}};
    std::vector<std::string> cells = {format("{}", ranks)};
    for (const auto& column : columns) {
      // heads are dealt out whole; and every rank needs a token
      const bool by_heads = std::string(column.key).starts_with("tensor");
      const bool none = (by_heads && std::fmod(shape.heads, at.ranks) != 0) ||
                        (!by_heads && !length && at.ranks > shape.length);
      const double value = none ? 0 : column.value(at);
      row[column.key] = none ? Json(nullptr) : Json(std::llround(value));
      cells.push_back(none ? "-" : length ? thousands(std::llround(value)) : format("{:.2f} M", value / 1e6));
    }
    table.json["rows"].push_back(row);
    rows.push_back(cells);
  }
  const auto dimensions = format("batch {:.0f}, width {:.0f}, {:.0f} heads of {:.0f}", shape.batch,
                                 shape.width, shape.heads, shape.head_dim);
  table.text = length
                   ? format("Longest sequence whose attention block fits into {} a rank; {}. Computed.\n\n",
                            bytes(memory), dimensions)
                   : format(
                         "Numbers that one {} block holds on a rank, weights counted four times; {}, "
                         "sequences of {:.0f}. Computed.\n\n",
                         kind, dimensions, shape.length);
  table.text += text_table(rows);
  table.text += "-: there are not so many heads to deal out, or tokens\n";
  return table;
}

}  // namespace stoa::cli
