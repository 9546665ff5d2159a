#include "bench/support/worker.h"

#include <ATen/Parallel.h>
#include <torch/cuda.h>

#include <chrono>
#include <fstream>
#include <iostream>
#include <sstream>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/tensor/host_allocator.h"
#include "stoa/tensor/runtime.h"

namespace stoa::bench {
namespace {

/// Peak resident memory since forget_peak(), in bytes; unlike peak_memory() it can leave the set-up out.
std::int64_t peak_since() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return std::stoll(line.substr(6)) * 1024;
  return peak_memory();
}

void forget_peak() {
  std::ofstream("/proc/self/clear_refs") << "5";
}

Json repeat(Work& work, int times, c10::Device device) {
  std::vector<double> seconds;
  const Json before = work.tallies();
  for (int i = 0; i < times; ++i) {
    const auto start = std::chrono::steady_clock::now();
    work.run();
    if (device.is_cuda()) torch::cuda::synchronize();
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  Json added = work.tallies();
  for (auto& [name, tally] : added.items()) tally = tally.get<double>() - before.at(name).get<double>();
  return {{"seconds", seconds}, {"peak_memory", peak_since()}, {"tallies", added}};
}

Json answer(Work& work, const std::string& line, c10::Device device) {
  std::istringstream words(line);
  std::string command;
  words >> command;
  if (int times = 0; command == "run" && words >> times) return repeat(work, times, device);
  if (std::string file; command == "save" && words >> file) {
    auto reference = work.reference();
    for (auto& [name, tensor] : reference.tensors) tensor = tensor.cpu();
    save_safetensors(file, reference);
    return {{"saved", file}};
  }
  throw ConfigError(format("`{}` is no command; known: run N, save FILE", line));
}

void print(const Json& json) {
  std::cout << json.dump() << std::endl;
}

}  // namespace

TensorFile Work::reference() {
  throw ConfigError("this work has nothing to compare");
}

c10::Device device(const Json& spec) {
  return c10::Device(spec.value("device", "cpu"));
}

std::int64_t integer(const Json& spec, const char* key) {
  if (!spec.contains(key)) throw ConfigError(format("the worker's spec has no `{}`", key));
  return spec.at(key).get<std::int64_t>();
}

int serve(int argc, char** argv, const std::function<std::unique_ptr<Work>(const Json& spec)>& make) try {
  if (argc != 2)
    throw ConfigError("one argument is needed, the work as JSON; bench/run.sh starts this program");
  const Json spec = Json::parse(argv[1]);
  configure_allocator();
  configure_runtime({});
  at::manual_seed(1);
  const auto work = make(spec);
  Json ready = work->describe();
  ready["threads"] = at::get_num_threads();
  forget_peak();
  print(ready);
  for (std::string line; std::getline(std::cin, line);) print(answer(*work, line, device(spec)));
  return 0;
} catch (const std::exception& error) {
  print({{"error", error.what()}});
  return 1;
}

}  // namespace stoa::bench
