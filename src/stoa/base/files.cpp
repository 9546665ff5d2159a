#include "stoa/base/files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"

namespace stoa {

namespace fs = std::filesystem;

namespace {

std::string reason(int code) {
  return std::generic_category().message(code);
}

// What a user can do about a failure to write, with "; " before it.
std::string cure(int code) {
  if (code == ENOSPC || code == EDQUOT) return "; free space and try again";
  if (code == EFBIG) return "; raise the limit on the size of files (ulimit -f), or choose another disk";
  if (code == EACCES || code == EPERM || code == EROFS) return "; choose a folder you may write to";
  if (code == ENOENT || code == ENOTDIR) return "; its folder does not exist: create it first";
  return "";
}

[[noreturn]] void throw_unreadable(const fs::path& file, int code) {
  throw IoError(format("cannot read {}: {}", file.string(), reason(code)));
}

// A file descriptor that is closed when it goes out of scope.
class Descriptor {
 public:
  Descriptor(const fs::path& file, int flags) : value_(::open(file.c_str(), flags | O_CLOEXEC, 0666)) {}
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  int get() const { return value_; }
  // Closes now; the result of close(2), which may bring the news that data did not reach the disk.
  int close() { return ::close(std::exchange(value_, -1)); }

 private:
  int value_;
};

// Size of an open file; refuses folders, which open(2) accepts.
std::size_t size_of(const Descriptor& descriptor, const fs::path& file) {
  struct stat status {};
  if (descriptor.get() < 0 || ::fstat(descriptor.get(), &status) != 0) throw_unreadable(file, errno);
  if (S_ISDIR(status.st_mode)) throw_unreadable(file, EISDIR);
  return static_cast<std::size_t>(status.st_size);
}

template <class Content>
Content read_whole(const fs::path& file) {
  const Descriptor descriptor(file, O_RDONLY);
  Content content;
  content.resize(size_of(descriptor, file) + 1);  // one more, so that the end is seen without growing
  std::size_t filled = 0;
  while (true) {
    if (filled == content.size()) content.resize(2 * filled);
    const ssize_t count = ::read(descriptor.get(), content.data() + filled, content.size() - filled);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw_unreadable(file, errno);
    if (count == 0) break;
    filled += static_cast<std::size_t>(count);
  }
  content.resize(filled);
  return content;
}

bool is_gzip(std::span<const std::uint8_t> bytes) {
  return bytes.size() >= 2 && bytes[0] == 0x1f && bytes[1] == 0x8b;
}

// zlib's state for one gzip stream.
struct Inflater {
  z_stream stream{};
  Inflater() {
    if (inflateInit2(&stream, 15 + 16) != Z_OK) throw IoError("cannot start zlib: out of memory");
  }
  ~Inflater() { inflateEnd(&stream); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;
};

// Unpacks the gzip member at the front of `packed` onto `content`; returns its packed size.
std::size_t unpack_member(std::span<const std::uint8_t> packed, std::vector<std::uint8_t>& content,
                          const fs::path& file) {
  constexpr std::size_t kPiece = std::size_t{1} << 20;
  Inflater inflater;
  z_stream& stream = inflater.stream;
  std::size_t used = 0, filled = content.size();
  for (int state = Z_OK; state != Z_STREAM_END;) {
    const std::size_t room = std::min(packed.size() - used, kPiece);
    stream.next_in = const_cast<Bytef*>(packed.data() + used);  // zlib only reads there
    stream.avail_in = static_cast<uInt>(room);
    if (filled == content.size()) content.resize(filled + std::max(kPiece, filled / 2));
    const std::size_t space = std::min(content.size() - filled, std::size_t{1} << 30);
    stream.next_out = content.data() + filled;
    stream.avail_out = static_cast<uInt>(space);
    state = inflate(&stream, Z_NO_FLUSH);
    used += room - stream.avail_in;
    filled += space - stream.avail_out;
    if (state == Z_BUF_ERROR || (state == Z_OK && used == packed.size() && stream.avail_out > 0))
      throw DataError(format(
          "{}: the gzip stream is truncated: the file ends after {} bytes of unpacked data; fetch it again",
          file.string(), filled));
    if (state != Z_OK && state != Z_STREAM_END)
      throw DataError(format("{}: the gzip stream is damaged near byte {} ({}); fetch it again",
                             file.string(), used, stream.msg != nullptr ? stream.msg : zError(state)));
  }
  content.resize(filled);
  return used;
}

// A file being written: aside under a temporary name, which disappears unless commit() puts it in place.
// Devices and pipes are written directly, because a rename would replace them.
class AtomicWriter {
 public:
  explicit AtomicWriter(const fs::path& file)
      : file_(file), direct_(is_special(file)), target_(file), temporary_(file), descriptor_(open()) {
    if (descriptor_.get() < 0) fail(errno);
  }
  ~AtomicWriter() {
    if (!direct_ && !committed_) ::unlink(temporary_.c_str());
  }
  AtomicWriter(const AtomicWriter&) = delete;
  AtomicWriter& operator=(const AtomicWriter&) = delete;

  void append(std::span<const std::byte> bytes) {
    total_ += bytes.size();
    if (buffer_.size() + bytes.size() > kBuffer) flush();
    if (bytes.size() > kBuffer) return write(bytes);
    buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
  }

