#include "stoa/tensor/cpu.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

namespace stoa {
namespace {

/// First value in /proc/cpuinfo of a key named in `keys`, empty if there is none.
std::string cpuinfo(std::initializer_list<std::string_view> keys) {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    const auto colon = line.find(':');
    if (colon == std::string::npos) continue;
    const auto key = line.substr(0, line.find_last_not_of(" \t", colon - 1) + 1);
    if (std::find(keys.begin(), keys.end(), key) == keys.end()) continue;
    const auto value = line.find_first_not_of(" \t", colon + 1);
    return value == std::string::npos ? "" : line.substr(value);
  }
  return "";
}

std::string first_line(const std::filesystem::path& file) {
  std::ifstream in(file);
  std::string line;
  std::getline(in, line);
  return line;
}

}  // namespace

std::string cpu_model() {
  const auto model = cpuinfo({"model name", "Model"});
  return model.empty() ? "unknown" : model;
}

const std::vector<std::string>& cpu_flags() {
  static const std::vector<std::string> flags = [] {
    std::istringstream words(cpuinfo({"flags", "Features"}));
    return std::vector<std::string>(std::istream_iterator<std::string>(words), {});
  }();
  return flags;
}

bool cpu_has(std::string_view flag) {
  return std::find(cpu_flags().begin(), cpu_flags().end(), flag) != cpu_flags().end();
}

std::optional<double> parse_cpu_max(std::string_view text) {
  std::istringstream in{std::string(text)};
  double quota = 0, period = 0;
  if (!(in >> quota >> period) || quota <= 0 || period <= 0) return {};
  return quota / period;
}

std::optional<double> cpu_quota() {
  namespace fs = std::filesystem;
  std::optional<double> least;
  const auto take = [&](std::optional<double> quota) {
    if (quota) least = std::min(least.value_or(*quota), *quota);
  };
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    if (!line.starts_with("0::")) continue;  // the one hierarchy of cgroup v2
    for (fs::path group = line.substr(3);; group = group.parent_path()) {
      take(parse_cpu_max(first_line(fs::path("/sys/fs/cgroup") / group.relative_path() / "cpu.max")));
      if (!group.has_relative_path()) break;
    }
  }
  const fs::path v1 = "/sys/fs/cgroup/cpu";  // how containers see a cgroup v1 quota
  take(parse_cpu_max(first_line(v1 / "cpu.cfs_quota_us") + " " + first_line(v1 / "cpu.cfs_period_us")));
  return least;
}

}  // namespace stoa
