#include "stoa/train/profile.h"

#include <algorithm>
#include <map>
#include <string_view>
#include <unordered_map>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/train/phase_scope.h"

namespace stoa {
namespace {

using Events = std::vector<RecordedEvent>;
using Kind = RecordedEvent::Kind;

constexpr int kNone = -1;  // no phase, no part

/// Index of the phase that a scope names.
int phase_of(const RecordedEvent& event) {
  const auto found = std::ranges::find(kPhaseNames, std::string_view(event.name));
  return event.kind == Kind::kScope && found != kPhaseNames.end()
             ? static_cast<int>(found - kPhaseNames.begin())
             : kNone;
}
bool is(int phase, Phase other) {
  return phase == static_cast<int>(other);
}
bool is_step(const RecordedEvent& event) {
  return event.kind == Kind::kScope && event.name == kStepName;
}

/// Names of parts, in the order they begin; their numbers.
class PartNames {
 public:
  int number(const std::string& name) {
    const auto [entry, fresh] = numbers_.try_emplace(name, static_cast<int>(names_.size()));
    if (fresh) names_.push_back(name);
    return entry->second;
  }
  const std::vector<std::string>& names() const { return names_; }

 private:
  std::map<std::string, int> numbers_;
  std::vector<std::string> names_;
};

/// Which part's scope was open when a thread gave one of autograd's numbers.
class PartsByNumber {
 public:
  PartsByNumber(const Events& events, PartNames& names) {
    std::vector<Open> open;                        // scopes around the present one, the innermost last
    std::vector<int> scope(events.size(), kNone);  // innermost scope an event is in, itself included
    const auto close = [&] {
      const Open last = open.back();
      open.pop_back();
      const RecordedEvent& event = events[static_cast<std::size_t>(last.event)];
      add(event.thread, event.sequence_end, open.empty() ? kNone : open.back().part);
    };
    for (std::size_t i = 0; i < events.size(); ++i) {
      const auto& event = events[i];
      const int around = event.parent < 0 ? kNone : scope[static_cast<std::size_t>(event.parent)];
      scope[i] = event.kind == Kind::kScope ? static_cast<int>(i) : around;
      if (event.kind != Kind::kScope) continue;
      while (!open.empty() && open.back().event != around) close();
      const bool names_part = !is_step(event) && phase_of(event) == kNone;
      const int part = names_part ? names.number(event.name) : open.empty() ? kNone : open.back().part;
      open.push_back({static_cast<int>(i), part});
      add(event.thread, event.sequence, part);
    }
    while (!open.empty()) close();
  }

  int part(std::uint64_t thread, std::int64_t number) const {
    const auto found = by_thread_.find(thread);
    if (found == by_thread_.end()) return kNone;
    const auto after = std::ranges::upper_bound(found->second, number, {}, &Boundary::first);
    return after == found->second.begin() ? kNone : std::prev(after)->part;
  }

 private:
  struct Open {
    int event, part;
  };
  struct Boundary {
    std::int64_t first;  // number from which on `part` holds
    int part;
  };
  void add(std::uint64_t thread, std::int64_t first, int part) {
    by_thread_[thread].push_back({first, part});
  }

