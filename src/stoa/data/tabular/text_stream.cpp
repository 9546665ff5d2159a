#include "stoa/data/tabular/text_stream.h"

#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <limits>
#include <system_error>
#include <thread>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/interrupt.h"
#include "stoa/data/parallel.h"

namespace stoa {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t kPiece = std::size_t{1} << 18;
constexpr std::size_t kLongestLine = std::size_t{1} << 24;
constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

/// The bytes of a file as they are.
class PlainSource final : public ByteSource {
 public:
  explicit PlainSource(const fs::path& file) : file_(file), stream_(std::fopen(file.c_str(), "rb")) {
    if (stream_ == nullptr || fs::is_directory(file))
      throw IoError(format("cannot read {}: {}", file.string(),
                           std::generic_category().message(stream_ == nullptr ? errno : EISDIR)));
    std::setvbuf(stream_.get(), nullptr, _IONBF, 0);
  }

  std::size_t read(char* to, std::size_t count) override {
    const std::size_t got = std::fread(to, 1, count, stream_.get());
    if (got < count && std::ferror(stream_.get()) != 0)
      throw IoError(format("cannot read {}: {}", file_.string(), std::generic_category().message(errno)));
    consumed_ += static_cast<std::int64_t>(got);
    return got;
  }
  std::int64_t consumed() const override { return consumed_; }

 private:
  struct Close {
    void operator()(std::FILE* stream) const { std::fclose(stream); }
  };
  fs::path file_;
  std::unique_ptr<std::FILE, Close> stream_;
  std::int64_t consumed_ = 0;
};

/// What both packed forms share: a buffer of packed bytes.
class PackedSource : public ByteSource {
 public:
  explicit PackedSource(const fs::path& file) : file_(file), plain_(file), buffer_(kPiece) {}
  std::int64_t consumed() const override { return plain_.consumed(); }

 protected:
  /// Reads on where all packed bytes are used; false at the end of the file.
  bool refill() {
    if (at_ < filled_) return true;
    filled_ = plain_.read(buffer_.data(), buffer_.size());
    at_ = 0;
    return filled_ > 0;
  }
  [[noreturn]] void damaged(const char* kind, const char* what) const {
    throw DataError(format("{}: the {} stream is {} near byte {}; fetch the file again", file_.string(), kind,
                           what, plain_.consumed()));
  }

  fs::path file_;
  PlainSource plain_;
  std::vector<char> buffer_;
  std::size_t at_ = 0, filled_ = 0;
};

class GzipSource final : public PackedSource {
 public:
  explicit GzipSource(const fs::path& file) : PackedSource(file) {
    if (inflateInit2(&stream_, 15 + 16) != Z_OK) throw IoError("cannot start zlib: out of memory");
  }
  ~GzipSource() override { inflateEnd(&stream_); }

  std::size_t read(char* to, std::size_t count) override {
    std::size_t done = 0;
    while (done < count && refill()) {
      if (between_) {
        if (buffer_[at_] == 0) {  // padding of tapes and disks
          ++at_;
          continue;
        }
        if (buffer_[at_] != '\x1f') damaged("gzip", "followed by something else");
        between_ = false;
        inflateReset(&stream_);
      }
      stream_.next_in = reinterpret_cast<Bytef*>(buffer_.data() + at_);
      stream_.avail_in = static_cast<uInt>(filled_ - at_);
      stream_.next_out = reinterpret_cast<Bytef*>(to + done);
      const std::size_t room = std::min(count - done, std::size_t{1} << 30);
      stream_.avail_out = static_cast<uInt>(room);
      const int state = inflate(&stream_, Z_NO_FLUSH);
      if (state != Z_OK && state != Z_STREAM_END && state != Z_BUF_ERROR) damaged("gzip", "damaged");
      at_ = filled_ - stream_.avail_in;
      done += room - stream_.avail_out;
      between_ = state == Z_STREAM_END;
    }
    if (done < count && !between_) damaged("gzip", "truncated");
    return done;
  }

