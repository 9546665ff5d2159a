#include "stoa/data/text/text_statistics.h"

#include <algorithm>
#include <numeric>

namespace stoa {

namespace {

constexpr std::size_t kTop = 20;

/// Lengths between bounds that `begin` gives.
template <class Begin>
LengthStatistics lengths_between(std::int64_t count, const Begin& begin) {
  std::vector<std::int64_t> lengths;
  lengths.reserve(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) lengths.push_back(begin(i + 1) - begin(i));
  return length_statistics(lengths);
}

Json lengths_json(const LengthStatistics& lengths) {
  return {{"count", lengths.count},
          {"mean", lengths.mean},
          {"median", lengths.median},
          {"p99", lengths.ninety_nine},
          {"max", lengths.most}};
}

std::vector<std::pair<std::int64_t, double>> coverage_of(const std::vector<std::int64_t>& falling,
                                                         std::int64_t all) {
  std::vector<std::pair<std::int64_t, double>> coverage;
  std::int64_t covered = 0, next = 1;
  for (std::size_t i = 0; i < falling.size(); ++i) {
    covered += falling[i];
    const auto k = static_cast<std::int64_t>(i) + 1;
    if (k != next && i + 1 < falling.size()) continue;
    coverage.emplace_back(k, static_cast<double>(covered) / static_cast<double>(all));
    const std::int64_t lead = [&] {  // 1, 2, 5, 10, 20, 50 ...
      std::int64_t digit = next;
      while (digit >= 10) digit /= 10;
      return digit;
    }();
    next = lead == 2 ? next / 2 * 5 : next * 2;
  }
  return coverage;
}

}  // namespace

LengthStatistics length_statistics(std::vector<std::int64_t>& lengths) {
  LengthStatistics found;
  found.count = std::ssize(lengths);
  if (lengths.empty()) return found;
  const auto quantile = [&](double share) {  // the smallest length that so many do not exceed
    const auto last = static_cast<double>(lengths.size()) - 1;
    const auto place = lengths.begin() + static_cast<std::ptrdiff_t>(share * last + 0.5);
    std::nth_element(lengths.begin(), place, lengths.end());
    return *place;
  };
  found.median = quantile(0.5);
  found.ninety_nine = quantile(0.99);
  found.most = quantile(1);
  found.mean = static_cast<double>(std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0})) /
               static_cast<double>(lengths.size());
  return found;
}

TextStatistics describe_text(const PreparedText& text, const Tokenizer& tokenizer) {
  const auto file = text.token_file();
  const TokenIndex& index = file->index();
  TextStatistics found;
  found.tokenizer = text.kind;
  found.fingerprint = text.fingerprint;
  found.vocabulary = text.vocabulary;
  found.tokens = index.tokens();
  found.sentences =
      lengths_between(index.sentences(), [&](std::int64_t s) { return index.sentence_begin(s); });
  found.documents = lengths_between(
      index.documents(), [&](std::int64_t d) { return index.sentence_begin(index.document_begin(d)); });
  std::vector<std::int64_t> counts = file->counts();
  if (const std::int32_t unknown = tokenizer.special().unknown; unknown >= 0)
    found.unknown = counts[static_cast<std::size_t>(unknown)];
  std::vector<std::int32_t> order;
  for (std::size_t id = 0; id < counts.size(); ++id)
    if (counts[id] > 0) order.push_back(static_cast<std::int32_t>(id));
  std::ranges::stable_sort(order, [&](std::int32_t a, std::int32_t b) { return counts[a] > counts[b]; });
  found.seen = std::ssize(order);
  std::vector<std::int64_t> falling;
  for (const std::int32_t id : order) {
    falling.push_back(counts[static_cast<std::size_t>(id)]);
    if (found.top.size() < kTop) found.top.emplace_back(std::string(tokenizer.token(id)), falling.back());
  }
  found.coverage = coverage_of(falling, found.tokens);
  return found;
}

Json TextStatistics::to_json() const {
  Json json = {{"tokenizer", {{"kind", tokenizer}, {"fingerprint", fingerprint}, {"size", vocabulary}}},
               {"tokens", tokens},
               {"seen", seen},
               {"unknown", unknown},
               {"unknown_share", unknown_share()},
               {"documents", lengths_json(documents)},
               {"sentences", lengths_json(sentences)},
               {"top", Json::array()}};
  for (const auto& [token, count] : top) json["top"].push_back({{"token", token}, {"count", count}});
  return json;
}

}  // namespace stoa
