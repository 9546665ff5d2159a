#include "stoa/nn/table_memory.h"

#include <ATen/ATen.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/text.h"

namespace stoa::nn {

namespace {

/// A new file without a name, `size` bytes long.
class NamelessFile {
 public:
  NamelessFile(const std::string& folder, std::size_t size) {
    std::error_code code;
    std::filesystem::create_directories(folder, code);
    std::string name = (std::filesystem::path(folder) / "table-XXXXXX").string();
    descriptor_ = ::mkostemp(name.data(), O_CLOEXEC);
    if (descriptor_ < 0) fail(folder, size, errno);
    ::unlink(name.c_str());
    // reserved at once: a disk that fills later would kill the process in the middle of a step
    if (const int error = ::posix_fallocate(descriptor_, 0, static_cast<off_t>(size)); error != 0) {
      ::close(descriptor_);
      fail(folder, size, error);
    }
  }
  ~NamelessFile() { ::close(descriptor_); }
  NamelessFile(const NamelessFile&) = delete;
  NamelessFile& operator=(const NamelessFile&) = delete;
  int descriptor() const { return descriptor_; }

 private:
  [[noreturn]] static void fail(const std::string& folder, std::size_t size, int error) {
    throw IoError(
        format("embedding.storage: cannot keep a table of {} in folder {}: {}; free some space or name "
               "another folder",
               bytes(static_cast<double>(size)), folder, std::strerror(error)));
  }
  int descriptor_ = -1;
};

}  // namespace

at::Tensor map_table(std::int64_t rows, std::int64_t width, const std::string& folder, bool random,
                     at::ScalarType type) {
  const auto size = static_cast<std::size_t>(rows) * static_cast<std::size_t>(width) * c10::elementSize(type);
  void* address = nullptr;
  if (folder.empty()) {
    address = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (address == MAP_FAILED)
      throw DeviceError(
          format("no memory for an embedding table of {} rows ({}); use fewer ids, or keep tables in "
                 "files (embedding.storage)",
                 rows, bytes(static_cast<double>(size))));
    // rows here and there in small pages miss the translation cache nearly every time
    ::madvise(address, size, MADV_HUGEPAGE);
  } else {
    const NamelessFile file(folder, size);
    address = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, file.descriptor(), 0);
    if (address == MAP_FAILED)
      throw IoError(format("embedding.storage: cannot map a table of {} in folder {}: {}",
                           bytes(static_cast<double>(size)), folder, std::strerror(errno)));
    if (random) ::madvise(address, size, MADV_RANDOM);
  }
  return at::from_blob(
      address, {rows, width}, [size](void* begin) { ::munmap(begin, size); }, type);
}

}  // namespace stoa::nn
