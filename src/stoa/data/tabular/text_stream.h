#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace stoa {

/// Reads a file piece by piece; gzip and Zstandard are told by their first bytes and unpacked on the way.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  /// Up to `count` bytes, fewer only at the end. Throws IoError, or DataError for a packed stream that is
  /// truncated or damaged.
  virtual std::size_t read(char* to, std::size_t count) = 0;
  /// Bytes of the file itself that were used so far.
  virtual std::int64_t consumed() const = 0;
};
std::unique_ptr<ByteSource> open_byte_source(const std::filesystem::path& file);

/// Text without the byte order mark that it may begin with.
std::string_view without_byte_order_mark(std::string_view text);

/// The first line of a file without its end and without a byte order mark; empty where the file is.
std::string first_line(const std::filesystem::path& file);

/// Whole lines of an input.
struct TextChunk {
  std::int64_t number = 0;      ///< of the chunk, over all files
  std::size_t file = 0;         ///< place in the list of files
  std::int64_t first_line = 1;  ///< in its file, from 1
  std::int64_t first_row = 0;   ///< over all files; headers are no rows
  std::int64_t rows = 0;
  std::string_view text;  ///< within `memory`
  std::vector<char> memory;
};

/// Files as chunks of lines, one after the other. Where the cuts lie depends on the text and the chunk size
/// alone.
class TextStream {
 public:
  /// `header` is the line that each file must begin with, or empty. Throws IoError for a file that cannot be
  /// opened.
  TextStream(std::vector<std::filesystem::path> files, std::string header, std::size_t chunk_bytes);

  /// The next chunk; false at the end. Thread-safe. `chunk`'s memory is used again. Throws DataError for a
  /// line longer than 16 MiB or a header that differs.
  bool next(TextChunk& chunk);
  /// Rows handed out so far.
  std::int64_t rows() const;
  std::int64_t chunks() const;
  /// Share of the input's bytes read so far.
  double share() const;

 private:
  bool fill(TextChunk& chunk);
  void open_file();

  std::vector<std::filesystem::path> files_;
  std::string header_;
  std::size_t chunk_bytes_;
  mutable std::mutex mutex_;
  std::unique_ptr<ByteSource> source_;
  std::size_t file_ = 0;
  std::vector<char> carried_;  // the line that the last chunk had only the front of
  std::int64_t line_ = 1, row_ = 0, chunk_ = 0, finished_bytes_ = 0, total_bytes_ = 0;
};

/// Calls `work` for each chunk from one thread per CPU core (`threads` where given). Where it throws, the
/// error of the lowest chunk is thrown. Throws Interrupted once the user asked to stop; `progress` is called
/// after each chunk, by one thread at a time, with the rows done.
void for_each_chunk(TextStream& stream, const std::function<void(const TextChunk&)>& work,
                    const std::function<void(std::int64_t rows)>& progress, int threads = 0);

}  // namespace stoa
