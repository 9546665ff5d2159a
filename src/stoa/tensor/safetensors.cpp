#include "stoa/tensor/safetensors.h"

#include <ATen/ATen.h>

#include <bit>
#include <cstring>
#include <memory>
#include <span>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "stoa/base/checksum.h"
#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/base/json.h"
#include "stoa/tensor/safetensors_header.h"
#include "stoa/tensor/safetensors_stream.h"

namespace stoa {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

constexpr std::pair<at::ScalarType, std::string_view> kTypes[] = {
    {at::kDouble, "F64"}, {at::kFloat, "F32"}, {at::kHalf, "F16"},  {at::kBFloat16, "BF16"},
    {at::kLong, "I64"},   {at::kInt, "I32"},   {at::kShort, "I16"}, {at::kChar, "I8"},
    {at::kByte, "U8"},    {at::kBool, "BOOL"},
};

std::string_view type_name(at::ScalarType wanted, const std::filesystem::path& file,
                           const std::string& name) {
  for (const auto& [type, text] : kTypes)
    if (type == wanted) return text;
  throw Error(
      format("{}: tensor `{}` is of type {}, which safetensors files cannot hold; convert it before saving",
             file.string(), name, c10::toString(wanted)));
}

at::ScalarType type_of(std::string_view text, const std::filesystem::path& file, const std::string& name) {
  for (const auto& [type, known] : kTypes)
    if (known == text) return type;
  throw DataError(format("{}: tensor `{}` is of type {}, which cannot be read here; store it as F32",
                         file.string(), name, text));
}

/// Throws where two names lead to one storage: readers would make two tensors of it.
void refuse_aliases(const std::filesystem::path& file, const StreamedTensors& tensors) {
  std::unordered_map<const void*, std::string> owners;
  for (const auto& [name, source] : tensors) {
    const auto& tensor = source.tensor;
    if (!tensor.defined() || tensor.numel() == 0) continue;
    const auto [owner, first] = owners.emplace(tensor.storage().unsafeGetStorageImpl(), name);
    if (!first)
      throw Error(
          format("{}: tensors `{}` and `{}` share storage; save one of them and name the other in the "
                 "metadata, or save a "
                 "clone",
                 file.string(), owner->second, name));
  }
}

std::size_t bytes_of(const StreamedTensor& source) {
  std::size_t bytes = c10::elementSize(source.type);
  for (const auto size : source.sizes) bytes *= static_cast<std::size_t>(size);
  return bytes;
}

/// Length, JSON and padding (with spaces, to 8 bytes): all that stands in front of the data.
std::string make_header(const std::filesystem::path& file, const StreamedTensors& tensors,
                        const std::map<std::string, std::string>& metadata) {
  Json header = Json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::size_t begin = 0;
  for (const auto& [name, source] : tensors) {
    if (name == "__metadata__")
      throw Error(format("{}: no tensor may be named `__metadata__`; rename it", file.string()));
    const auto end = begin + bytes_of(source);
    header[name] = {{"dtype", type_name(source.type, file, name)},
                    {"shape", source.sizes},
                    {"data_offsets", {begin, end}}};
    begin = end;
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const Json::exception&) {
    throw Error(format("{}: a tensor's name or the metadata is not UTF-8 text; rename it", file.string()));
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const std::uint64_t size = text.size();
  return std::string(reinterpret_cast<const char*>(&size), sizeof size) + text;
}

/// Brings a tensor and puts its bytes piece by piece, as many as the header says.
void put_tensor(const std::filesystem::path& file, const std::string& name, const StreamedTensor& source,
                const std::function<void(const void* data, std::size_t size)>& put) {
  const auto whole = bytes_of(source);
  std::size_t done = 0;
  const PutElements take = [&](const at::Tensor& elements) {
    done += elements.nbytes();
    if (elements.scalar_type() != source.type || done > whole)
      throw Error(format("{}: tensor `{}` was to have {} bytes of {}, but {} of {} came", file.string(), name,
                         whole, c10::toString(source.type), done, c10::toString(elements.scalar_type())));
    const auto dense = elements.detach().cpu().contiguous().resolve_neg();
    if (dense.numel() > 0) put(dense.const_data_ptr(), dense.nbytes());
  };
  source.tensor.defined() ? take(source.tensor) : source.bring(take);
  if (done != whole)
    throw Error(
        format("{}: tensor `{}` was to have {} bytes, but {} came", file.string(), name, whole, done));
}

/// A file's tensors, copied or, with `stay`, where they lie in it.
TensorFile read(const std::filesystem::path& file, bool stay) {
  const auto mapped = std::make_shared<const MappedFile>(file);
  const auto bytes = mapped->bytes();
  const auto header = parse_safetensors_header(bytes, file.string());
  TensorFile content;
  content.metadata = header.metadata;
  for (const auto& [name, entry] : header.entries) {
    const auto type = type_of(entry.dtype, file, name);
    const auto data = bytes.subspan(header.data_offset + entry.begin, entry.end - entry.begin);
    const bool aligned = reinterpret_cast<std::uintptr_t>(data.data()) % c10::elementSize(type) == 0;
    if (stay && aligned && !data.empty()) {
      content.tensors.emplace(
          name, at::from_blob(
                    const_cast<std::uint8_t*>(data.data()), entry.shape, [mapped](void*) {}, type));
      continue;
    }
    const auto tensor = at::empty(entry.shape, type);
    if (!data.empty()) std::memcpy(tensor.mutable_data_ptr(), data.data(), data.size());
    content.tensors.emplace(name, tensor);
  }
  return content;
}

}  // namespace

StreamedTensors streamed(const std::map<std::string, at::Tensor>& tensors) {
  StreamedTensors sources;
  for (const auto& [name, tensor] : tensors)
    sources.emplace(name, StreamedTensor{tensor.scalar_type(), tensor.sizes().vec(), tensor, {}});
  return sources;
}

std::uint32_t stream_safetensors(const std::filesystem::path& file, const StreamedTensors& tensors,
                                 const std::map<std::string, std::string>& metadata) {
  refuse_aliases(file, tensors);
  const auto header = make_header(file, tensors, metadata);
  std::uint32_t checksum = 0;
  write_file_atomically(file, [&](const Append& append) {
    checksum = 0;
    const auto put = [&](const void* data, std::size_t size) {
      checksum = crc32({static_cast<const std::uint8_t*>(data), size}, checksum);
      append({static_cast<const std::byte*>(data), size});
    };
    put(header.data(), header.size());
    for (const auto& [name, source] : tensors) put_tensor(file, name, source, put);
  });
  return checksum;
}

std::uint32_t save_safetensors(const std::filesystem::path& file, const TensorFile& content) {
  for (const auto& [name, tensor] : content.tensors)
    if (!tensor.defined() || tensor.layout() != at::kStrided)
      throw Error(format("{}: tensor `{}` is undefined or sparse; save a dense tensor", file.string(), name));
  return stream_safetensors(file, streamed(content.tensors), content.metadata);
}

TensorFile load_safetensors(const std::filesystem::path& file) {
  return read(file, /*stay=*/false);
}

TensorFile map_safetensors(const std::filesystem::path& file) {
  return read(file, /*stay=*/true);
}

}  // namespace stoa
