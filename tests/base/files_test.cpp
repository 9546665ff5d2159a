#include "stoa/base/files.h"

#include <gtest/gtest.h>

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>
#include <csignal>

#include <fstream>

#include "stoa/base/errors.h"
#include "stoa/base/json.h"
#include "support/temp_dir.h"
#include "support/thrown.h"

namespace stoa {
namespace {

namespace fs = std::filesystem;
using test::TempDir;
using test::thrown;

void put(const fs::path& file, std::string_view content) {
  std::ofstream(file, std::ios::binary) << content;
}

std::string gzipped(const TempDir& dir, const std::string& content) {
  const fs::path file = dir / "packed.gz";
  const gzFile out = gzopen(file.c_str(), "wb");
  gzwrite(out, content.data(), static_cast<unsigned>(content.size()));
  gzclose(out);
  return read_file(file);
}

std::string text_of(const std::vector<std::uint8_t>& bytes) {
  return {bytes.begin(), bytes.end()};
}

// Text that packs badly enough to fill several pieces.
std::string long_text() {
  std::string text;
  for (int i = 0; i < 400000; ++i) text += std::to_string(i * 2654435761u);
  return text;
}

std::size_t files_in(const TempDir& dir) {
  return static_cast<std::size_t>(
      std::distance(fs::directory_iterator(dir.path()), fs::directory_iterator()));
}

TEST(Files, ReadFileGivesEveryByte) {
  const TempDir dir;
  const std::string content("a\0b\r\n\xff", 6);
  put(dir / "f", content);
  EXPECT_EQ(read_file(dir / "f"), content);
}

TEST(Files, ReadFileReadsFilesWhoseSizeTheSystemDoesNotTell) {
  EXPECT_FALSE(read_file("/proc/self/status").empty());
}

TEST(Files, ReadFileNamesFileAndReason) {
  EXPECT_EQ(thrown<IoError>([] { read_file("/no/such/file"); }),
            "cannot read /no/such/file: No such file or directory");
  EXPECT_EQ(thrown<IoError>([] { read_file("/tmp"); }), "cannot read /tmp: Is a directory");
}

TEST(Files, AnUnreadableFolderIsNamedWithTheReason) {
  const TempDir dir;
  put(dir / "f", "x");
  const uid_t user = geteuid();
  // root reads everything, so the test reads as nobody, who may not enter a folder of root's
  if (user == 0 && seteuid(65534) != 0) GTEST_SKIP() << "root without the right to become another user";
  if (user != 0) fs::permissions(dir.path(), fs::perms::none);
  const std::string message = thrown<IoError>([&] { read_file(dir / "f"); });
  if (user == 0) {
    ASSERT_EQ(seteuid(0), 0);
  }
  if (user != 0) fs::permissions(dir.path(), fs::perms::owner_all);
  EXPECT_EQ(message, "cannot read " + (dir / "f").string() + ": Permission denied");
}

TEST(Files, GzipIsUnpackedAndPlainIsLeft) {
  const TempDir dir;
  put(dir / "plain", "as it is");
  put(dir / "f.gz", gzipped(dir, "packed text"));
  EXPECT_EQ(text_of(read_maybe_gzip(dir / "plain")), "as it is");
  EXPECT_EQ(text_of(read_maybe_gzip(dir / "f.gz")), "packed text");
}

TEST(Files, LongGzipStreamsAreUnpackedWhole) {
  const TempDir dir;
  const std::string text = long_text();
  put(dir / "f.gz", gzipped(dir, text));
  EXPECT_TRUE(text_of(read_maybe_gzip(dir / "f.gz")) == text);
}

TEST(Files, EmptyFilesAndEmptyGzipStreamsAreEmpty) {
  const TempDir dir;
  put(dir / "empty", "");
  put(dir / "f.gz", gzipped(dir, ""));
  EXPECT_TRUE(read_maybe_gzip(dir / "empty").empty());
  EXPECT_TRUE(read_maybe_gzip(dir / "f.gz").empty());
}

TEST(Files, GzipStreamsBehindEachOtherAreOneContent) {
  const TempDir dir;
  put(dir / "f.gz", gzipped(dir, "one ") + gzipped(dir, "two"));
  EXPECT_EQ(text_of(read_maybe_gzip(dir / "f.gz")), "one two");
}

TEST(Files, AGzipStreamCutAnywhereIsRefused) {
  const TempDir dir;
  const std::string packed = gzipped(dir, "some text that will be cut");
  for (std::size_t size = 2; size < packed.size(); ++size) {
    put(dir / "cut.gz", packed.substr(0, size));
    const std::string message = thrown<DataError>([&] { read_maybe_gzip(dir / "cut.gz"); });
    STOA_EXPECT_CONTAINS(message, "cut.gz: the gzip stream is truncated");
  }
}

TEST(Files, AnAlteredGzipStreamIsRefused) {
  const TempDir dir;
  std::string packed = gzipped(dir, long_text());
  packed[packed.size() / 2] = static_cast<char>(packed[packed.size() / 2] ^ 1);
  put(dir / "bad.gz", packed);
  const std::string message = thrown<DataError>([&] { read_maybe_gzip(dir / "bad.gz"); });
  STOA_EXPECT_CONTAINS(message, "bad.gz: the gzip stream is damaged near byte ");
}

TEST(Files, BytesBehindAGzipStreamAreRefusedUnlessZero) {
  const TempDir dir;
  put(dir / "tail.gz", gzipped(dir, "text") + "tail");
  put(dir / "zeros.gz", gzipped(dir, "text") + std::string(512, '\0'));
  const std::string message = thrown<DataError>([&] { read_maybe_gzip(dir / "tail.gz"); });
  STOA_EXPECT_CONTAINS(message, "4 bytes that are no gzip stream follow");
  EXPECT_EQ(text_of(read_maybe_gzip(dir / "zeros.gz")), "text");
}

TEST(Files, AtomicWriteMakesAndReplacesFiles) {
  const TempDir dir;
  write_file_atomically(dir / "f", "first");
  EXPECT_EQ(read_file(dir / "f"), "first");
  write_file_atomically(dir / "f", "second");
  EXPECT_EQ(read_file(dir / "f"), "second");
  EXPECT_EQ(files_in(dir), 1u);
}

TEST(Files, AtomicWriteJoinsPiecesOfAllSizes) {
  const TempDir dir;
  std::string expected;
  write_file_atomically(dir / "f", [&](const Append& append) {
    for (const std::size_t size : {1u, 100000u, 200000u, 0u, 1000000u, 3u}) {
      const std::string piece(size, static_cast<char>('a' + expected.size() % 26));
      expected += piece;
      append(std::as_bytes(std::span(piece)));
    }
  });
  EXPECT_TRUE(read_file(dir / "f") == expected);
}

TEST(Files, AReaderSeesTheOldContentWhileTheNewIsWritten) {
  const TempDir dir;
  write_file_atomically(dir / "f", "old");
  write_file_atomically(dir / "f", [&](const Append& append) {
    const std::string piece(1 << 20, 'x');
    append(std::as_bytes(std::span(piece)));
    EXPECT_EQ(read_file(dir / "f"), "old");
  });
}

TEST(Files, AnErrorOfTheProducerLeavesTheOldFileAndNothingElse) {
  const TempDir dir;
  write_file_atomically(dir / "f", "old");
  const auto produce = [](const Append& append) {
    const std::string piece(1 << 20, 'x');
    append(std::as_bytes(std::span(piece)));
    throw DataError("no more");
  };
  EXPECT_THROW(write_file_atomically(dir / "f", produce), DataError);
  EXPECT_EQ(read_file(dir / "f"), "old");
  EXPECT_EQ(files_in(dir), 1u);
}

TEST(Files, AProcessKilledWhileWritingLeavesTheOldFile) {
  const TempDir dir;
  write_file_atomically(dir / "f", "old");
  const pid_t child = fork();
  if (child == 0)
    write_file_atomically(dir / "f", [](const Append& append) {
      const std::string piece(1 << 20, 'x');
      append(std::as_bytes(std::span(piece)));
      raise(SIGKILL);
    });
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(read_file(dir / "f"), "old");
}

// The limit on file sizes makes write(2) fail in the middle of a file, as a full disk does.
TEST(Files, AWriteThatFailsHalfwayLeavesTheOldFileAndNothingElse) {
  const TempDir dir;
  write_file_atomically(dir / "f", "old");
  const std::string content(1 << 20, 'x');
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small{1 << 19, before.rlim_max};
  std::signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &small);
  const std::string message = thrown<IoError>([&] { write_file_atomically(dir / "f", content); });
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_EQ(message,
            "cannot write " + (dir / "f").string() +
                ": File too large; 1048576 bytes were being written; raise the limit on the size of files "
                "(ulimit -f), or choose another disk");
  EXPECT_EQ(read_file(dir / "f"), "old");
  EXPECT_EQ(files_in(dir), 1u);
}

TEST(Files, AFullDiskIsNamedWithTheBytesAndTheCure) {
  if (!fs::is_character_file("/dev/full")) GTEST_SKIP() << "this system has no /dev/full";
  const std::string message = thrown<IoError>([] { write_file_atomically("/dev/full", "12345"); });
  EXPECT_EQ(message,
            "cannot write /dev/full: No space left on device; 5 bytes were being written; free space and try "
            "again");
  EXPECT_TRUE(fs::is_character_file("/dev/full"));
}

TEST(Files, WritingIntoAMissingFolderSaysWhatToDo) {
  const TempDir dir;
  const std::string message = thrown<IoError>([&] { write_file_atomically(dir / "no/f", "x"); });
  STOA_EXPECT_CONTAINS(message, "No such file or directory; its folder does not exist: create it first");
}

TEST(Files, ASymbolicLinkStaysOneAndItsTargetIsReplaced) {
  const TempDir dir;
  write_file_atomically(dir / "target", "old");
  fs::create_symlink("target", dir / "link");
  write_file_atomically(dir / "link", "new");
  EXPECT_TRUE(fs::is_symlink(dir / "link"));
  EXPECT_EQ(read_file(dir / "target"), "new");
}

TEST(Files, SyncFolderNamesAFolderThatIsNotThere) {
  const TempDir dir;
  EXPECT_NO_THROW(sync_folder(dir.path()));
  const std::string message = thrown<IoError>([&] { sync_folder(dir / "none"); });
  STOA_EXPECT_CONTAINS(message, (dir / "none").string());
}

TEST(Files, AMappedFileShowsTheBytesOfTheFile) {
  const TempDir dir;
  put(dir / "f", "mapped");
  const MappedFile mapped(dir / "f");
  EXPECT_EQ(std::string(mapped.bytes().begin(), mapped.bytes().end()), "mapped");
}

TEST(Files, AnEmptyFileMapsToAnEmptySpan) {
  const TempDir dir;
  put(dir / "f", "");
  EXPECT_TRUE(MappedFile(dir / "f").bytes().empty());
}

TEST(Files, MappingAMissingFileOrAFolderIsRefused) {
  const TempDir dir;
  STOA_EXPECT_CONTAINS(thrown<IoError>([&] { MappedFile(dir / "none"); }), "No such file or directory");
  STOA_EXPECT_CONTAINS(thrown<IoError>([&] { MappedFile(dir.path()); }), "Is a directory");
}

TEST(Files, ALockedFileNamesTheProcessThatHoldsIt) {
  const TempDir dir;
  const FileLock lock(dir / "lock");
  const std::string message = thrown<ConfigError>([&] { FileLock(dir / "lock"); });
  STOA_EXPECT_CONTAINS(message, "lock is in use by process " + std::to_string(getpid()) + ";");
}

TEST(Files, ALockEndsWithItsScope) {
  const TempDir dir;
  { const FileLock lock(dir / "lock"); }
  EXPECT_NO_THROW(FileLock(dir / "lock"));
}

TEST(Files, ALockEndsWithItsProcessHoweverThatEnds) {
  const TempDir dir;
  int ready[2] = {};
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    const FileLock lock(dir / "lock");
    if (write(ready[1], "x", 1) == 1) pause();
    _exit(1);
  }
  char byte = 0;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  const std::string message = thrown<ConfigError>([&] { FileLock(dir / "lock"); });
  STOA_EXPECT_CONTAINS(message, "in use by process " + std::to_string(child) + ";");
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  EXPECT_NO_THROW(FileLock(dir / "lock"));
}

TEST(Files, ALockInAMissingFolderIsAnIoError) {
  const TempDir dir;
  STOA_EXPECT_CONTAINS(thrown<IoError>([&] { FileLock(dir / "no/lock"); }), "cannot make the lock file");
}

TEST(Files, AJsonFileThatIsCutShortIsNamedWithTheByte) {
  const TempDir dir;
  put(dir / "state.json", "{\"step\": 12");
  const std::string message = thrown<DataError>([&] { read_json(dir / "state.json"); });
  STOA_EXPECT_CONTAINS(message, "state.json: not valid JSON at byte 12");
}

}  // namespace
}  // namespace stoa