  std::map<std::uint64_t, std::vector<Boundary>> by_thread_;
};

/// What an event counts as.
struct Owner {
  int phase = kNone, part = kNone;
};

bool is_engine(const RecordedEvent& event) {
  return event.name.starts_with(kEngineWork);
}

/// The number of each node and the thread that gave it; the engine's work around a node has the node's.
struct Number {
  std::int64_t number = -1;
  std::uint64_t thread = 0;
};
std::vector<Number> numbers_of(const Events& events) {
  std::vector<Number> numbers(events.size());
  for (std::size_t i = 0; i < events.size(); ++i) {
    const auto& event = events[i];
    if (event.kind != Kind::kNode || event.sequence < 0) continue;
    numbers[i] = {event.sequence, event.forward_thread != 0 ? event.forward_thread : event.thread};
    const auto around = static_cast<std::size_t>(event.parent);
    if (event.parent >= 0 && is_engine(events[around])) numbers[around] = numbers[i];
  }
  return numbers;
}

std::vector<Owner> owners_of(const Events& events, PartNames& names) {
  const PartsByNumber parts(events, names);
  const auto numbers = numbers_of(events);
  std::vector<Owner> owners(events.size());
  int last = kNone;  // part of the latest numbered node
  for (std::size_t i = 0; i < events.size(); ++i) {
    const auto& event = events[i];
    Owner& owner = owners[i];
    if (event.parent >= 0) owner = owners[static_cast<std::size_t>(event.parent)];
    if (event.kind == Kind::kNode) {
      if (numbers[i].number >= 0) last = parts.part(numbers[i].thread, numbers[i].number);
      owner.part = last;
    } else if (const int phase = phase_of(event); phase != kNone) {
      owner.phase = phase;
    } else if (event.kind == Kind::kScope && !is_step(event)) {
      owner.part = names.number(event.name);
    }
  }
  return owners;
}

/// Nanoseconds of each event that are not its children's.
std::vector<std::int64_t> own_times(const Events& events) {
  std::vector<std::int64_t> own;
  for (const auto& event : events) {
    own.push_back(event.end - event.start);
    if (event.parent >= 0) own[static_cast<std::size_t>(event.parent)] -= event.end - event.start;
  }
  return own;
}

/// "aten::mm" as it is; a node of the backward pass without LibTorch's frame around its name: "MmBackward0",
/// and of Stoa's own operators "LinearFunction backward". What runs outside all operators counts as its
/// phase's.
std::string operator_name(const RecordedEvent& event, const Owner& owner) {
  std::string_view name = event.name;
  if (event.kind == Kind::kScope)
    return format("{}, outside operators",
                  owner.phase == kNone ? kStepName : kPhaseNames[static_cast<std::size_t>(owner.phase)]);
  if (event.kind == Kind::kOperator) return event.name;
  for (const std::string_view prefix : {kEngineWork, std::string_view("torch::autograd::")})
    if (name.starts_with(prefix)) name.remove_prefix(prefix.size());
  if (!name.starts_with("CppNode<")) return std::string(name);
  name = name.substr(0, name.rfind('>'));
  return std::string(name.substr(name.find_last_of(":<") + 1)) + " backward";
}

/// The event that an allocation is told of: what called the operator that does nothing but make tensors.
std::size_t taker(const Events& events, int event) {
  const auto makes_tensors = [&](int index) {
    const auto& name = events[static_cast<std::size_t>(index)].name;
    return name.starts_with("aten::empty") || name.starts_with("aten::zeros") ||
           name.starts_with("aten::new_");
  };
  while (makes_tensors(event)) {
    const int caller = events[static_cast<std::size_t>(event)].parent;
    if (caller < 0 || events[static_cast<std::size_t>(caller)].kind == Kind::kScope) break;
    event = caller;
  }
  return static_cast<std::size_t>(event);
}

/// The rows of the table of parts.
class Parts {
 public:
  explicit Parts(const std::vector<std::string>& names)
      : model_(names.size() + 1), phases_(kPhaseNames.size()) {
    for (std::size_t i = 0; i < names.size(); ++i) model_[i].name = names[i];
    model_.back().name = "loss and the rest";
    for (std::size_t i = 0; i < kPhaseNames.size(); ++i) phases_[i].name = kPhaseNames[i];
    other_.name = "other";
  }

  PartProfile& operator[](Owner owner) {
    if (owner.phase == kNone) return other_;
    if (!is(owner.phase, Phase::kForward) && !is(owner.phase, Phase::kBackward))
      return phases_[static_cast<std::size_t>(owner.phase)];
    return owner.part == kNone ? model_.back() : model_[static_cast<std::size_t>(owner.part)];
  }

  std::vector<PartProfile> rows() && {
    std::vector<PartProfile> rows = std::move(model_);
    for (std::size_t i = 0; i < phases_.size(); ++i) {
      const int phase = static_cast<int>(i);
      if (!is(phase, Phase::kForward) && !is(phase, Phase::kBackward)) rows.push_back(outside(phases_[i]));
    }
    rows.push_back(outside(other_));
    return rows;
  }

 private:
  static PartProfile outside(PartProfile row) {
    row.in_model = false;
    return row;
  }

