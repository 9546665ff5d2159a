#include "fuzz/fuzz.h"
#include "stoa/data/tabular/parse.h"

namespace {

// Every kind of cell, with quotes and without.
stoa::RawLayout mixed(bool quotes) {
  using stoa::CellType;
  stoa::RawLayout layout{.source = "csv", .separator = ',', .quotes = quotes};
  layout.columns = {{"y", CellType::kLabel},   {"t", CellType::kText},   {"h", CellType::kHex},
                    {"i", CellType::kInteger}, {"n", CellType::kNumber}, {"s", CellType::kSkip}};
  layout.fields = {
      {"t", 1, stoa::Derivation::kValue, 0},          {"h", 2, stoa::Derivation::kValue, 0},
      {"hour", 3, stoa::Derivation::kStampHour, 0},   {"day", 3, stoa::Derivation::kUnixWeekday, 0},
      {"end", 3, stoa::Derivation::kStampWeekend, 0}, {"n", 4, stoa::Derivation::kBucket, 0},
      {"joined", 3, stoa::Derivation::kJoined, 0}};
  return layout;
}

void parse(const stoa::RawLayout& layout, std::string_view text) {
  const stoa::Joins joins{{"names"}, {{7, {"seven"}}}};
  const stoa::RowParser parser(layout, "input");
  stoa::ParsedRows rows(layout, 3);
  std::vector<std::uint64_t> scratch;
  std::vector<std::string_view> texts;
  stoa::fuzz::refusing([&] {
    for (std::string_view rest = text; !rest.empty();) {
      const std::size_t used = parser.parse(rest, 1, rows);
      stoa::fuzz::require(used > 0 && used <= rest.size());
      rest.remove_prefix(used);
      for (const auto& field : layout.fields) {
        const std::uint64_t* keys = stoa::field_keys(layout, field, rows, joins, scratch, texts);
        stoa::fuzz::touch({reinterpret_cast<const std::uint8_t*>(keys), 8 * rows.rows});
        for (const std::string_view value : texts)
          stoa::fuzz::touch({reinterpret_cast<const std::uint8_t*>(value.data()), value.size()});
      }
    }
  });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  parse(mixed(true), text);
  parse(mixed(false), text);
  parse(stoa::criteo_layout(size % 2 == 0), text);
  stoa::fuzz::refusing([&] { stoa::split_line(text, ',', true, "input"); });
  return 0;
}
