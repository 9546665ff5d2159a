#include "stoa/data/tabular/text_stream.h"

#include <gtest/gtest.h>

#include <mutex>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "support/click_files.h"
#include "support/thrown.h"
#include "support/zstd_file.h"

namespace stoa::test {
namespace {

namespace fs = std::filesystem;

std::string numbered_lines(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text += "line " + std::to_string(i) + "\n";
  return text;
}

/// All text of a stream, with its chunks' places checked against each other.
std::string read_all(TextStream& stream) {
  std::string text;
  std::int64_t rows = 0;
  for (TextChunk chunk; stream.next(chunk);) {
    EXPECT_EQ(chunk.first_row, rows);
    rows += chunk.rows;
    text += chunk.text;
  }
  EXPECT_EQ(stream.rows(), rows);
  return text;
}

class Stream : public ::testing::Test {
 protected:
  std::string read(const std::string& name, std::size_t chunk = 64) {
    TextStream stream({folder_ / name}, "", chunk);
    return read_all(stream);
  }
  TempDir folder_;
};

TEST_F(Stream, GivesEveryByteForAnyChunkSize) {
  const std::string text = numbered_lines(200) + "no end";
  write_text(folder_ / "a", text);
  for (const std::size_t chunk : {1u, 7u, 64u, 1000u, 100000u}) EXPECT_EQ(read("a", chunk), text);
}

TEST_F(Stream, UnpacksGzipOfSeveralMembers) {
  const std::string text = numbered_lines(5000);
  write_gzip(folder_ / "a.gz", text);
  write_gzip(folder_ / "b.gz", "more\n");
  write_text(folder_ / "c.gz", read_file(folder_ / "a.gz") + read_file(folder_ / "b.gz"));
  EXPECT_EQ(read("c.gz", 5000), text + "more\n");
}

TEST_F(Stream, UnpacksZstandardOfSeveralFrames) {
  const std::string text = numbered_lines(50000);
  write_zstd(folder_ / "a.zst", text);
  write_zstd(folder_ / "b.zst", "more\n");
  write_text(folder_ / "c.zst", read_file(folder_ / "a.zst") + read_file(folder_ / "b.zst"));
  EXPECT_EQ(read("c.zst", 5000), text + "more\n");
}

TEST_F(Stream, UnpacksZstandardThatWasPackedWithALongWindow) {
  const std::string text = numbered_lines(1000);
  std::string packed(ZSTD_compressBound(text.size()), '\0');
  ZSTD_CCtx* const context = ZSTD_createCCtx();
  ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, 28);  // 27 is what readers allow unasked
  ZSTD_inBuffer in{text.data(), text.size(), 0};
  ZSTD_outBuffer out{packed.data(), packed.size(), 0};
  ZSTD_compressStream2(context, &out, &in, ZSTD_e_flush);  // the size is not known yet
  ASSERT_EQ(ZSTD_compressStream2(context, &out, &in, ZSTD_e_end), 0u);
  ZSTD_freeCCtx(context);
  write_text(folder_ / "a.zst", packed.substr(0, out.pos));
  EXPECT_EQ(read("a.zst"), text);
}

TEST_F(Stream, RefusesPackedFilesThatAreCutShort) {
  write_gzip(folder_ / "a.gz", numbered_lines(5000));
  write_zstd(folder_ / "a.zst", numbered_lines(5000));
  for (const std::string name : {"a.gz", "a.zst"}) {
    const std::string packed = read_file(folder_ / name);
    for (const std::size_t length : {packed.size() - 1, packed.size() / 2, std::size_t{12}}) {
      write_text(folder_ / name, packed.substr(0, length));
      STOA_EXPECT_CONTAINS(thrown<DataError>([&] { read(name); }), "truncated");
    }
  }
}

TEST_F(Stream, RefusesPackedFilesThatWereAltered) {
  write_gzip(folder_ / "a.gz", numbered_lines(5000));
  std::string packed = read_file(folder_ / "a.gz");
  packed[packed.size() - 6] ^= 1;  // the checksum
  write_text(folder_ / "a.gz", packed);
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { read("a.gz"); }), "a.gz: the gzip stream is damaged");
}

TEST_F(Stream, HeadersAndByteOrderMarksAreNoRows) {
  write_text(folder_ / "a", "\xef\xbb\xbfx,y\r\n1,2\n");
  write_text(folder_ / "b", "x,y\n3,4");
  EXPECT_EQ(first_line(folder_ / "a"), "x,y");
  TextStream stream({folder_ / "a", folder_ / "b"}, "x,y", 1 << 10);
  EXPECT_EQ(read_all(stream), "1,2\n3,4");
  EXPECT_EQ(stream.rows(), 2);
}

TEST_F(Stream, AFileOfAByteOrderMarkAloneHasNoRows) {
  write_text(folder_ / "a", "\xef\xbb\xbf");
  TextStream stream({folder_ / "a"}, "", 10);
  EXPECT_EQ(read_all(stream), "");
  EXPECT_EQ(stream.rows(), 0);
}

TEST_F(Stream, RefusesFilesOfAnotherHeader) {
  write_text(folder_ / "a", "x,y\n1,2\n");
  write_text(folder_ / "b", "y,x\n1,2\n");
  TextStream stream({folder_ / "a", folder_ / "b"}, "x,y", 1 << 10);
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { read_all(stream); }), "b:1, column 1: the header differs");
}

TEST_F(Stream, RefusesALineWithoutEnd) {
  write_text(folder_ / "a", "short\n" + std::string(17 << 20, 'x'));
  TextStream stream({folder_ / "a"}, "", 1 << 20);
  STOA_EXPECT_CONTAINS(thrown<DataError>([&] { read_all(stream); }),
                       "a:2, column 1: the line is longer than 16 MiB");
}

TEST_F(Stream, RefusesAFolderAndAFileThatIsNotThere) {
  EXPECT_NE(thrown<IoError>([&] { TextStream({folder_.path()}, "", 10); }), "");
  STOA_EXPECT_CONTAINS(thrown<IoError>([&] { TextStream({folder_ / "none"}, "", 10); }),
                       "none: No such file");
}

TEST_F(Stream, TheLowestChunksErrorIsThrown) {
  write_text(folder_ / "a", numbered_lines(3000));
  TextStream stream({folder_ / "a"}, "", 100);
  const auto work = [](const TextChunk& chunk) {
    if (chunk.number >= 20) throw DataError(std::to_string(chunk.number));
  };
  EXPECT_EQ(thrown<DataError>([&] {
              for_each_chunk(
                  stream, work, [](std::int64_t) {}, 8);
            }),
            "20");
}

}  // namespace
}  // namespace stoa::test
