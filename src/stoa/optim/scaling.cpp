#include "stoa/optim/scaling.h"

#include <algorithm>
#include <cmath>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/text.h"

namespace stoa::optim {
namespace {

/// Powers of s that a rule multiplies by.
struct Powers {
  double embedding_lr, dense_lr, l2;
};

Powers powers_of(ScalingRule rule) {
  switch (rule) {
    case ScalingRule::kSqrt:
      return {0.5, 0.5, 0.5};
    case ScalingRule::kSqrtStar:
      return {0.5, 0.5, 0};
    case ScalingRule::kLinear:
      return {1, 1, 0};
    case ScalingRule::kN2Lambda:
      return {0, 0.5, 2};
    case ScalingRule::kCowClip:
      return {0, 0.5, 1};
    case ScalingRule::kNone:
      break;
  }
  return {0, 0, 0};
}

const char* name_of(ScalingRule rule) {
  for (const auto& [name, value] : scaling_rules())
    if (value == rule) return name;
  return "?";
}

void check_batch(std::int64_t batch) {
  if (batch < 1) throw ConfigError(format("batch scaling: a batch of {} rows; at least 1 is needed", batch));
}

void check_value(double value, const char* what) {
  if (!std::isfinite(value) || value < 0)
    throw ConfigError(format("batch scaling: the {} is {}; it must be 0 or more", what, value));
}

/// At least four digits of a number, all of those before the point, without closing zeros.
std::string digits(double value) {
  if (std::abs(value) >= 1e15) return format("{:.4g}", value);
  const double before_point = value == 0 ? 1 : std::floor(std::log10(std::abs(value))) + 1;
  auto text = format("{:.{}f}", value, static_cast<int>(std::clamp(4 - before_point, 0.0, 20.0)));
  if (text.find('.') != std::string::npos) {
    text.erase(text.find_last_not_of('0') + 1);
    if (text.back() == '.') text.pop_back();
  }
  return text;
}

/// Both values as multiples of the power of ten that the first is written with.
std::string change_text(double from, double to) {
  if (from == 0) return format("{} -> {}", digits(from), digits(to));
  // the exponent after rounding to the digits that are shown
  const auto written = format("{:.3e}", from);
  const int exponent = std::stoi(written.substr(written.find('e') + 1));
  const double unit = std::pow(10.0, exponent);
  if (exponent == 0) return format("{} -> {}", digits(from), digits(to));
  return format("{}e{} -> {}e{}", digits(from / unit), exponent, digits(to / unit), exponent);
}

std::string factor_text(double power, double s) {
  if (power == 0) return "unchanged";
  const char* const what = power == 0.5 ? "sqrt(s)" : power == 1 ? "s" : "s^2";
  return format("x {} = {}", what, digits(std::pow(s, power)));
}

}  // namespace

const std::vector<std::pair<const char*, ScalingRule>>& scaling_rules() {
  static const std::vector<std::pair<const char*, ScalingRule>> rules = {
      {"none", ScalingRule::kNone},          {"sqrt", ScalingRule::kSqrt},
      {"sqrt_star", ScalingRule::kSqrtStar}, {"linear", ScalingRule::kLinear},
      {"n2_lambda", ScalingRule::kN2Lambda}, {"cowclip", ScalingRule::kCowClip}};
  return rules;
}

ScalingRule scaling_rule(const std::string& name) {
  std::vector<std::string> known;
  for (const auto& [candidate, rule] : scaling_rules()) {
    if (name == candidate) return rule;
    known.emplace_back(candidate);
  }
  throw ConfigError(format("no scaling rule is called `{}`{}", name, suggestion(name, known)));
}

BatchSettings scale_batch(const BatchSettings& base, std::int64_t batch, ScalingRule rule) {
  check_batch(base.batch);
  check_batch(batch);
  check_value(base.embedding_lr, "embedding learning rate");
  check_value(base.dense_lr, "dense learning rate");
  check_value(base.l2, "L2 of the embeddings");
  const double s = static_cast<double>(batch) / static_cast<double>(base.batch);
  const auto powers = powers_of(rule);
  return {batch, base.embedding_lr * std::pow(s, powers.embedding_lr),
          base.dense_lr * std::pow(s, powers.dense_lr), base.l2 * std::pow(s, powers.l2)};
}

std::string scaling_text(const BatchSettings& base, std::int64_t batch, ScalingRule rule) {
  const auto scaled = scale_batch(base, batch, rule);
  const double s = static_cast<double>(batch) / static_cast<double>(base.batch);
  const auto powers = powers_of(rule);
  const auto line = [&](const char* what, double from, double to, double power) {
    return format("{:<25}{:<24}{}\n", what, change_text(from, to), factor_text(power, s));
  };
  return format("rule {}, batch {} -> {}, s = {}\n", name_of(rule), base.batch, batch, digits(s)) +
         line("dense learning rate", base.dense_lr, scaled.dense_lr, powers.dense_lr) +
         line("L2 of the embeddings", base.l2, scaled.l2, powers.l2) +
         line("embedding learning rate", base.embedding_lr, scaled.embedding_lr, powers.embedding_lr);
}

}  // namespace stoa::optim
