#include "stoa/train/agreement.h"

#include <ATen/ATen.h>
#include <torch/version.h>

#include <algorithm>
#include <string>

#include "stoa/base/checksum.h"
#include "stoa/base/format.h"
#include "stoa/base/text.h"
#include "stoa/tensor/shape.h"

namespace stoa {
namespace {

/// A value without the absolute paths in it, which say where on this machine something lies.
Json without_places(const Json& value) {
  if (value.is_string() && value.get_ref<const std::string&>().starts_with('/')) return nullptr;
  if (!value.is_structured()) return value;
  Json rest = value.is_object() ? Json::object() : Json::array();
  for (const auto& [key, part] : value.items()) {
    if (value.is_object())
      rest[key] = without_places(part);
    else
      rest.push_back(without_places(part));
  }
  return rest;
}

std::uint32_t checksum(const void* bytes, std::size_t size, std::uint32_t start) {
  return crc32({static_cast<const std::uint8_t*>(bytes), size}, start);
}

/// Of names, types, sizes and values, continuing from `start`.
std::uint32_t checksum(const Batch& batch, std::uint32_t start) {
  for (const auto& [name, values] : batch.tensors) {
    const at::Tensor t = values.cpu().contiguous();
    const auto head = format("{} {} {}", name, c10::toString(t.scalar_type()), shape_text(t.sizes()));
    start = checksum(head.data(), head.size(), start);
    start = checksum(t.const_data_ptr(), t.nbytes(), start);
  }
  return start;
}

std::int64_t bytes_of(const Batch& batch) {
  std::int64_t bytes = 0;
  for (const auto& [name, values] : batch.tensors) bytes += static_cast<std::int64_t>(values.nbytes());
  return bytes;
}

}  // namespace

void agree_on_program(const Team& team, const Runtime& runtime) {
  // all in the name, so that the error shows what differs
  team.agree(format("stoa {}, LibTorch {}, runtime.device = \"{}\", runtime.precision = \"{}\"", STOA_VERSION,
                    TORCH_VERSION, c10::DeviceTypeName(runtime.device.type(), /*lower_case=*/true),
                    runtime.bf16 ? "bf16" : "fp32"),
             "");
}

void agree_on_samples(const Team& team, const Task& task) {
  if (team.alone()) return;
  const auto samples = task.train_samples();
  team.agree(format("the data, {} training samples", thousands(samples)),
             format("{} {}", samples, without_places(task.metadata()).dump()));
}

void agree_on_batches(const Team& team, Task& task, const TrainOptions& options) {
  constexpr std::int64_t kMostSamples = 4096, kMostBytes = std::int64_t{32} << 20, kAtATime = 64;
  if (team.alone()) return;
  BatchPlan plan;
  plan.batch_size = std::max<std::int64_t>(1, std::min({options.batch_size, task.train_samples(), kAtATime}));
  plan.seed = static_cast<std::uint64_t>(options.seed);
  const auto batches = task.train_batches(plan);
  std::uint32_t sum = 0;
  for (std::int64_t samples = 0, bytes = 0; samples < kMostSamples && bytes < kMostBytes;) {
    const Batch batch = batches->next();
    if (batch.samples == 0) break;
    sum = checksum(batch, sum);
    samples += batch.samples;
    bytes += bytes_of(batch);
  }
  team.agree("the first training samples", format("{:08x}", sum));
}

}  // namespace stoa
