#include "stoa/cli/plan_units.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <utility>
#include <vector>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"

namespace stoa::cli {
namespace {

struct Unit {
  const char* name;
  double value;
};

constexpr double kKi = 1024;

const std::vector<Unit> kBytes = {{"B", 1},
                                  {"KB", 1e3},
                                  {"MB", 1e6},
                                  {"GB", 1e9},
                                  {"TB", 1e12},
                                  {"KiB", kKi},
                                  {"MiB", kKi* kKi},
                                  {"GiB", kKi* kKi* kKi},
                                  {"TiB", kKi* kKi* kKi* kKi}};
const std::vector<Unit> kRates = {
    {"MB/s", 1e6},       {"GB/s", 1e9},      {"TB/s", 1e12}, {"MiB/s", kKi* kKi}, {"GiB/s", kKi* kKi* kKi},
    {"Mbit/s", 1e6 / 8}, {"Gbit/s", 1e9 / 8}};
const std::vector<Unit> kTimes = {{"ns", 1e-9}, {"us", 1e-6}, {"ms", 1e-3}, {"s", 1}};

std::string lower(std::string text) {
  std::ranges::transform(text, text.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

double parse(const std::string& flag, const std::string& text, const std::vector<Unit>& units,
             const char* what, const char* example, bool zero) {
  std::string known;
  for (const auto& unit : units) known += (known.empty() ? "" : ", ") + std::string(unit.name);
  double number = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  const auto refuse = [&](const std::string& why) {
    return ConfigError(format("{} is `{}`: {}; {} like {} is needed, with one of {}", flag, text, why, what,
                              example, known));
  };
  if (error != std::errc()) throw refuse("it begins with no number");
  std::string name(stop, end);
  name.erase(0, name.find_first_not_of(' '));
  const auto unit = std::ranges::find_if(units, [&](const Unit& u) { return lower(u.name) == lower(name); });
  if (unit == units.end())
    throw refuse(name.empty() ? "it has no unit" : format("`{}` is no unit of it", name));
  const double value = number * unit->value;
  if (!std::isfinite(value) || value < 0 || (value == 0 && !zero))
    throw refuse(zero ? "it must be 0 or more" : "it must be above 0");
  return value;
}

}  // namespace

double parse_bytes(const std::string& flag, const std::string& text) {
  return parse(flag, text, kBytes, "a size", "16GiB", false);
}

double parse_rate(const std::string& flag, const std::string& text) {
  return parse(flag, text, kRates, "a rate", "10Gbit/s", false);
}

double parse_seconds(const std::string& flag, const std::string& text) {
  return parse(flag, text, kTimes, "a time", "50us", true);
}

}  // namespace stoa::cli
