#include "stoa/dist/mesh.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/text.h"

namespace stoa::dist {
namespace {

/// What the ranks of one group of this kind have in common: equal numbers for equal groups.
std::array<std::int64_t, 4> common(const MeshShape& shape, GroupKind kind, const Coordinates& at) {
  switch (kind) {
    case GroupKind::kPipeline:
      return {at.data, at.sequence, at.tensor, 0};
    case GroupKind::kData:
      return {at.pipeline, at.sequence, at.tensor, 0};
    case GroupKind::kSequence:
      return {at.pipeline, at.data, at.tensor, 0};
    case GroupKind::kTensor:
      return {at.pipeline, at.data, at.sequence, 0};
    case GroupKind::kDataSequence:
      return {at.pipeline, at.tensor, 0, 0};
    case GroupKind::kStage:
      return {at.pipeline, 0, 0, 0};
    case GroupKind::kExpert:
      return {at.pipeline, at.data / shape.expert, at.sequence, at.tensor};
    case GroupKind::kExpertData:
      return {at.pipeline, at.data % shape.expert, at.sequence, at.tensor};
  }
  return {};
}

}  // namespace

void ParallelOptions::visit(FieldVisitor& v) {
  v.field("data", data,
          "replicas of the model, each with its part of the batch; 0: as many as the others leave");
  v.field("sequence", sequence, "parts into which every sequence is cut");
  v.choice("attention", attention,
           {{"ring", SequenceMethod::kRing},
            {"rsa", SequenceMethod::kRsa},
            {"ulysses", SequenceMethod::kUlysses},
            {"hybrid", SequenceMethod::kHybrid},
            {"gather_kv", SequenceMethod::kGatherKv}},
           "how the parts of a sequence attend to one another");
  v.choice("order", order,
           {{"contiguous", TokenOrder::kContiguous},
            {"zigzag", TokenOrder::kZigzag},
            {"striped", TokenOrder::kStriped}},
           "which tokens each part holds; zigzag and striped give causal models equal work");
  v.choice("uneven", uneven, {{"pad", UnevenLength::kPad}, {"refuse", UnevenLength::kRefuse}},
           "a `data.length` that the parts cannot share equally: pad each batch to the next that they can, "
           "or refuse it");
  v.field("ulysses", ulysses, "hybrid: consecutive parts that share out heads; a ring joins the others");
  v.field("tensor", tensor, "parts into which weight matrices are cut");
  v.field("pipeline", pipeline, "stages of consecutive blocks");
  v.field("expert", expert,
          "consecutive replicas among which the experts of a mixture are dealt out; divides data");
  v.field(
      "zero", zero,
      "what replicas share instead of each holding it: 1 optimiser states, 2 gradients too, 3 weights too");
  v.field("timeout", timeout, "seconds for which a process waits for the others");
}

void ParallelOptions::validate() const {
  const std::pair<const char*, std::int64_t> degrees[] = {
      {"data", data}, {"sequence", sequence}, {"tensor", tensor}, {"pipeline", pipeline}, {"expert", expert}};
  constexpr std::int64_t kMost = 1 << 20;  // their product then fits
  std::int64_t processes = 1;
  for (const auto& [name, value] : degrees) {
    const bool derived = value == 0 && name == std::string_view("data");
    if (derived) continue;
    if (value < 1 || value > kMost)
      throw ConfigError(
          format("`parallel.{}` is {}; it must be 1 or more, and 1048576 at most", name, value));
    if (name != std::string_view("expert")) processes *= value;
    if (processes > kMost)
      throw ConfigError(
          format("[parallel] asks for pipeline {} x data {} x sequence {} x tensor {} processes; "
                 "1048576 are the most",
                 pipeline, data, sequence, tensor));
  }
  if (data % expert != 0)
    throw ConfigError(
        format("`parallel.expert` is {}; it must divide `parallel.data`, which is {}", expert, data));
  if (ulysses < 1 || sequence % ulysses != 0)
    throw ConfigError(format("`parallel.ulysses` is {}; it must divide `parallel.sequence`, which is {}",
                             ulysses, sequence));
  if (zero < 0 || zero > 3) throw ConfigError(format("`parallel.zero` is {}; it must be from 0 to 3", zero));
  if (!(timeout > 0) || !std::isfinite(timeout))
    throw ConfigError(format("`parallel.timeout` is {}; it must be over 0 seconds", timeout));
}

ParallelOptions ParallelOptions::for_processes(std::int64_t processes) const {
  auto options = *this;
  if (data == 0) options.data = std::max<std::int64_t>(1, processes / (sequence * tensor * pipeline));
  options.validate();
  return options;
}

ParallelOptions ParallelOptions::refitted(std::int64_t processes) const {
  auto options = *this;
  options.data = 0;
  if (processes % (sequence * tensor * pipeline) != 0)
    options.sequence = options.tensor = options.pipeline = options.ulysses = 1;
  if (processes / (options.sequence * options.tensor * options.pipeline) % expert != 0) options.expert = 1;
  return options;
}

const char* name_of(GroupKind kind) {
  constexpr const char* kNames[] = {"pipeline",      "data",  "sequence", "tensor",
                                    "data_sequence", "stage", "expert",   "expert_data"};
  static_assert(std::size(kNames) == kGroupKinds.size());
  return kNames[static_cast<std::size_t>(kind)];
}

Coordinates coordinates_of(const MeshShape& shape, std::int64_t rank) {
  Coordinates at;
  at.tensor = rank % shape.tensor;
  rank /= shape.tensor;
  at.sequence = rank % shape.sequence;
  rank /= shape.sequence;
  at.data = rank % shape.data;
  at.pipeline = rank / shape.data;
  return at;
}

std::int64_t rank_of(const MeshShape& shape, const Coordinates& at) {
  return ((at.pipeline * shape.data + at.data) * shape.sequence + at.sequence) * shape.tensor + at.tensor;
}

std::vector<std::vector<int>> groups_of(const MeshShape& shape, GroupKind kind) {
  std::vector<std::vector<int>> groups;
  std::map<std::array<std::int64_t, 4>, std::size_t> place;
  for (std::int64_t rank = 0; rank < shape.size(); ++rank) {
    const auto [at, added] = place.emplace(common(shape, kind, coordinates_of(shape, rank)), groups.size());
    if (added) groups.emplace_back();
    groups[at->second].push_back(static_cast<int>(rank));
  }
  return groups;
}

Mesh::Mesh(World& world, const ParallelOptions& asked) : world_(world.all_shared()) {
  asked.validate();
  const auto options = asked.for_processes(world.size());
  shape_ = {options.pipeline, options.data, options.sequence, options.tensor, options.expert};
  if (shape_.size() != world.size())
    throw ConfigError(
        format("{} processes run, but [parallel] asks for pipeline {} x data {} x sequence {} x tensor "
               "{} = {}; start as many, or change one of them",
               world.size(), shape_.pipeline, shape_.data, shape_.sequence, shape_.tensor, shape_.size()));
  place_ = coordinates_of(shape_, world.rank());
  for (const GroupKind kind : kGroupKinds)
    for (const auto& ranks : groups_of(shape_, kind))
      if (auto group = world.make_group(name_of(kind), ranks))
        groups_[static_cast<std::size_t>(kind)] = group;
}

std::string Mesh::table() const {
  return mesh_table(shape_);
}

std::string mesh_table(const MeshShape& shape) {
  std::string text = "rank  pipeline  data  sequence  tensor\n";
  for (std::int64_t rank = 0; rank < shape.size(); ++rank) {
    const auto at = coordinates_of(shape, rank);
    text += format("{:4}  {:8}  {:4}  {:8}  {:6}\n", rank, at.pipeline, at.data, at.sequence, at.tensor);
  }
  for (const GroupKind kind : kGroupKinds) {
    text += format("{:13}", name_of(kind));
    for (const auto& group : groups_of(shape, kind)) {
      std::vector<std::string> ranks;
      for (const int rank : group) ranks.push_back(format("{}", rank));
      text += " {" + join(ranks, " ") + "}";
    }
    text += "\n";
  }
  return text;
}

}  // namespace stoa::dist
