#include "stoa/data/tabular/statistics.h"

#include <algorithm>
#include <numeric>

#include "stoa/base/format.h"

namespace stoa {
namespace {

constexpr std::size_t kTopValues = 5;

/// The count that a share of the ids, the rarest first, does not exceed. `sorted` is falling.
std::int64_t quantile(const std::vector<std::uint32_t>& sorted, double share) {
  if (sorted.empty()) return 0;
  const auto rank = static_cast<std::size_t>(share * static_cast<double>(sorted.size() - 1) + 0.5);
  return sorted[sorted.size() - 1 - rank];
}

std::vector<std::pair<std::string, std::int64_t>> top_values(const std::vector<std::uint32_t>& counts,
                                                             const Vocabulary* values) {
  std::vector<std::size_t> ids(counts.size());
  std::iota(ids.begin(), ids.end(), std::size_t{0});
  const std::size_t shown = std::min(kTopValues, ids.size());
  std::partial_sort(
      ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(shown), ids.end(),
      [&](std::size_t a, std::size_t b) { return std::pair(counts[b], a) < std::pair(counts[a], b); });
  std::vector<std::pair<std::string, std::int64_t>> top;
  for (const std::size_t id : std::span(ids).first(shown))
    if (counts[id] > 0)
      top.emplace_back(values != nullptr ? values->text(static_cast<std::int64_t>(id)) : format("#{}", id),
                       counts[id]);
  return top;
}

}  // namespace

double FieldStatistics::covered_by(std::int64_t k) const {
  double share = 0;
  for (const auto& [ids, covered] : coverage)
    if (ids <= k) share = covered;
  return share;
}

FieldStatistics field_statistics(const std::string& name, const std::vector<std::uint32_t>& counts,
                                 bool has_unknown) {
  FieldStatistics field{.name = name,
                        .size = static_cast<std::int64_t>(counts.size()),
                        .has_unknown = has_unknown,
                        .coverage = {},
                        .top = {}};
  if (has_unknown && !counts.empty()) field.unknown = counts[0];
  std::vector<std::uint32_t> sorted(counts.begin() + (has_unknown && !counts.empty() ? 1 : 0), counts.end());
  std::ranges::sort(sorted, std::greater());
  sorted.erase(std::ranges::find(sorted, 0u), sorted.end());
  field.seen = static_cast<std::int64_t>(sorted.size());
  field.once = static_cast<std::int64_t>(sorted.end() - std::ranges::lower_bound(sorted, 1u, std::greater()));
  field.median = quantile(sorted, 0.5);
  field.ninety = quantile(sorted, 0.9);
  field.ninety_nine = quantile(sorted, 0.99);
  field.most = sorted.empty() ? 0 : sorted.front();
  const double rows = static_cast<double>(std::accumulate(sorted.begin(), sorted.end(), std::uint64_t{0})) +
                      static_cast<double>(field.unknown);
  double covered = 0;
  std::int64_t next = 1;
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    covered += sorted[i];
    const auto k = static_cast<std::int64_t>(i) + 1;
    if (k != next && i + 1 != sorted.size()) continue;
    field.coverage.emplace_back(k, covered / rows);
    std::int64_t unit = 1;
    while (unit * 10 <= next) unit *= 10;
    next = next == unit ? 2 * unit : next == 2 * unit ? 5 * unit : 10 * unit;
  }
  return field;
}

TabularStatistics describe_tabular(const std::filesystem::path& folder) {
  const PreparedFolder prepared = PreparedFolder::open(folder);
  const TabularEncoding& encoding = prepared.encoding;
  TabularStatistics statistics{.source = encoding.layout.source,
                               .vocabulary = vocabulary_kind_name(encoding.kind),
                               .vocabulary_hash = prepared.vocabulary_hash,
                               .grown_from = encoding.grown_from,
                               .splits = {},
                               .fields = {},
                               .numerics = {}};
  for (std::size_t s = 0; s < prepared.splits.size(); ++s)
    if (prepared.splits[s].rows > 0)
      statistics.splits.push_back(
          {split_name(static_cast<TabularSplit>(s)), prepared.splits[s].rows, prepared.splits[s].positives});
  const auto counts = prepared.read_counts();
  for (std::size_t f = 0; f < counts.size(); ++f) {
    const Vocabulary* values = encoding.values.empty() ? nullptr : encoding.values[f].get();
    statistics.fields.push_back(field_statistics(encoding.layout.fields[f].name, counts[f],
                                                 encoding.kind == VocabularyKind::kThreshold));
    statistics.fields.back().top = top_values(counts[f], values);
  }
  for (std::size_t m = 0; m < encoding.ranges.size(); ++m)
    statistics.numerics.emplace_back(encoding.layout.numerics[m].name, encoding.ranges[m]);
  return statistics;
}

std::int64_t TabularStatistics::ids() const {
  std::int64_t sum = 0;
  for (const FieldStatistics& field : fields) sum += field.size;
  return sum;
}

Json TabularStatistics::to_json() const {
  Json json = {{"source", source},
               {"vocabulary", vocabulary},
               {"vocabulary_hash", vocabulary_hash},
               {"grown_from", grown_from},
               {"ids", ids()},
               {"splits", Json::object()},
               {"fields", Json::array()},
               {"numerics", Json::array()}};
  for (const Split& split : splits)
    json["splits"][split.name] = {
        {"rows", split.rows},
        {"positives", split.positives},
        {"click_rate", static_cast<double>(split.positives) / static_cast<double>(split.rows)}};
  for (const FieldStatistics& field : fields) {
    Json coverage = Json::array(), top = Json::array();
    for (const auto& [ids, share] : field.coverage) coverage.push_back({ids, share});
    for (const auto& [value, count] : field.top) top.push_back({{"value", value}, {"rows", count}});
    json["fields"].push_back(
        {{"name", field.name},
         {"size", field.size},
         {"has_unknown", field.has_unknown},
         {"seen", field.seen},
         {"once", field.once},
         {"unknown_rows", field.unknown},
         {"rows_per_id",
          {{"median", field.median}, {"p90", field.ninety}, {"p99", field.ninety_nine}, {"max", field.most}}},
         {"coverage", coverage},
         {"top", top}});
  }
  for (const auto& [name, range] : numerics)
    json["numerics"].push_back({{"name", name}, {"low", range.low}, {"high", range.high}});
  return json;
}

}  // namespace stoa
