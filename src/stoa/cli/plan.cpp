// `stoa plan`: which splits of a recipe fit some devices, with memory and time of each.
#include <ATen/ATen.h>
#include <torch/cuda.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <optional>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/interrupt.h"
#include "stoa/base/text.h"
#include "stoa/cli/commands.h"
#include "stoa/cli/doctor_distributed.h"
#include "stoa/cli/measure.h"
#include "stoa/cli/plan_scaling.h"
#include "stoa/cli/plan_text.h"
#include "stoa/cli/plan_units.h"
#include "stoa/cli/recipe_file.h"
#include "stoa/dist/environment.h"
#include "stoa/ops/linear.h"
#include "stoa/systems/catalog.h"
#include "stoa/tensor/host_allocator.h"
#include "stoa/train/plan.h"

namespace stoa::cli {

namespace {

constexpr std::size_t kLines = 10;
constexpr std::int64_t kMostDevices = 1 << 20;
// Found in runs of models of 1 to 30 million parameters: what is held beyond tensors where small ones
// of many sizes come and go, and what a run has beside tensors and what this command loads (data, tokenizers,
// threads, compiled products).
constexpr double kHeapSpare = 0.1, kBesides = 100e6;

struct PlanArguments {
  std::string recipe, memory, bandwidth, latency, memory_bandwidth, table;
  std::vector<std::string> set;
  std::optional<std::int64_t> devices;
  std::optional<double> gflops;
  bool all = false;
};

/// What the command line says of the machine.
struct Given {
  std::optional<double> memory, bandwidth, latency, memory_bandwidth;

  explicit Given(const PlanArguments& arguments) {
    const auto read = [](auto parse, const char* flag, const std::string& text) {
      return text.empty() ? std::nullopt : std::optional<double>(parse(flag, text));
    };
    memory = read(parse_bytes, "--memory", arguments.memory);
    bandwidth = read(parse_rate, "--bandwidth", arguments.bandwidth);
    latency = read(parse_seconds, "--latency", arguments.latency);
    memory_bandwidth = read(parse_rate, "--memory-bandwidth", arguments.memory_bandwidth);
    if (arguments.gflops && !(*arguments.gflops > 0))
      throw ConfigError(format("--gflops is {}; it must be above 0", *arguments.gflops));
  }
};

/// A number and where it is from.
struct Known {
  double value = 0;
  const char* from = "given";
};

struct Machine {
  Known memory, flops, bandwidth, link_bandwidth, link_latency;
  double program = 0, spare = 0;
  bool bf16 = false, gpu = false;

  PlanMachine planned() const {
    return {memory.value, flops.value, bandwidth.value,
            program,      spare,       {link_bandwidth.value, link_latency.value}};
  }
};

/// "VmRSS:  123 kB" of /proc/self/status, or a line of /proc/meminfo, in bytes; 0 where there is no such
/// line.
double line_of(const char* file, const std::string& key) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);)
    if (line.starts_with(key + ":")) return 1024 * std::strtod(line.c_str() + key.size() + 1, nullptr);
  return 0;
}

/// Seconds of one run: of the fastest of some; or, where the processes of a launch share a machine and
/// measure it together, of the run in the middle.
template <class Work>
double seconds_of(const Runtime& runtime, const Work& work, bool together) {
  using Clock = std::chrono::steady_clock;
  const auto wait = [&] {
    if (runtime.device.is_cuda()) torch::cuda::synchronize();
  };
  constexpr std::size_t kRuns = 12;
  constexpr double kBudget = 1;  // seconds
  std::vector<double> runs;
  double spent = 0;
  while ((together || runs.size() < kRuns) && spent < kBudget) {
    if (interrupted()) throw Interrupted("interrupted");
    wait();
    const auto start = Clock::now();
    work();
    wait();
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    runs.push_back(seconds);
    spent += seconds;
  }
  std::ranges::sort(runs);
  return together ? runs[runs.size() / 2] : runs[0];
}