 private:
  z_stream stream_{};
  bool between_ = false;
};

class ZstdSource final : public PackedSource {
 public:
  explicit ZstdSource(const fs::path& file) : PackedSource(file), stream_(ZSTD_createDStream()) {
    if (stream_ == nullptr) throw IoError("cannot start zstd: out of memory");
    // what --long=31 packs asks for more memory than is given unasked
    ZSTD_DCtx_setParameter(stream_.get(), ZSTD_d_windowLogMax,
                           ZSTD_dParam_getBounds(ZSTD_d_windowLogMax).upperBound);
  }

  std::size_t read(char* to, std::size_t count) override {
    ZSTD_outBuffer out{to, count, 0};
    while (out.pos < count) {
      const std::size_t before = out.pos;
      if (!pending_ && !refill()) {
        if (!ended_) damaged("zstd", "truncated");
        break;
      }
      ZSTD_inBuffer in{buffer_.data(), filled_, at_};
      const std::size_t state = ZSTD_decompressStream(stream_.get(), &out, &in);
      if (ZSTD_isError(state) != 0) damaged("zstd", "damaged");
      const bool used = in.pos != at_;
      at_ = in.pos;
      if (used || out.pos != before) ended_ = state == 0;
      pending_ = out.pos == count && state != 0;  // unpacked bytes that found no room
      if (!used && out.pos == before && at_ == filled_) pending_ = false;
    }
    return out.pos;
  }

 private:
  struct Free {
    void operator()(ZSTD_DStream* stream) const { ZSTD_freeDStream(stream); }
  };
  std::unique_ptr<ZSTD_DStream, Free> stream_;
  bool ended_ = true, pending_ = false;
};

std::int64_t count_lines(std::string_view text) {
  std::int64_t ends = 0;
  for (std::size_t at = 0; (at = text.find('\n', at)) != std::string_view::npos; ++at) ++ends;
  return text.empty() || text.back() == '\n' ? ends : ends + 1;
}

std::string_view without_carriage_return(std::string_view line) {
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  return line;
}

}  // namespace

std::unique_ptr<ByteSource> open_byte_source(const fs::path& file) {
  unsigned char magic[4] = {};
  PlainSource(file).read(reinterpret_cast<char*>(magic), 4);
  if (magic[0] == 0x1f && magic[1] == 0x8b) return std::make_unique<GzipSource>(file);
  if (magic[0] == 0x28 && magic[1] == 0xb5 && magic[2] == 0x2f && magic[3] == 0xfd)
    return std::make_unique<ZstdSource>(file);
  return std::make_unique<PlainSource>(file);
}

std::string_view without_byte_order_mark(std::string_view text) {
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  return text;
}

std::string first_line(const fs::path& file) {
  const auto source = open_byte_source(file);
  std::string text;
  while (text.find('\n') == std::string::npos && text.size() < kLongestLine) {
    const std::size_t before = text.size();
    text.resize(before + 4096);
    text.resize(before + source->read(text.data() + before, 4096));
    if (text.size() == before) break;
  }
  std::string_view line(text);
  return std::string(without_byte_order_mark(without_carriage_return(line.substr(0, line.find('\n')))));
}

TextStream::TextStream(std::vector<fs::path> files, std::string header, std::size_t chunk_bytes)
    : files_(std::move(files)),
      header_(std::move(header)),
      chunk_bytes_(std::max<std::size_t>(1, chunk_bytes)) {
  for (const fs::path& file : files_) {
    open_byte_source(file);
    total_bytes_ += static_cast<std::int64_t>(fs::file_size(file));
  }
}

void TextStream::open_file() {
  source_ = open_byte_source(files_[file_]);
  line_ = 1;
  carried_.clear();
}

