#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace stoa {

/// The whole content of a file. Throws IoError naming the file and the system's reason.
std::string read_file(const std::filesystem::path& file);

/// Content of a gzip file, or of a plain file as it is (told apart by the first two bytes).
/// Throws IoError if it cannot be read, DataError if the gzip stream is truncated or altered.
std::vector<std::uint8_t> read_maybe_gzip(const std::filesystem::path& file);

/// Writes a file so that a reader sees either the old content or the new, never a part: temporary name in the
/// same folder, fsync, rename. Throws IoError (a full disk, for example); the old file then stays as it was.
void write_file_atomically(const std::filesystem::path& file, std::string_view content);

/// The same for content produced piece by piece: `produce` is given a function that appends bytes.
using Append = std::function<void(std::span<const std::byte>)>;
void write_file_atomically(const std::filesystem::path& file,
                           const std::function<void(const Append&)>& produce);

/// Makes the renames and new files of a folder durable (fsync of the folder). Throws IoError.
void sync_folder(const std::filesystem::path& folder);

/// A file mapped read-only into memory. Empty files map to an empty span. Throws IoError.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& file);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::uint8_t> bytes() const { return {data_, size_}; }

 private:
  const std::uint8_t* data_ = nullptr;
  std::size_t size_ = 0;
};

/// An exclusive lock on a file, held until destruction or the end of the process, however it ends.
/// Throws ConfigError "... is in use by process N" when another process holds it, IoError when the file
/// cannot be made.
class FileLock {
 public:
  explicit FileLock(const std::filesystem::path& file);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  int descriptor_ = -1;
};

}  // namespace stoa