/// Speed of the first product of the recipe's own perceptron, as training makes it.
double product_flops(const Runtime& runtime, const PlanModel& model, bool together) {
  constexpr std::int64_t kFewest = 64, kMost = 4096, kUsual = 1024;
  const bool known = model.width > 0;
  const std::int64_t rows = known ? std::clamp(model.micro_batch * model.tokens, kFewest, kMost) : kUsual;
  const std::int64_t in = known ? model.width : kUsual, out = known ? std::llround(model.hidden) : kUsual;
  const bool rounds = runtime.bf16 && runtime.device.is_cpu();  // in the cache, tensors being fp32
  const auto type = runtime.bf16 && !rounds ? at::kBFloat16 : at::kFloat;
  const auto options = at::TensorOptions(runtime.device).dtype(type);
  const auto x = at::ones({rows, in}, options), w = at::ones({out, in}, options);
  const at::NoGradGuard no_gradients;
  const double seconds = seconds_of(
      runtime, [&] { ops::linear(x, w, {}, ops::Activation::kNone, rounds); }, together);
  return 2.0 * static_cast<double>(rows * in * out) / seconds;
}

/// Bytes that this process takes beside tensors, once it has made some products: much of LibTorch is only
/// loaded when it is used.
double resident_program() {
  release_kept_memory();
  return line_of("/proc/self/status", "VmRSS");
}

double copy_bandwidth(const Runtime& runtime) {
  if (runtime.device.is_cpu()) return 1e9 * measure_copy();
  constexpr std::int64_t kBytes = std::int64_t{1} << 30;
  const auto from = at::ones({kBytes / 4}, runtime.device), to = at::empty_like(from);
  return 2.0 * kBytes /
         seconds_of(
             runtime, [&] { to.copy_(from); }, false);
}

/// What was measured between the processes of a launch.
std::optional<GroupSpeed> measure_link(const PlanArguments& arguments, dist::World* world) {
  if (world == nullptr || !arguments.bandwidth.empty()) return {};
  return measure_group(world->all(), world->all());
}

Machine measure_machine(const PlanArguments& arguments, const Given& given, const PlanModel& model,
                        const Runtime& runtime, dist::World* world) {
  const auto link = measure_link(arguments, world);
  Machine machine;
  machine.bf16 = runtime.bf16;
  machine.gpu = !runtime.device.is_cpu();
  if (machine.gpu && !given.memory)
    throw ConfigError("--memory is needed for a GPU: how much each has, as in --memory 80GiB");
  machine.memory =
      given.memory ? Known{*given.memory} : Known{line_of("/proc/meminfo", "MemTotal"), "this machine's"};
  machine.link_bandwidth = given.bandwidth ? Known{*given.bandwidth}
                           : link          ? Known{1e9 * link->exchange, "measured"}
                                           : Known{1.25e9, "assumed"};
  // an all-reduce of one number passes 2 (ranks - 1) times
  machine.link_latency = given.latency ? Known{*given.latency}
                         : link        ? Known{1e-6 * link->latency_us / (2.0 * (link->size - 1)), "measured"}
                                       : Known{50e-6, "assumed"};
  if (world != nullptr) world->all().barrier();  // all begin at once
  machine.flops = arguments.gflops ? Known{1e9 * *arguments.gflops}
                                   : Known{product_flops(runtime, model, world != nullptr), "measured"};
  machine.bandwidth =
      given.memory_bandwidth ? Known{*given.memory_bandwidth} : Known{copy_bandwidth(runtime), "measured"};
  if (!machine.gpu) {
    machine.spare = kHeapSpare;
    machine.program = std::max(0.0, resident_program() - 4 * model.parameters) + kBesides;
  }
  return machine;
}

/// What a device is capable of, and, where there are several, what carries their messages.
std::string speeds_text(const Machine& machine, bool several) {
  std::string text = format("{:.0f} GFLOP/s in {} ({}), memory at {:.1f} GB/s ({})\n",
                            machine.flops.value / 1e9, machine.bf16 ? "bf16" : "fp32", machine.flops.from,
                            machine.bandwidth.value / 1e9, machine.bandwidth.from);
  if (several)
    text += format("between them {:.3g} GB/s ({}) and {:.0f} us ({})\n", machine.link_bandwidth.value / 1e9,
                   machine.link_bandwidth.from, 1e6 * machine.link_latency.value, machine.link_latency.from);
  return text;
}

