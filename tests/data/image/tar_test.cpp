#include "stoa/data/image/tar.h"

#include <gtest/gtest.h>

#include "stoa/base/errors.h"
#include "support/image_files.h"
#include "support/thrown.h"

namespace stoa {
namespace {

using test::Bytes;
using test::text;

/// Names and contents of the files in an archive.
std::vector<std::pair<std::string, std::string>> read(const Bytes& archive) {
  std::vector<std::pair<std::string, std::string>> files;
  for (const TarFile& file : index_tar(archive, "archive"))
    files.emplace_back(file.name,
                       std::string(archive.begin() + file.offset, archive.begin() + file.offset + file.size));
  return files;
}

using Files = std::vector<std::pair<std::string, std::string>>;

Bytes ended(Bytes archive) {
  archive.resize(archive.size() + 1024);
  return archive;
}

std::string refusal(const Bytes& archive) {
  return test::thrown<DataError>([&] { index_tar(archive, "archive"); });
}

TEST(IndexTar, FindsFilesInOrder) {
  EXPECT_EQ(read(test::tar({{"b/1.jpg", text("one")}, {"a/2.jpg", text(std::string(600, 'x'))}, {"c", {}}})),
            (Files{{"b/1.jpg", "one"}, {"a/2.jpg", std::string(600, 'x')}, {"c", ""}}));
}

TEST(IndexTar, PassesOverFoldersAndLinks) {
  Bytes archive = test::tar_member("folder/", {}, '5');
  test::append(archive, test::tar_member("link", {}, '2'));
  test::append(archive, test::tar_member("file", text("x")));
  EXPECT_EQ(read(ended(archive)), (Files{{"file", "x"}}));
}

TEST(IndexTar, JoinsThePrefix) {
  Bytes archive = test::tar_member("name", text("x"));
  std::memcpy(&archive[345], "deep/folder", 11);
  unsigned sum = 0;
  for (int i = 0; i < 512; ++i) sum += i >= 148 && i < 156 ? ' ' : archive[i];
  std::snprintf(reinterpret_cast<char*>(&archive[148]), 8, "%06o", sum);
  EXPECT_EQ(read(ended(archive)), (Files{{"deep/folder/name", "x"}}));
}

TEST(IndexTar, ReadsGnuLongNames) {
  const std::string name(300, 'n');
  Bytes archive = test::tar_member("././@LongLink", text(name + '\0'), 'L');
  test::append(archive, test::tar_member("short", text("x")));
  test::append(archive, test::tar_member("next", text("y")));
  EXPECT_EQ(read(ended(archive)), (Files{{name, "x"}, {"next", "y"}}));
}

TEST(IndexTar, ReadsPaxPathAndSize) {
  Bytes archive =
      test::tar_member("pax", text("30 mtime=1700000000.123456789\n16 path=a/b.jpg\n9 size=2\n"), 'x');
  test::append(archive, test::tar_member("short", text("xy")));
  EXPECT_EQ(read(ended(archive)), (Files{{"a/b.jpg", "xy"}}));
}

TEST(IndexTar, RefusesTruncatedWhereverItIsCut) {
  const Bytes whole = test::tar({{"a", text(std::string(700, 'x'))}});
  for (std::size_t size = 0; size + 1024 <= whole.size(); size += 64) {
    const auto message = refusal(test::cut(whole, size));
    STOA_EXPECT_CONTAINS(message, "archive: damaged or truncated tar archive");
    STOA_EXPECT_CONTAINS(message, "pack or get it again");
  }
}

TEST(IndexTar, RefusesAnAlteredHeader) {
  Bytes archive = test::tar({{"a", text("x")}});
  archive[0] = 'b';
  STOA_EXPECT_CONTAINS(refusal(archive), "checksum");
}

TEST(IndexTar, RefusesDamagedPaxRecords) {
  for (const char* records : {"99 path=x\n", "x", "3 \n", "5 ab\n", "11 size=zz\n"})
    STOA_EXPECT_CONTAINS(refusal(ended(test::tar_member("pax", text(records), 'x'))), "pax");
}

TEST(IndexTar, RefusesASizeBeyondTheEnd) {
  Bytes archive = test::tar_member("pax", text("14 size=99999\n"), 'x');
  test::append(archive, test::tar_member("a", text("x")));
  STOA_EXPECT_CONTAINS(refusal(ended(archive)), "reaches past the end");
}

}  // namespace
}  // namespace stoa