// Reads `chunk.memory` from the current file; false where the file is at its end.
bool TextStream::fill(TextChunk& chunk) {
  std::vector<char>& memory = chunk.memory;  // never made smaller, as growing fills it with zeros
  std::size_t filled = carried_.size();
  if (memory.size() < filled) memory.resize(filled);
  std::ranges::copy(carried_, memory.begin());
  carried_.clear();
  for (std::size_t wanted = std::max(chunk_bytes_, filled + 1);; wanted *= 2) {
    if (memory.size() < wanted) memory.resize(wanted);
    filled += source_->read(memory.data() + filled, wanted - filled);
    const std::string_view text(memory.data(), filled);
    const bool ended = filled < wanted;  // the file
    const std::size_t last = text.rfind('\n');
    if (last == std::string_view::npos && filled > kLongestLine)
      throw DataError(format("{}:{}, column 1: the line is longer than {} MiB; is this a text file?",
                             files_[file_].string(), line_, kLongestLine >> 20));
    if (ended || last != std::string_view::npos) {
      chunk.text = ended ? text : text.substr(0, last + 1);
      carried_.assign(chunk.text.end(), text.end());
      return filled > 0;
    }
  }
}

bool TextStream::next(TextChunk& chunk) {
  const std::lock_guard lock(mutex_);
  while (true) {
    if (file_ == files_.size()) return false;
    if (!source_) open_file();
    const bool first = line_ == 1;
    if (!fill(chunk)) {
      if (first && !header_.empty())
        throw DataError(
            format("{}:1, column 1: the file is empty; a header line is needed", files_[file_].string()));
      finished_bytes_ += source_->consumed();
      source_.reset();
      ++file_;
      continue;
    }
    if (first) chunk.text = without_byte_order_mark(chunk.text);
    const std::int64_t lines = count_lines(chunk.text);
    chunk.file = file_;
    chunk.first_line = line_;
    chunk.rows = lines;
    line_ += lines;
    if (first && !header_.empty()) {
      const std::size_t end = std::min(chunk.text.find('\n'), chunk.text.size());
      if (without_carriage_return(chunk.text.substr(0, end)) != header_)
        throw DataError(format(
            "{}:1, column 1: the header differs from the first file's; all files must have the same columns",
            files_[file_].string()));
      chunk.text.remove_prefix(std::min(end + 1, chunk.text.size()));
      ++chunk.first_line;
      --chunk.rows;
    }
    chunk.number = chunk_++;
    chunk.first_row = row_;
    row_ += chunk.rows;
    return true;
  }
}

std::int64_t TextStream::rows() const {
  const std::lock_guard lock(mutex_);
  return row_;
}

std::int64_t TextStream::chunks() const {
  const std::lock_guard lock(mutex_);
  return chunk_;
}

double TextStream::share() const {
  const std::lock_guard lock(mutex_);
  const std::int64_t read = finished_bytes_ + (source_ ? source_->consumed() : 0);
  return total_bytes_ == 0 ? 1 : static_cast<double>(read) / static_cast<double>(total_bytes_);
}

void for_each_chunk(TextStream& stream, const std::function<void(const TextChunk&)>& work,
                    const std::function<void(std::int64_t)>& progress, int threads) {
  std::mutex mutex;
  std::atomic<bool> stop{false};
  std::int64_t failed = std::numeric_limits<std::int64_t>::max(), done = 0;
  std::exception_ptr error;
  const auto note = [&](std::int64_t number) {
    const std::lock_guard lock(mutex);
    stop = true;
    if (number < failed) {
      failed = number;
      error = std::current_exception();
    }
  };
  const auto worker = [&](std::int64_t) {
    TextChunk chunk;
    while (!stop) {
      try {
        if (interrupted()) throw Interrupted("stopped; the same command goes on from here");
        if (!stream.next(chunk)) return;
      } catch (...) {
        return note(std::numeric_limits<std::int64_t>::max() - 1);  // behind every chunk that was handed out
      }
      try {
        work(chunk);
      } catch (...) {
        return note(chunk.number);
      }
      const std::lock_guard lock(mutex);
      progress(done += chunk.rows);
    }
  };
  const int cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  for_each_parallel(threads > 0 ? threads : cores, worker);
  if (error) std::rethrow_exception(error);
}

}  // namespace stoa
