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

namespace stoa {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

constexpr std::pair<at::ScalarType, std::string_view> kTypes[] = {
    {at::kDouble, "F64"}, {at::kFloat, "F32"}, {at::kHalf, "F16"},  {at::kBFloat16, "BF16"},
    {at::kLong, "I64"},   {at::kInt, "I32"},   {at::kShort, "I16"}, {at::kChar, "I8"},
    {at::kByte, "U8"},    {at::kBool, "BOOL"},
};

std::string_view type_name(const at::Tensor& tensor, const std::filesystem::path& file,
                           const std::string& name) {
  for (const auto& [type, text] : kTypes)
    if (type == tensor.scalar_type()) return text;
  throw Error(
      format("{}: tensor `{}` is of type {}, which safetensors files cannot hold; convert it before saving",
             file.string(), name, c10::toString(tensor.scalar_type())));
}

at::ScalarType type_of(std::string_view text, const std::filesystem::path& file, const std::string& name) {
  for (const auto& [type, known] : kTypes)
    if (known == text) return type;
  throw DataError(format("{}: tensor `{}` is of type {}, which cannot be read here; store it as F32",
                         file.string(), name, text));
}

/// Throws where two names lead to one storage: readers would make two tensors of it.
void refuse_aliases(const std::filesystem::path& file, const std::map<std::string, at::Tensor>& tensors) {
  std::unordered_map<const void*, std::string> owners;
  for (const auto& [name, tensor] : tensors) {
    if (tensor.numel() == 0) continue;
    const auto [owner, first] = owners.emplace(tensor.storage().unsafeGetStorageImpl(), name);
    if (!first)
      throw Error(
          format("{}: tensors `{}` and `{}` share storage; save one of them and name the other in the "
                 "metadata, or save a "
                 "clone",
                 file.string(), owner->second, name));
  }
}

/// Length, JSON and padding (with spaces, to 8 bytes): all that stands in front of the data.
std::string make_header(const std::filesystem::path& file, const TensorFile& content) {
  Json header = Json::object();
  if (!content.metadata.empty()) header["__metadata__"] = content.metadata;
  std::int64_t begin = 0;
  for (const auto& [name, tensor] : content.tensors) {
    if (name == "__metadata__")
      throw Error(format("{}: no tensor may be named `__metadata__`; rename it", file.string()));
    const auto end = begin + static_cast<std::int64_t>(tensor.nbytes());
    header[name] = {{"dtype", type_name(tensor, file, name)},
                    {"shape", tensor.sizes().vec()},
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

std::uint32_t save_safetensors(const std::filesystem::path& file, const TensorFile& content) {
  for (const auto& [name, tensor] : content.tensors)
    if (!tensor.defined() || tensor.layout() != at::kStrided)
      throw Error(format("{}: tensor `{}` is undefined or sparse; save a dense tensor", file.string(), name));
  refuse_aliases(file, content.tensors);
  const auto header = make_header(file, content);
  std::uint32_t checksum = 0;
  write_file_atomically(file, [&](const Append& append) {
    checksum = 0;
    const auto put = [&](const void* data, std::size_t size) {
      checksum = crc32({static_cast<const std::uint8_t*>(data), size}, checksum);
      append({static_cast<const std::byte*>(data), size});
    };
    put(header.data(), header.size());
    for (const auto& [name, tensor] : content.tensors) {
      const auto dense = tensor.detach().cpu().contiguous().resolve_neg();
      if (dense.numel() > 0) put(dense.const_data_ptr(), dense.nbytes());
    }
  });
  return checksum;
}

TensorFile load_safetensors(const std::filesystem::path& file) {
  return read(file, /*stay=*/false);
}

TensorFile map_safetensors(const std::filesystem::path& file) {
  return read(file, /*stay=*/true);
}

}  // namespace stoa
