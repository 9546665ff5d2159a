#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "stoa/base/options.h"
#include "stoa/base/random.h"
#include "stoa/tasks/text_model.h"

namespace stoa {

/// How a causal model continues a text: the table [task.generate].
struct GenerationOptions {
  std::int64_t tokens = 64;  ///< at most so many new ones
  double temperature = 1;    ///< scores are divided by it; 0 takes the likeliest token
  std::int64_t top_k = 0;    ///< only the k likeliest; 0 all
  double top_p = 1;          ///< only the likeliest that together have this probability
  std::int64_t seed = 0;

  void visit(FieldVisitor& v);
  void validate() const;
};

/// A token drawn from scores [vocabulary] (fp32, on the CPU): temperature first, then the k likeliest, of
/// these the fewest that have probability top_p together; among equal scores the lowest token comes first.
std::int64_t draw_token(const at::Tensor& scores, const GenerationOptions& options, RandomStream& random);

/// The tokens that follow `prompt`, until `end` (which is left out; negative for none) or options.tokens. The
/// model sees at most `context` tokens: of a longer text the last half of them is read anew when that is
/// full. The prompt must not be empty.
std::vector<std::int32_t> continue_tokens(TextModel& model, std::span<const std::int32_t> prompt,
                                          std::int64_t context, std::int32_t end,
                                          const GenerationOptions& options, RandomStream& random);

}  // namespace stoa
