#include "stoa/data/prepared_folder.h"

#include <gtest/gtest.h>

#include "stoa/base/errors.h"
#include "support/temp_dir.h"
#include "support/thrown.h"

namespace stoa::test {
namespace {

constexpr PreparedKind kKind = {"all.json", "toy-1", "toys", "make toys"};

TEST(PreparedFolder, LargeFilesAreComparedBySizeAlone) {
  const TempDir folder;
  write_file_atomically(folder / "a.bin", "four");
  const Json entry = file_entry(folder.path(), "a.bin");
  EXPECT_EQ(checked_file(kKind, folder.path(), entry)->bytes().size(), 4);
  write_file_atomically(folder / "a.bin", "fool");
  EXPECT_EQ(checked_file(kKind, folder.path(), entry, 3)->bytes().size(), 4);
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { checked_file(kKind, folder.path(), entry, 4); }),
                       "a.bin: altered, or of another data set");
  write_file_atomically(folder / "a.bin", "longer");
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { checked_file(kKind, folder.path(), entry, 3); }),
                       "a.bin: it has 6 bytes, 4 were written; prepare the toys again");
  std::filesystem::remove(folder / "a.bin");
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { checked_file(kKind, folder.path(), entry); }),
                       "it is part of the prepared toys, prepare the toys again");
}

TEST(PreparedFolder, TheClosingFileComesBackAndFaultsInItAreDataErrors) {
  const TempDir folder;
  const auto read = [&](const std::string& key) {
    std::string value;
    read_closing_file(kKind, folder.path(), [&](const Json& json) { value = json.at(key); });
    return value;
  };
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { read("a"); }),
                       "no prepared toys there (no all.json); make such a folder with `make toys`");
  write_closing_file(kKind, folder.path(), {{"a", "b"}, {"c", 1}});
  EXPECT_EQ(read("a"), "b");
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { read("c"); }), "all.json: cannot be read");
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { read("d"); }), "all.json: cannot be read");
  for (const char* content : {"[1]", "3", "{}", "{\"crc32\": 5}"}) {
    write_file_atomically(folder / "all.json", content);
    STOA_EXPECT_CONTAINS(thrown<DataError>([&] { read("a"); }), "all.json: cannot be read");
  }
  write_closing_file({"all.json", "toy-2", "toys", "make toys"}, folder.path(), {{"a", "b"}});
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { read("a"); }), "format \"toy-2\"; this program reads toy-1");
}

}  // namespace
}  // namespace stoa::test
