#include "stoa/data/text/masking.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "stoa/base/errors.h"

namespace stoa {

namespace {

/// Tokens that are chosen together: [begin, end).
struct Word {
  std::int64_t begin = 0, end = 0;
  bool taken = false;
};

bool is_candidate(std::int32_t id, const SpecialTokens& special) {
  return id != special.cls && id != special.sep && id != special.pad && id != special.mask &&
         id != special.begin && id != special.end;
}

std::vector<Word> words_of(std::span<const std::int32_t> ids, const Tokenizer& tokenizer, bool joined) {
  std::vector<Word> words;
  for (std::int64_t i = 0; i < std::ssize(ids); ++i) {
    if (!is_candidate(ids[i], tokenizer.special())) continue;
    if (joined && !words.empty() && words.back().end == i && tokenizer.continues_word(ids[i]))
      words.back().end = i + 1;
    else
      words.push_back({i, i + 1});
  }
  return words;
}

/// Words from `first` on that follow one another without a gap, at most `most`.
std::size_t run_length(const std::vector<Word>& words, std::size_t first, std::size_t most) {
  std::size_t run = 1;
  while (run < most && first + run < words.size() && words[first + run].begin == words[first + run - 1].end)
    ++run;
  return run;
}

/// A number of 1 to `most` with a chance that is as its inverse.
std::size_t draw_gram(std::size_t most, RandomStream& random) {
  double sum = 0;
  for (std::size_t n = 1; n <= most; ++n) sum += 1 / static_cast<double>(n);
  double left = random.uniform() * sum;
  for (std::size_t n = 1; n < most; ++n)
    if ((left -= 1 / static_cast<double>(n)) < 0) return n;
  return most;
}

/// Marks runs of words, all of them together at most `count` tokens.
void take_words(std::vector<Word>& words, std::int64_t count, std::size_t longest, RandomStream& random) {
  std::vector<std::size_t> order(words.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::int64_t left = count;
  for (std::size_t i = 0; i < order.size() && left > 0; ++i) {
    std::swap(
        order[i],
        order[static_cast<std::size_t>(random.integer(static_cast<std::int64_t>(i), std::ssize(order)))]);
    const std::size_t first = order[i];
    if (words[first].taken) continue;
    std::size_t run = longest == 1 ? 1 : draw_gram(run_length(words, first, longest), random);
    const auto tokens = [&] { return words[first + run - 1].end - words[first].begin; };
    while (run > 0 && tokens() > left) --run;
    if (run == 0) continue;
    const auto begin = words.begin() + static_cast<std::ptrdiff_t>(first),
               end = begin + static_cast<std::ptrdiff_t>(run);
    if (std::any_of(begin, end, [](const Word& word) { return word.taken; })) continue;
    left -= tokens();
    std::for_each(begin, end, [](Word& word) { word.taken = true; });
  }
}

}  // namespace

std::int64_t masked_count(std::int64_t length, const MaskingOptions& options) {
  const double exact = static_cast<double>(length) * options.share;
  double rounded = std::floor(exact + 0.5);
  if (rounded - exact == 0.5 && std::fmod(rounded, 2) != 0) --rounded;  // halves go to the even number
  const auto count = std::max<std::int64_t>(1, static_cast<std::int64_t>(rounded));
  return options.most > 0 ? std::min(options.most, count) : count;
}

void mask_tokens(std::span<std::int32_t> ids, const Tokenizer& tokenizer, const MaskingOptions& options,
                 RandomStream& random, std::span<std::int64_t> targets) {
  const std::int32_t mask = tokenizer.special().mask;
  if (mask < 0) throw ConfigError("the tokenizer has no mask token; choose another, or another objective");
  std::vector<Word> words = words_of(ids, tokenizer, options.rule != MaskingRule::kToken);
  const auto longest =
      static_cast<std::size_t>(options.rule == MaskingRule::kNGram ? options.longest_gram : 1);
  take_words(words, masked_count(std::ssize(ids), options), longest, random);
  std::ranges::fill(targets, kNoTarget);
  for (const Word& word : words)
    for (std::int64_t i = word.begin; word.taken && i < word.end; ++i) {
      targets[i] = ids[i];
      const double draw = random.uniform();
      if (draw < options.hidden)
        ids[i] = mask;
      else if (draw < options.hidden + options.random)
        ids[i] = static_cast<std::int32_t>(random.integer(0, tokenizer.size()));
    }
}

}  // namespace stoa
