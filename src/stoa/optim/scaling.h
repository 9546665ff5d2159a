#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace stoa::optim {

/// How the settings of a click-through model follow its batch (cowclip.md 2.7), s being the new batch over
/// the old one.
enum class ScalingRule {
  kNone,      ///< nothing changes
  kSqrt,      ///< both rates and the L2 times sqrt s
  kSqrtStar,  ///< both rates times sqrt s
  kLinear,    ///< both rates times s
  kN2Lambda,  ///< the dense rate times sqrt s, the L2 times s^2
  kCowClip,   ///< the dense rate times sqrt s, the L2 times s; rows are to be clipped as CowClip does
};

/// What depends on the batch.
struct BatchSettings {
  std::int64_t batch = 1024;
  double embedding_lr = 1e-4;
  double dense_lr = 1e-4;
  double l2 = 1e-5;  ///< lambda of the embedding tables
};

/// The rules by the names users write: none, sqrt, sqrt_star, linear, n2_lambda, cowclip.
const std::vector<std::pair<const char*, ScalingRule>>& scaling_rules();

/// The rule of a name. Throws ConfigError naming the nearest one.
ScalingRule scaling_rule(const std::string& name);

/// The settings for another batch. Throws ConfigError for a batch below 1 and for rates or an L2 that are
/// negative or not finite.
BatchSettings scale_batch(const BatchSettings& base, std::int64_t batch, ScalingRule rule);

/// What a rule makes of settings, as lines of text: a heading, and for each setting its old and its new value
/// with one power of ten, "8e-4 -> 90.51e-4", and the factor.
std::string scaling_text(const BatchSettings& base, std::int64_t batch, ScalingRule rule);

}  // namespace stoa::optim
