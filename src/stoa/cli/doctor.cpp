#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <torch/cuda.h>
#include <torch/headeronly/version.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "stoa/base/format.h"
#include "stoa/base/interrupt.h"
#include "stoa/base/progress.h"
#include "stoa/base/text.h"
#include "stoa/cli/commands.h"
#include "stoa/cli/doctor_distributed.h"
#include "stoa/cli/measure.h"
#include "stoa/tensor/cpu.h"
#include "stoa/tensor/runtime.h"

namespace fs = std::filesystem;

namespace stoa::cli {

namespace {

constexpr double kGiB = 1 << 30;

// All that is found, before it is judged.
struct Findings {
  // threads and CPU
  int cores = 0, threads = 0, parallel_threads = 0;
  std::string cpu, capability;
  double load = 0;  // processes that were running or waiting, mean of the last minute
  // measured
  GemmSpeed fp32, bf16;
  double copy = 0, add = 0, add_default = 0;  // GB/s
  bool keeps_memory = false;
  // memory and disk, bytes
  double memory = 0, memory_free = 0, disk_free = 0;
  // GPUs
  std::vector<std::string> gpus;  // as the driver lists them
  int usable_gpus = 0;
  bool cuda_build = false;
};

// CPU features that matter here, as Linux spells them and as people do.
const std::vector<std::pair<const char*, const char*>> kFeatures = {
    {"avx2", "AVX2"},         {"avx512f", "AVX-512"}, {"avx512_bf16", "AVX512-BF16"},
    {"amx_bf16", "AMX-BF16"}, {"asimd", "NEON"},      {"sve", "SVE"}};

// Environment variables that change what is measured here.
const std::vector<std::string> kVariables = {
    "OMP_NUM_THREADS",        "MKL_NUM_THREADS", "ATEN_CPU_CAPABILITY", "GLIBC_TUNABLES",
    "MALLOC_MMAP_THRESHOLD_", "LD_PRELOAD",      "CUDA_VISIBLE_DEVICES"};

// "MemAvailable:  123 kB" of /proc/meminfo in bytes, 0 where there is no such line.
double meminfo(const std::string& key) {
  std::ifstream in("/proc/meminfo");
  for (std::string line; std::getline(in, line);)
    if (line.starts_with(key + ":")) return 1024 * std::strtod(line.c_str() + key.size() + 1, nullptr);
  return 0;
}

// Models of the GPUs that an NVIDIA driver shows.
std::vector<std::string> driver_gpus() {
  std::vector<std::string> models;
  std::error_code error;
  for (const fs::directory_entry& gpu : fs::directory_iterator("/proc/driver/nvidia/gpus", error)) {
    std::ifstream in(gpu.path() / "information");
    for (std::string line; std::getline(in, line);)
      if (line.starts_with("Model:")) models.push_back(line.substr(line.find_first_not_of(" \t", 6)));
  }
  return models;
}

Json environment() {
  Json variables = Json::object();
  for (const std::string& name : kVariables)
    if (const char* value = std::getenv(name.c_str())) variables[name] = value;
  return variables;
}

Findings examine() {
  Findings found;
  found.cores = available_cores();
  found.threads = configure_runtime({}).threads;
  found.cpu = cpu_model();
  found.capability = at::get_cpu_capability();
  getloadavg(&found.load, 1);
  found.gpus = driver_gpus();
  found.cuda_build = at::hasCUDA();
  found.usable_gpus = found.cuda_build ? static_cast<int>(torch::cuda::device_count()) : 0;
  found.memory = meminfo("MemTotal");
  found.memory_free = meminfo("MemAvailable");
  std::error_code error;
  const fs::space_info space = fs::space(fs::current_path(error), error);
  if (!error) found.disk_free = static_cast<double>(space.available);
  log_info("measuring, a few seconds ...");
  found.parallel_threads = count_parallel_threads();
  found.keeps_memory = allocator_keeps_memory();
  found.fp32 = measure_gemm(at::kFloat);
  found.bf16 = measure_gemm(at::kBFloat16);
  found.copy = measure_copy();
  found.add = measure_add();
  found.add_default = measure_add_with_default_allocator();
  return found;
}

void advise_on_threads(const Findings& found, std::vector<std::string>& advice) {
  if (found.parallel_threads < found.threads)
    advice.push_back(
        format("ATen's loops ran on {} of {} threads: configure again with OpenMP (-fopenmp) for all of Stoa",
               found.parallel_threads, found.threads));
  if (found.load > found.cores + 0.5)
    advice.push_back(format(
        "{:.1f} processes wanted {} cores in the last minute: the speeds above are lower than this machine's",
        found.load, found.cores));
}

void advise_on_arithmetic(const Findings& found, std::vector<std::string>& advice) {
  if (cpu_has("avx512f") && !found.capability.starts_with("AVX512"))
    advice.push_back(
        "ATen uses " + found.capability +
        " although the CPU has AVX-512: set ATEN_CPU_CAPABILITY=avx512 in the environment and compare");
  if (cpu_has_bf16() && found.bf16.gflops < found.fp32.gflops)
    advice.push_back(
        "matrix products are slower in bf16 than in fp32 here: set runtime.precision = \"fp32\"");
  if (!cpu_has_bf16() && found.usable_gpus == 0)
    advice.push_back(
        "this CPU does not multiply bf16 matrices natively: leave runtime.precision at \"auto\" (fp32 here)");
  if (!at::hasMKL() && cpu_has("avx2"))
    advice.push_back("this LibTorch has no MKL: PyTorch's own builds have it and multiply matrices faster");
}

void advise_on_memory(const Findings& found, std::vector<std::string>& advice) {
  if (!found.keeps_memory)
    advice.push_back(
        "the allocator gives large tensors back to the kernel at each free: use glibc's malloc without "
        "MALLOC_* variables or LD_PRELOAD");
  if (found.memory_free > 0 && found.memory_free < 4 * kGiB)
    advice.push_back(format("only {} of memory are free: take small batches (train.micro_batch_size)",
                            bytes(found.memory_free)));
  if (found.disk_free < 5 * kGiB)
    advice.push_back(
        format("only {} of disk are free here: checkpoints need room; start runs with --out on another disk",
               bytes(found.disk_free)));
}

void advise_on_gpus(const Findings& found, std::vector<std::string>& advice) {
  if (!found.gpus.empty() && !found.cuda_build)
    advice.push_back(
        "there is a GPU but this LibTorch is a CPU build: name a CUDA build with Torch_DIR and build Stoa "
        "with the preset cuda, which was not tested on a GPU");
  if (found.cuda_build && found.usable_gpus == 0)
    advice.push_back(
        "this LibTorch is a CUDA build but sees no GPU: check the driver (nvidia-smi) and "
        "CUDA_VISIBLE_DEVICES");
}

std::vector<std::string> advise(const Findings& found) {
  std::vector<std::string> advice;
  advise_on_threads(found, advice);
  advise_on_arithmetic(found, advice);
  advise_on_memory(found, advice);
  advise_on_gpus(found, advice);
  return advice;
}

std::string gpu_text(const Findings& found) {
  if (found.usable_gpus > 0 && found.gpus.empty()) return format("{} usable", found.usable_gpus);
  if (found.usable_gpus > 0) return format("{} usable: {}", found.usable_gpus, join(found.gpus, ", "));
  if (!found.gpus.empty()) return format("none usable; the driver lists {}", join(found.gpus, ", "));
  return found.cuda_build ? "none: the driver shows none"
                          : "none: no driver, and this LibTorch is a CPU build";
}

std::vector<std::string> features() {
  std::vector<std::string> names;
  for (const auto& [flag, name] : kFeatures)
    if (cpu_has(flag)) names.emplace_back(name);
  return names;
}

std::string libtorch_build() {
  std::vector<std::string> parts;
  if (at::hasMKL()) parts.emplace_back("MKL");
  if (at::hasMKLDNN()) parts.emplace_back("oneDNN");
  if (at::hasOpenMP()) parts.emplace_back("OpenMP");
  if (at::hasCUDA()) parts.emplace_back("CUDA");
  return join(parts, ", ");
}

Json as_json(const Findings& found, const std::vector<std::string>& advice) {
  const auto gemm = [](const GemmSpeed& speed) {
    return Json{{"gflops", speed.gflops}, {"size", speed.size}};
  };
  return {{"cpu",
           {{"model", found.cpu},
            {"features", features()},
            {"aten_capability", found.capability},
            {"bf16", cpu_has_bf16()}}},
          {"threads",
           {{"cores", found.cores},
            {"used", found.threads},
            {"parallel_for", found.parallel_threads},
            {"load", found.load}}},
          {"gemm", {{"fp32", gemm(found.fp32)}, {"bf16", gemm(found.bf16)}}},
          {"copy_gb_per_s", found.copy},
          {"add_gb_per_s", {{"stoa", found.add}, {"default_allocator", found.add_default}}},
          {"allocator_keeps_memory", found.keeps_memory},
          {"memory",
           {{"total", found.memory}, {"free", found.memory_free}, {"peak_of_this_command", peak_memory()}}},
          {"disk_free", found.disk_free},
          {"libtorch", {{"version", TORCH_VERSION}, {"build", libtorch_build()}, {"cuda", found.cuda_build}}},
          {"gpus", {{"usable", found.usable_gpus}, {"listed", found.gpus}, {"text", gpu_text(found)}}},
          {"environment", environment()},
          {"advice", advice}};
}

std::string as_text(const Findings& found, const std::vector<std::string>& advice) {
  std::vector<std::pair<std::string, std::string>> lines = {
      {"CPU", found.cpu},
      {"CPU features", join(features(), ", ")},
      {"ATen's kernels", found.capability + " (ATEN_CPU_CAPABILITY changes it)"},
      {"threads", format("{} of {} cores, {} took part in a parallel loop", found.threads, found.cores,
                         found.parallel_threads)},
      {"matrix product, fp32", format("{:.0f} GFLOP/s at {}", found.fp32.gflops, found.fp32.size)},
      {"matrix product, bf16", format("{:.0f} GFLOP/s at {}", found.bf16.gflops, found.bf16.size)},
      {"memory copy", format("{:.1f} GB/s", found.copy)},
      {"addition",
       format("{:.1f} GB/s; {:.1f} with glibc's own allocator settings", found.add, found.add_default)},
      {"large tensors",
       found.keeps_memory ? "stay with the process when freed" : "go back to the kernel when freed"},
      {"memory", format("{} free of {}; this command took {}", bytes(found.memory_free), bytes(found.memory),
                        bytes(static_cast<double>(peak_memory())))},
      {"disk", format("{} free here", bytes(found.disk_free))},
      {"LibTorch", format("{} with {}", TORCH_VERSION, libtorch_build())},
      {"GPU", gpu_text(found)}};
  const Json variables = environment();
  for (const auto& [name, value] : variables.items())
    lines.emplace_back("environment", name + "=" + value.get<std::string>());
  std::string text;
  for (const auto& [name, value] : lines) text += format("{:<22}{}\n", name, value);
  text += "\nWhat to change:\n";
  for (const std::string& line : advice) text += "  - " + line + "\n";
  if (advice.empty()) text += "  nothing\n";
  return text;
}

void doctor_command(const Program& program) {
  install_interrupt_handler();
  const Findings found = examine();
  const std::vector<std::string> advice = advise(found);
  print_result(program, as_json(found, advice), as_text(found, advice));
}

}  // namespace

void add_doctor(Program& program) {
  struct Arguments {
    bool distributed = false;
    dist::ParallelOptions parallel;
  };
  const auto arguments = std::make_shared<Arguments>();
  CLI::App& command = add_command(program, "doctor", "measure this machine and say what to change",
                                  "stoa doctor --json", [&program, arguments] {
                                    arguments->distributed ? examine_processes(program, arguments->parallel)
                                                           : doctor_command(program);
                                  });
  auto* const distributed = command.add_flag("--distributed", arguments->distributed,
                                             "in each of several processes (stoa launch -n 4 -- doctor "
                                             "--distributed): their ranks and groups, and how fast "
                                             "each kind of group exchanges tensors");
  auto& parallel = arguments->parallel;
  for (const auto& [name, degree] :
       std::vector<std::pair<const char*, std::int64_t*>>{{"--sequence", &parallel.sequence},
                                                          {"--tensor", &parallel.tensor},
                                                          {"--pipeline", &parallel.pipeline},
                                                          {"--expert", &parallel.expert}})
    command.add_option(name, *degree, format("with --distributed: as `parallel.{}` of a recipe", name + 2))
        ->type_name("N")
        ->needs(distributed);
}

}  // namespace stoa::cli