  std::vector<PartProfile> model_, phases_;
  PartProfile other_;
};

/// Adds up what each part's forward pass took and had not given back when the backward pass began, mean of
/// these moments.
void add_kept(const Recording& recording, const std::vector<Owner>& owners, Parts& parts) {
  std::vector<std::int64_t> moments;
  for (const auto& event : recording.events)
    if (is(phase_of(event), Phase::kBackward)) moments.push_back(event.start);
  struct Taken {
    Owner owner;
    std::int64_t bytes;
  };
  std::unordered_map<std::uintptr_t, Taken> held;
  auto memory = recording.memory.begin();
  for (const auto moment : moments) {
    held.clear();  // what is left of an earlier step is not this one's
    for (; memory != recording.memory.end() && memory->time <= moment; ++memory) {
      const Owner owner = memory->event < 0 ? Owner{} : owners[static_cast<std::size_t>(memory->event)];
      if (memory->bytes <= 0)
        held.erase(memory->address);
      else if (is(owner.phase, Phase::kForward))
        held[memory->address] = {owner, memory->bytes};
    }
    for (const auto& [address, taken] : held)
      parts[taken.owner].kept += static_cast<double>(taken.bytes) / static_cast<double>(moments.size());
  }
}

/// The most memory beyond that at a step's start, of all steps.
double tensor_peak(const Recording& recording) {
  std::int64_t held = 0, peak = 0;
  auto memory = recording.memory.begin();
  const auto pass = [&](std::int64_t until, const auto& see) {
    for (; memory != recording.memory.end() && memory->time <= until; ++memory) {
      held += memory->bytes;
      see();
    }
  };
  for (const auto& event : recording.events) {
    if (!is_step(event)) continue;
    pass(event.start, [] {});
    const auto before = held;
    pass(event.end, [&] { peak = std::max(peak, held - before); });
  }
  return static_cast<double>(peak);
}

}  // namespace

Profile summarize(const Recording& recording, const ProfiledRun& run) {
  const Events& events = recording.events;
  Profile profile;
  profile.run = run;
  std::int64_t total = 0;
  for (const auto& event : events) {
    if (!is_step(event)) continue;
    ++profile.steps;
    total += event.end - event.start;
  }
  if (profile.steps == 0) throw Error("the profile holds no step");
  const auto steps = static_cast<double>(profile.steps);
  profile.step_ms = 1e-6 * static_cast<double>(total) / steps;
  profile.tensor_peak = tensor_peak(recording);

  PartNames names;
  const auto owners = owners_of(events, names);
  const auto own = own_times(events);
  Parts parts(names.names());
  std::map<std::string, OperatorProfile> operators;
  for (std::size_t i = 0; i < events.size(); ++i) {
    const double ms = 1e-6 * static_cast<double>(own[i]) / steps;
    PartProfile& part = parts[owners[i]];
    part.ms += ms;
    if (is(owners[i].phase, Phase::kForward)) part.forward_ms += ms;
    if (is(owners[i].phase, Phase::kBackward)) part.backward_ms += ms;
    OperatorProfile& row = operators[operator_name(events[i], owners[i])];
    row.ms += ms;
    if (events[i].kind != Kind::kScope && !is_engine(events[i])) row.calls += 1 / steps;
  }
  for (const auto& memory : recording.memory) {
    if (memory.bytes <= 0 || memory.event < 0) continue;
    const auto event = taker(events, memory.event);
    const double taken = static_cast<double>(memory.bytes) / steps;
    parts[owners[event]].allocated += taken;
    operators[operator_name(events[event], owners[event])].allocated += taken;
  }
  add_kept(recording, owners, parts);
  profile.parts = std::move(parts).rows();
  for (auto& [name, row] : operators) {
    profile.operators.push_back(row);
    profile.operators.back().name = name;
  }
  std::ranges::stable_sort(profile.operators, std::greater(), &OperatorProfile::ms);
  return profile;
}

double Profile::samples_per_second() const {
  return run.step_ms > 0 ? 1e3 * static_cast<double>(run.samples) / run.step_ms : 0;
}

double Profile::gflops() const {
  return 1e-9 * 3 * 2 * static_cast<double>(run.macs) * samples_per_second();
}

}  // namespace stoa