std::string machine_text(const Machine& machine, std::int64_t devices) {
  return format("{} of {} ({}): {}", devices == 1 ? std::string("one device") : format("{} devices", devices),
                bytes(machine.memory.value), machine.memory.from, speeds_text(machine, devices > 1));
}

Json machine_json(const Machine& machine, std::int64_t devices) {
  return {{"devices", devices},
          {"memory", std::llround(machine.memory.value)},
          {"flops", machine.flops.value},
          {"memory_bandwidth", machine.bandwidth.value},
          {"link_bandwidth", machine.link_bandwidth.value},
          {"link_latency", machine.link_latency.value},
          {"program", std::llround(machine.program)},
          {"bf16", machine.bf16}};
}

std::string closing_text(const PlanArguments& arguments, const PlanModel& model,
                         const std::vector<PlannedSplit>& splits) {
  const auto runs = std::ranges::find_if(splits, [](const auto& s) { return s.fits && s.refused.empty(); });
  if (runs != splits.end()) return "\n" + command_of(arguments.recipe, model, runs->split) + "\n";
  if (splits[0].fits) return "\nNo split that fits can be trained today.\n";
  return format(
      "\nNothing fits {}; the least is {}. More devices, smaller batches or a smaller model are "
      "needed.\n",
      arguments.memory.empty() ? "this machine's memory" : arguments.memory, bytes(splits[0].memory.total()));
}

void require_blocks(const PlanModel& model, const std::string& recipe) {
  if (model.width == 0)
    throw ConfigError(format("{}: this model has no attention, which --table is about", recipe));
}

/// The block of a recipe, or BERT-base as the paper compares it.
dist::BlockShape block_of(const PlanArguments& arguments) {
  dist::BlockShape shape;
  if (arguments.recipe.empty()) return shape;
  Recipe recipe = read_recipe(open_recipe(arguments.recipe, arguments.set), catalog());
  const auto task = recipe.task->build({false, nullptr});
  const auto model = plan_model(recipe, *task);
  require_blocks(model, arguments.recipe);
  shape.batch = static_cast<double>(model.batch);
  shape.length = static_cast<double>(model.tokens);
  shape.width = static_cast<double>(model.width);
  shape.heads = static_cast<double>(model.heads);
  shape.head_dim = shape.width / shape.heads;
  return shape;
}

/// Scaling of a recipe, or of 12 blocks of the paper's shape.
void show_scaling(const Program& program, const PlanArguments& arguments) {
  constexpr std::int64_t kBlocks = 12;
  PlanModel model = blocks_of({}, kBlocks);
  RuntimeOptions options;
  options.precision = Precision::kFp32;
  if (!arguments.recipe.empty()) {
    Recipe recipe = read_recipe(open_recipe(arguments.recipe, arguments.set), catalog());
    const auto task = recipe.task->build({false, nullptr});
    model = plan_model(recipe, *task);
    require_blocks(model, arguments.recipe);
    options = recipe.runtime;
  }
  const Runtime runtime = configure_runtime(options);
  const Machine machine = measure_machine(arguments, Given(arguments), model, runtime, nullptr);
  auto planned = machine.planned();
  planned.program = planned.spare = 0;  // the table is of tensors
  const auto table = scaling_table(model, planned, speeds_text(machine, true));
  print_result(program, table.json, table.text);
}

void show_table(const Program& program, const PlanArguments& arguments) {
  if (arguments.table == "scaling") return show_scaling(program, arguments);
  auto shape = block_of(arguments);
  double memory = 0;
  if (arguments.table == "length") {
    if (arguments.recipe.empty()) shape.batch = 1;
    memory = parse_bytes("--memory", arguments.memory.empty() ? "2GiB" : arguments.memory);
  }
  const auto table = block_table(arguments.table, shape, memory);
  print_result(program, table.json, table.text);
}

