#include "stoa/base/json.h"

#include <gtest/gtest.h>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "support/temp_dir.h"
#include "support/thrown.h"

namespace stoa {
namespace {

using test::thrown;

std::string refusal(const std::string& text) {
  const test::TempDir dir;
  write_file_atomically(dir / "file.json", text);
  return thrown<DataError>([&] { read_json(dir / "file.json"); });
}

TEST(ReadJson, RefusesWhatItCannotHold) {
  EXPECT_TRUE(refusal("{\"a\": ")
                  .ends_with("file.json: not valid JSON at byte 7; the file is damaged or was cut short"));
  EXPECT_TRUE(refusal("[1e999]").ends_with("a number is too large for 64 bits; the file is damaged"));
  EXPECT_TRUE(refusal(std::string(100'000, '[')).ends_with("values are nested deeper than 100 levels"));
}

TEST(ReadJson, KeepsTheOrderOfKeys) {
  const test::TempDir dir;
  write_file_atomically(dir / "file.json", R"({"b": [1, {"z": 2}], "a": 3})");
  EXPECT_EQ(read_json(dir / "file.json").dump(), R"({"b":[1,{"z":2}],"a":3})");
}

}  // namespace
}  // namespace stoa
