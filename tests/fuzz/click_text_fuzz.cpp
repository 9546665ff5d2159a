#include "fuzz/fuzz.h"
#include "stoa/base/progress.h"
#include "stoa/data/tabular/parse.h"
#include "stoa/tasks/click_rows.h"
#include "support/click_files.h"

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

/// What encodes rows to score: of a small table whose columns are of every kind.
stoa::RowEncoder make_encoder() {
  stoa::set_verbosity(stoa::Verbosity::kQuiet);
  const stoa::test::TempDir folder;
  stoa::test::write_text(
      folder / "schema.toml",
      "label = \"y\"\ncategorical = [\"t\"]\nhex = [\"h\"]\ninteger = [\"i\"]\nnumeric = [\"n\"]\n");
  stoa::test::write_text(folder / "rows.csv", "y,t,h,i,n,s\n1,ab,0f,7,2.5,x\n0,,,,,\n");
  auto options = stoa::test::prepare_options("csv", {folder / "rows.csv"}, folder / "out");
  options.table_schema = folder / "schema.toml";
  options.split = "1:0:0";
  options.min_count = 1;
  stoa::prepare_tabular(options);
  return stoa::RowEncoder(folder / "out");
}

void score(std::string_view text) {
  static const stoa::RowEncoder encoder = make_encoder();
  static const std::vector<std::int64_t> sizes = [] {
    std::vector<std::int64_t> all;
    for (const auto& field : encoder.schema().fields) all.push_back(field.size);
    return all;
  }();
  stoa::fuzz::refusing([&] {
    const auto rows =
        stoa::parse_rows(text, "input", sizes, 1, [&]() -> const stoa::RowEncoder& { return encoder; });
    for (const auto& row : rows)
      for (std::size_t f = 0; f < sizes.size(); ++f)
        stoa::fuzz::require(row.ids.at(f) >= 0 && row.ids[f] < sizes[f]);
  });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  parse(mixed(true), text);
  parse(mixed(false), text);
  parse(stoa::criteo_layout(size % 2 == 0), text);
  score(text);
  stoa::fuzz::refusing([&] { stoa::split_line(text, ',', true, "input"); });
  return 0;
}