  void commit() {
    flush();
    if (!direct_ && ::fsync(descriptor_.get()) != 0) fail(errno);
    if (descriptor_.close() != 0) fail(errno);
    if (direct_) return;
    if (::rename(temporary_.c_str(), target_.c_str()) != 0) fail(errno);
    committed_ = true;
    sync_folder(target_.parent_path());
  }

 private:
  static constexpr std::size_t kBuffer = std::size_t{1} << 18;

  static bool is_special(const fs::path& file) {
    std::error_code ignored;
    const fs::file_type type = fs::status(file, ignored).type();
    return type == fs::file_type::character || type == fs::file_type::fifo || type == fs::file_type::socket;
  }

  Descriptor open() {
    if (direct_) return Descriptor(file_, O_WRONLY);
    std::error_code failed;
    if (fs::is_symlink(file_, failed)) target_ = fs::weakly_canonical(file_, failed);
    if (failed) target_ = file_;
    static std::atomic<unsigned> counter{0};
    temporary_ =
        target_.parent_path() / format(".{}.{}-{}.tmp", target_.filename().string(), ::getpid(), counter++);
    ::unlink(temporary_.c_str());  // left by a killed process that had the same number
    return Descriptor(temporary_, O_WRONLY | O_CREAT | O_EXCL);
  }

  void flush() {
    write(buffer_);
    buffer_.clear();
  }

  void write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t count = ::write(descriptor_.get(), bytes.data(), bytes.size());
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) fail(errno);
      bytes = bytes.subspan(static_cast<std::size_t>(count));
    }
  }

  [[noreturn]] void fail(int code) const {
    const std::string amount = total_ > 0 ? format("; {} bytes were being written", total_) : "";
    throw IoError(format("cannot write {}: {}{}{}", file_.string(), reason(code), amount, cure(code)));
  }

  fs::path file_;  // as the caller named it
  bool direct_;
  fs::path target_;
  fs::path temporary_;
  Descriptor descriptor_;
  std::vector<std::byte> buffer_;
  std::size_t total_ = 0;
  bool committed_ = false;
};

}  // namespace

std::string read_file(const fs::path& file) {
  return read_whole<std::string>(file);
}

std::vector<std::uint8_t> read_maybe_gzip(const fs::path& file) {
  auto packed = read_whole<std::vector<std::uint8_t>>(file);
  if (!is_gzip(packed)) return packed;
  std::vector<std::uint8_t> content;
  std::span<const std::uint8_t> rest = packed;
  while (is_gzip(rest)) rest = rest.subspan(unpack_member(rest, content, file));
  if (std::ranges::any_of(
          rest, [](std::uint8_t byte) { return byte != 0; }))  // zeros are padding of tapes and disks
    throw DataError(
        format("{}: {} bytes that are no gzip stream follow the gzip stream; fetch the file again",
               file.string(), rest.size()));
  return content;
}

void write_file_atomically(const fs::path& file, std::string_view content) {
  write_file_atomically(file, [&](const Append& append) { append(std::as_bytes(std::span(content))); });
}

void write_file_atomically(const fs::path& file, const std::function<void(const Append&)>& produce) {
  AtomicWriter writer(file);
  produce([&](std::span<const std::byte> bytes) { writer.append(bytes); });
  writer.commit();
}

void sync_folder(const fs::path& folder) {
  const fs::path path = folder.empty() ? fs::path(".") : folder;
  Descriptor descriptor(path, O_RDONLY | O_DIRECTORY);
  const bool done = descriptor.get() >= 0 && ::fsync(descriptor.get()) == 0;
  if (!done && errno != EINVAL)  // file systems that cannot sync folders say EINVAL
    throw IoError(format("cannot make the files of folder {} durable: {}{}", path.string(), reason(errno),
                         cure(errno)));
}

MappedFile::MappedFile(const fs::path& file) {
  const Descriptor descriptor(file, O_RDONLY);
  size_ = size_of(descriptor, file);
  if (size_ == 0) return;
  void* const address = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, descriptor.get(), 0);
  if (address == MAP_FAILED) throw_unreadable(file, errno);
  data_ = static_cast<const std::uint8_t*>(address);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::uint8_t*>(data_), size_);
}

FileLock::FileLock(const fs::path& file)
    : descriptor_(::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666)) {
  if (descriptor_ < 0)
    throw IoError(format("cannot make the lock file {}: {}{}", file.string(), reason(errno), cure(errno)));
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
    const int code = errno;
    char owner[32] = {};
    const bool known = ::pread(descriptor_, owner, sizeof owner - 1, 0) > 0;
    owner[std::strspn(owner, "0123456789")] = '\0';
    ::close(descriptor_);
    if (code != EWOULDBLOCK) throw IoError(format("cannot lock {}: {}", file.string(), reason(code)));
    throw ConfigError(format("{} is in use by {}; wait until it ends, or choose another folder",
                             file.string(), known ? format("process {}", owner) : "another process"));
  }
  // The number only serves the message above: a disk too full to take it does not weaken the lock.
  const std::string number = format("{}\n", ::getpid());
  [[maybe_unused]] const bool noted =
      ::ftruncate(descriptor_, 0) == 0 && ::pwrite(descriptor_, number.data(), number.size(), 0) > 0;
}

FileLock::~FileLock() {
  ::close(descriptor_);
}

}  // namespace stoa