void plan_command(const Program& program, const PlanArguments& arguments) {
  install_interrupt_handler();
  if (!arguments.table.empty()) return show_table(program, arguments);
  if (arguments.recipe.empty())
    throw ConfigError("name a recipe: stoa plan RECIPE --devices 64 --memory 16GiB");
  const auto place = dist::read_place();
  const std::int64_t devices = arguments.devices.value_or(place.world);
  if (devices < 1 || devices > kMostDevices)
    throw ConfigError(format("--devices is {}; it must be 1 to {}", devices, thousands(kMostDevices)));
  const Given given(arguments);
  Recipe recipe = read_recipe(open_recipe(arguments.recipe, arguments.set), catalog());
  const auto world = place.world > 1 ? dist::World::join(place) : nullptr;
  const auto task = recipe.task->build({false, nullptr});
  PlanModel model = plan_model(recipe, *task);
  const Runtime runtime = configure_runtime(recipe.runtime);
  const Machine machine = measure_machine(arguments, given, model, runtime, world.get());
  if (place.rank != 0) return;
  if (machine.gpu && machine.bf16) model.bytes_per_number = 2;
  const auto splits = plan(model, devices, machine.planned());

  const std::string text =
      format("{}: {} parameters, batches of {}{}\n{}\n{}{}", arguments.recipe,
             thousands(std::llround(model.parameters)), model.batch,
             model.tokens > 0 ? format(" x {} tokens", model.tokens) : "", machine_text(machine, devices),
             plan_text(splits, arguments.all ? 0 : kLines), closing_text(arguments, model, splits));
  const Json json = {{"recipe", arguments.recipe},
                     {"machine", machine_json(machine, devices)},
                     {"parameters", std::llround(model.parameters)},
                     {"batch", model.batch},
                     {"tokens", model.tokens},
                     {"splits", plan_json(splits)}};
  print_result(program, json, text);
}

}  // namespace

void add_plan(Program& program) {
  const auto arguments = std::make_shared<PlanArguments>();
  CLI::App& command = add_command(
      program, "plan", "how to share a recipe's training out: splits that fit, with memory and time of each",
      "stoa plan recipes/ring_attention/bert_large.toml --devices 64 --memory 16GiB --bandwidth 10Gbit/s\n"
      "  stoa launch -n 4 -- plan recipes/ring_attention/tutorial.toml\n"
      "  stoa plan --table attention",
      [&program, arguments] { plan_command(program, *arguments); });
  command.add_option("RECIPE", arguments->recipe, "recipe (.toml)")->type_name("");
  add_set_option(command, arguments->set);
  command
      .add_option("--devices", arguments->devices,
                  "how many; 1 if not given, or the processes of `stoa launch`")
      ->type_name("N");
  command.add_option("--memory", arguments->memory, "of each device; this machine's if not given")
      ->type_name("16GiB");
  command
      .add_option("--bandwidth", arguments->bandwidth,
                  "between devices; 10Gbit/s if not given, measured by `stoa launch`")
      ->type_name("10Gbit/s");
  command.add_option("--latency", arguments->latency, "between devices; 50us if not given, or measured")
      ->type_name("50us");
  command
      .add_option("--gflops", arguments->gflops,
                  "of a device's matrix products, in GFLOP/s; this machine's, measured, if not given")
      ->type_name("NUMBER");
  command
      .add_option("--memory-bandwidth", arguments->memory_bandwidth,
                  "of a device; this machine's, measured, if not given")
      ->type_name("100GB/s");
  command.add_flag("--all", arguments->all, format("every split, not the first {}", kLines));
  auto& table = *command.add_option(
      "--table", arguments->table,
      "no plan: what one block takes on 1 to 1024 ranks, the longest sequence that fits, or time and memory "
      "as devices become more; of the recipe, or of BERT-base as in the paper");
  set_words(table, {"attention", "mlp", "length", "scaling"});
}

}  // namespace stoa::cli
