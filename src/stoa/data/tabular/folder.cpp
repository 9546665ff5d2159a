#include "stoa/data/tabular/folder.h"

#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/data/parallel.h"
#include "stoa/data/tabular/hash.h"

namespace stoa {

namespace fs = std::filesystem;

namespace {

constexpr std::array<const char*, 3> kSplits = {"train", "validation", "test"};
constexpr std::array<const char*, 3> kKinds = {"exact", "threshold", "hash"};

Json encoding_json(const TabularEncoding& encoding, const fs::path& folder) {
  Json json = {{"kind", kKinds[static_cast<std::size_t>(encoding.kind)]},
               {"min_count", encoding.min_count},
               {"hash_seed", encoding.hash_seed},
               {"grown_from", encoding.grown_from},
               {"fields", Json::array()},
               {"numerics", Json::array()},
               {"joins", encoding.joins.names.empty() ? Json() : file_entry(folder, kJoinsFile)}};
  for (std::size_t f = 0; f < encoding.sizes.size(); ++f) {
    json["fields"].push_back({{"name", encoding.layout.fields[f].name}, {"size", encoding.sizes[f]}});
    if (encoding.kind != VocabularyKind::kHash)
      json["fields"].back()["values"] = file_entry(folder, vocabulary_file(f));
  }
  for (std::size_t m = 0; m < encoding.ranges.size(); ++m)
    json["numerics"].push_back({{"name", encoding.layout.numerics[m].name},
                                {"low", encoding.ranges[m].low},
                                {"high", encoding.ranges[m].high}});
  return json;
}

/// The vocabulary of a field.
std::shared_ptr<const Vocabulary> read_values(const TabularEncoding& encoding, std::size_t field,
                                              const Json& entry, const fs::path& folder) {
  checked_file(kTabularKind, folder, entry);
  const fs::path file = folder / entry.at("file").get<std::string>();
  auto values = std::make_shared<const Vocabulary>(file);
  const FieldLayout& layout = encoding.layout.fields[field];
  if (values->size() != encoding.sizes[field] || values->type() != encoding.layout.value_type(layout) ||
      values->has_unknown() != (encoding.kind == VocabularyKind::kThreshold))
    throw DataError(format("{}: the vocabulary does not belong to field `{}`; prepare the data again",
                           file.string(), layout.name));
  return values;
}

TabularEncoding read_encoding(const Json& json, RawLayout layout, const fs::path& folder,
                              const std::string& where) {
  const auto refuse = [&](const std::string& what) {
    throw DataError(format("{}: {}; prepare the data again", where, what));
  };
  TabularEncoding encoding;
  encoding.layout = std::move(layout);
  const std::string kind = json.at("kind");
  const auto known = std::find(kKinds.begin(), kKinds.end(), kind);
  if (known == kKinds.end()) refuse(format("the vocabulary kind `{}` is unknown", kind));
  encoding.kind = static_cast<VocabularyKind>(known - kKinds.begin());
  encoding.min_count = json.at("min_count");
  encoding.hash_seed = json.at("hash_seed");
  encoding.grown_from = json.at("grown_from");
  if (json.at("fields").size() != encoding.layout.fields.size() ||
      json.at("numerics").size() != encoding.layout.numerics.size())
    refuse("fields and layout differ in number");
  for (std::size_t f = 0; f < encoding.layout.fields.size(); ++f) {
    const Json& field = json.at("fields")[f];
    encoding.sizes.push_back(field.at("size"));
    const std::string& name = encoding.layout.fields[f].name;
    if (encoding.sizes.back() < 1) refuse(format("field `{}` has no ids", name));
  }
  if (encoding.kind != VocabularyKind::kHash) {
    encoding.values.resize(encoding.sizes.size());
    for_each_parallel(std::ssize(encoding.sizes), [&](std::int64_t f) {
      const auto field = static_cast<std::size_t>(f);
      encoding.values[field] = read_values(encoding, field, json.at("fields")[field].at("values"), folder);
    });
  }
  for (const Json& item : json.at("numerics")) encoding.ranges.push_back({item.at("low"), item.at("high")});
  if (!json.at("joins").is_null()) {
    checked_file(kTabularKind, folder, json.at("joins"));
    encoding.joins = Joins::from_json(read_json(folder / kJoinsFile), (folder / kJoinsFile).string());
  }
  for (const FieldLayout& field : encoding.layout.fields)
    if (field.derivation == Derivation::kJoined && field.join >= encoding.joins.names.size())
      refuse(format("field `{}` has no joined texts", field.name));
  return encoding;
}

Json splits_json(const std::array<PreparedFolder::Split, 3>& splits) {
  Json json = Json::object();
  for (std::size_t s = 0; s < splits.size(); ++s) {
    Json& split = json[kSplits[s]] = {
        {"rows", splits[s].rows}, {"positives", splits[s].positives}, {"parts", Json::array()}};
    for (const auto& part : splits[s].parts)
      split["parts"].push_back({{"file", part.file}, {"rows", part.rows}, {"bytes", part.bytes}});
  }
  return json;
}

PreparedFolder::Split read_split(const Json& json) {
  PreparedFolder::Split split{json.at("rows"), json.at("positives"), {}};
  for (const Json& part : json.at("parts"))
    split.parts.push_back({part.at("file"), part.at("rows"), part.at("bytes")});
  return split;
}

}  // namespace

float TabularEncoding::Range::scaled(double value) const {
  const double number = std::isnan(value) ? 0 : value;
  return static_cast<float>(high > low ? (number - low) / (high - low) : number - low);
}

TabularEncoding::Range TabularEncoding::Range::none() {
  return {std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity()};
}

TabularSchema TabularEncoding::schema() const {
  TabularSchema schema;
  for (std::size_t f = 0; f < sizes.size(); ++f)
    schema.fields.push_back({layout.fields[f].name, sizes[f], kind == VocabularyKind::kThreshold});
  for (const NumericLayout& numeric : layout.numerics) schema.numerics.push_back(numeric.name);
  schema.vocabulary_hash = fingerprint();
  schema.grown_from = grown_from;
  return schema;
}

std::string TabularEncoding::fingerprint() const {
  Fingerprint fingerprint;
  fingerprint.add(json_text(layout.to_json()));
  fingerprint.add(
      format("{} {}", kKinds[static_cast<std::size_t>(kind)], kind == VocabularyKind::kHash ? hash_seed : 0));
  for (std::size_t f = 0; f < sizes.size(); ++f) {
    fingerprint.add(format("{}", sizes[f]));
    if (f >= values.size()) continue;
    const auto bytes = values[f]->bytes();
    fingerprint.add({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  }
  for (const Range& range : ranges) fingerprint.add(format("{} {}", range.low, range.high));
  if (!joins.names.empty()) fingerprint.add(json_text(joins.to_json()));
  return fingerprint.text();
}

PreparedFolder PreparedFolder::open(const fs::path& folder) {
  PreparedFolder prepared;
  prepared.folder = folder;
  read_closing_file(kTabularKind, folder, [&](const Json& json) {
    const std::string where = (folder / kSchemaFile).string();
    prepared.encoding =
        read_encoding(json.at("vocabulary"), RawLayout::from_json(json.at("layout"), where), folder, where);
    prepared.vocabulary_hash = json.at("vocabulary_hash");
    if (prepared.encoding.fingerprint() != prepared.vocabulary_hash)
      throw DataError(format(
          "{}: the vocabulary is not the one the rows were encoded with; prepare the data again", where));
    for (std::size_t s = 0; s < kSplits.size(); ++s)
      prepared.splits[s] = read_split(json.at("splits").at(kSplits[s]));
    prepared.command = json.at("command");
    prepared.counts = json.at("counts");
  });
  return prepared;
}

void PreparedFolder::write() const {
  write_closing_file(kTabularKind, folder,
                     {{"vocabulary_hash", vocabulary_hash},
                      {"layout", encoding.layout.to_json()},
                      {"vocabulary", encoding_json(encoding, folder)},
                      {"splits", splits_json(splits)},
                      {"counts", file_entry(folder, kCountsFile)},
                      {"command", command}});
}

std::vector<std::vector<std::uint32_t>> PreparedFolder::read_counts() const {
  const auto file = checked_file(kTabularKind, folder, counts);
  ByteReader reader(file->bytes(), (folder / kCountsFile).string());
  std::vector<std::vector<std::uint32_t>> fields;
  for (const std::int64_t size : encoding.sizes)
    fields.push_back(reader.array<std::uint32_t>(static_cast<std::uint64_t>(size)));
  return fields;
}

const char* split_name(TabularSplit split) {
  return kSplits[static_cast<std::size_t>(split)];
}

const char* vocabulary_kind_name(VocabularyKind kind) {
  return kKinds[static_cast<std::size_t>(kind)];
}

std::string vocabulary_file(std::size_t field) {
  return format("vocabulary-{:03}.bin", field);
}

}  // namespace stoa
