#include "stoa/tasks/generation.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/ops/keep_packed.h"
#include "stoa/tasks/corpus_task.h"

namespace stoa {

void GenerationOptions::visit(FieldVisitor& v) {
  v.field("tokens", tokens, "new tokens of an answer, at most");
  v.field("temperature", temperature,
          "scores are divided by it before a token is drawn; 0 takes the likeliest");
  v.field("top_k", top_k, "draw among the k likeliest tokens; 0 among all");
  v.field("top_p", top_p, "draw among the likeliest tokens that have this probability together");
  v.field("seed", seed, "of the drawing");
}

void GenerationOptions::validate() const {
  const auto check = [](bool good, const char* name, double value, const char* needed) {
    if (!good) throw ConfigError(format("`task.generate.{}` is {}; it must be {}", name, value, needed));
  };
  check(tokens >= 1, "tokens", static_cast<double>(tokens), "at least 1");
  check(temperature >= 0 && std::isfinite(temperature), "temperature", temperature, "0 or more");
  check(top_k >= 0, "top_k", static_cast<double>(top_k), "0 (all) or more");
  check(top_p > 0 && top_p <= 1, "top_p", top_p, "above 0, at most 1");
}

std::int64_t draw_token(const at::Tensor& scores, const GenerationOptions& options, RandomStream& random) {
  const std::int64_t size = scores.size(0);
  const auto* const score = scores.const_data_ptr<float>();
  if (options.temperature == 0) return std::max_element(score, score + size) - score;
  std::vector<std::int64_t> order(static_cast<std::size_t>(size));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  const auto likelier = [&](std::int64_t a, std::int64_t b) {
    return score[a] != score[b] ? score[a] > score[b] : a < b;
  };
  const std::int64_t kept = options.top_k > 0 ? std::min(options.top_k, size) : size;
  if (kept < size) {
    std::partial_sort(order.begin(), order.begin() + kept, order.end(), likelier);
    order.resize(static_cast<std::size_t>(kept));
  } else if (options.top_p < 1) {
    std::ranges::sort(order, likelier);
  }
  const double best = *std::max_element(score, score + size);
  std::vector<double> share;
  for (const auto token : order) share.push_back(std::exp((score[token] - best) / options.temperature));
  double total = std::accumulate(share.begin(), share.end(), 0.0);
  if (options.top_p < 1) {
    double sum = 0;
    std::size_t count = 0;
    while (count < share.size() && sum < options.top_p * total) sum += share[count++];
    share.resize(count);
    total = sum;
  }
  double place = random.uniform() * total;
  for (std::size_t i = 0; i < share.size(); ++i)
    if ((place -= share[i]) < 0) return order[i];
  return order[share.size() - 1];  // rounding
}

std::vector<std::int32_t> continue_tokens(TextModel& model, std::span<const std::int32_t> prompt,
                                          std::int64_t context, std::int32_t end,
                                          const GenerationOptions& options, RandomStream& random) {
  const auto device = model.parameters().front().device();
  // rounded copies of weights cost more to make than a single token's products; fp32 weights are read as they
  // lie
  std::optional<ops::KeepPacked> keep_packed;
  if (at::autocast::is_autocast_enabled(at::kCPU)) keep_packed.emplace();
  std::vector<std::int32_t> text(prompt.begin(), prompt.end());
  TextCache cache;
  std::size_t read = text.size();  // tokens that the cache does not hold yet begin here
  const auto start_anew = [&](std::int64_t tokens) {
    cache = {};
    cache.capacity = context;
    read = text.size() - static_cast<std::size_t>(std::min(tokens, std::ssize(text)));
  };
  start_anew(std::min(context, std::max<std::int64_t>(context / 2, context - options.tokens)));
  while (std::ssize(text) < std::ssize(prompt) + options.tokens) {
    if (cache.tokens + std::ssize(text) - static_cast<std::int64_t>(read) > context)
      start_anew(std::max<std::int64_t>(1, context / 2));
    const std::vector<std::int64_t> fresh(text.begin() + static_cast<std::ptrdiff_t>(read), text.end());
    read = text.size();
    const auto hidden = model.continued(at::tensor(fresh, at::kLong).unsqueeze(0).to(device), cache);
    const auto token = draw_token(token_scores(model, hidden)[0].contiguous(), options, random);
    if (token == end) break;
    text.push_back(static_cast<std::int32_t>(token));
  }
  return {text.begin() + std::ssize(prompt), text.end()};
}

}  // namespace stoa
