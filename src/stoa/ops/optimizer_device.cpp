#include "stoa/ops/optimizer_device.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>

#include "stoa/base/errors.h"
#include "stoa/ops/cuda_call.h"
#include "stoa/ops/optimizer_cuda.h"

namespace stoa::ops {

bool has_optimizer_kernels(const at::Tensor& tensor) {
  const auto type = tensor.scalar_type();
  return has_cuda_kernels(tensor) && (type == at::kFloat || type == at::kDouble) && tensor.is_contiguous();
}

#ifdef STOA_CUDA

namespace {

template <class T>
struct Table {
  std::vector<cuda::Part<T>> parts;
  std::vector<cuda::Slice> slices;
};

template <class T>
void add_parameter(const DeviceParameter& parameter, Table<T>& table) {
  auto* const w = parameter.w.mutable_data_ptr<T>();
  const auto* const g = parameter.g.defined() ? parameter.g.const_data_ptr<T>() : nullptr;
  const auto size = parameter.w.numel() / parameter.slices;
  for (std::int64_t slice = 0; slice < parameter.slices; ++slice) {
    const auto first = std::ssize(table.parts);
    const auto& scales = parameter.gradient_scales;
    for (auto begin = slice * size, end = begin + size; begin < end; begin += cuda::kPartSize) {
      cuda::Part<T> part{};
      part.w = w + begin;
      part.g = g == nullptr ? nullptr : g + begin;
      for (std::size_t k = 0; k < parameter.states.size(); ++k)
        part.states[k] = parameter.states[k].mutable_data_ptr<T>() + begin;
      part.size = std::min(end - begin, cuda::kPartSize);
      part.slice = std::ssize(table.slices);
      part.gradient_scale = scales[scales.size() == 1 ? 0 : static_cast<std::size_t>(slice)];
      part.decay = parameter.decay;
      table.parts.push_back(part);
    }
    table.slices.push_back({first, std::ssize(table.parts), parameter.adapts});
  }
}

at::Tensor scratch(std::size_t bytes, at::Device device) {
  return at::empty({static_cast<std::int64_t>(bytes)}, at::TensorOptions(at::kByte).device(device));
}

/// The items in device memory. Copied from pinned memory, so that the host does not wait.
template <class Item>
at::Tensor upload(const std::vector<Item>& items, at::Device device) {
  const auto bytes = items.size() * sizeof(Item);
  const auto host =
      at::empty({static_cast<std::int64_t>(bytes)}, at::TensorOptions(at::kByte).pinned_memory(true));
  std::memcpy(host.mutable_data_ptr(), items.data(), bytes);
  auto there = scratch(bytes, device);
  there.copy_(host, /*non_blocking=*/true);
  return there;
}

/// Calls start(stream, parts on the device, table) for the parameters of each device and type.
template <class T, class Start>
void for_each_table(const std::vector<DeviceParameter>& parameters, const char* what, const Start& start) {
  std::vector<std::pair<at::Tensor, Table<T>>> tables;  // with a tensor of its device
  for (const auto& parameter : parameters) {
    if (parameter.w.scalar_type() != c10::CppTypeToScalarType<T>::value) continue;
    auto found = std::ranges::find_if(
        tables, [&](const auto& table) { return table.first.device() == parameter.w.device(); });
    if (found == tables.end()) found = tables.insert(found, {parameter.w, {}});
    add_parameter(parameter, found->second);
  }
  for (const auto& [tensor, table] : tables) {
    if (table.parts.empty()) continue;
    launch_on(tensor, what, [&, &tensor = tensor, &table = table](void* stream) {
      const auto parts = upload(table.parts, tensor.device());
      return start(stream, static_cast<const cuda::Part<T>*>(parts.const_data_ptr()), table, tensor.device());
    });
  }
}
template <class Start>
void launch_tables(const std::vector<DeviceParameter>& parameters, const char* what, const Start& start) {
  for_each_table<float>(parameters, what, start);
  for_each_table<double>(parameters, what, start);
}

}  // namespace

void adamw_on_device(const std::vector<DeviceParameter>& parameters, const AdamWConstants& constants,
                     double lr, bool decoupled) {
  launch_tables(parameters, "AdamW",
                [&]<class T>(void* stream, const cuda::Part<T>* parts, const Table<T>& table, at::Device) {
                  return cuda::adamw(parts, std::ssize(table.parts), constants, lr, decoupled, stream);
                });
}

void sgd_on_device(const std::vector<DeviceParameter>& parameters, const SgdConstants& constants) {
  launch_tables(parameters, "SGD",
                [&]<class T>(void* stream, const cuda::Part<T>* parts, const Table<T>& table, at::Device) {
                  return cuda::sgd(parts, std::ssize(table.parts), constants, stream);
                });
}

void lamb_on_device(const std::vector<DeviceParameter>& parameters, const LambConstants& constants, double lr,
                    double largest_ratio) {
  launch_tables(
      parameters, "LAMB",
      [&]<class T>(void* stream, const cuda::Part<T>* parts, const Table<T>& table, at::Device device) {
        const auto slices = upload(table.slices, device);
        const auto squares = scratch(table.parts.size() * sizeof(LambSquares), device),
                   rates = scratch(table.slices.size() * sizeof(double), device);
        return cuda::lamb(parts, std::ssize(table.parts),
                          static_cast<const cuda::Slice*>(slices.const_data_ptr()), std::ssize(table.slices),
                          constants, lr, largest_ratio, static_cast<LambSquares*>(squares.mutable_data_ptr()),
                          static_cast<double*>(rates.mutable_data_ptr()), stream);
      });
}

#else

namespace {

[[noreturn]] void refuse() {
  throw DeviceError("this build has no CUDA kernels; build with -DSTOA_CUDA=ON");
}

}  // namespace

void adamw_on_device(const std::vector<DeviceParameter>&, const AdamWConstants&, double, bool) {
  refuse();
}
void sgd_on_device(const std::vector<DeviceParameter>&, const SgdConstants&) {
  refuse();
}
void lamb_on_device(const std::vector<DeviceParameter>&, const LambConstants&, double, double) {
  refuse();
}

#endif

}  // namespace stoa::ops
