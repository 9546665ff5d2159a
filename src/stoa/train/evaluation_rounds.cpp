#include "stoa/train/evaluation_rounds.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>

namespace stoa {
namespace {

/// Reads and writes what pack() makes. `bytes` are on the CPU.
class Cursor {
 public:
  explicit Cursor(const at::Tensor& bytes) : at_(bytes.mutable_data_ptr<std::uint8_t>()) {}
  void put(const void* from, std::size_t count) {
    std::memcpy(at_, from, count);
    at_ += count;
  }
  void put(std::int64_t number) { put(&number, sizeof number); }
  void take(void* to, std::size_t count) {
    std::memcpy(to, at_, count);
    at_ += count;
  }
  std::int64_t take() {
    std::int64_t number = 0;
    take(&number, sizeof number);
    return number;
  }

 private:
  std::uint8_t* at_;
};

/// Of each tensor type, dimensions, sizes and elements, one behind the other.
at::Tensor pack(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> own;
  std::size_t size = 0;
  for (const auto& tensor : tensors) {
    own.push_back(tensor.detach().to(at::kCPU).contiguous());
    size += (2 + own.back().sizes().size()) * sizeof(std::int64_t) + own.back().nbytes();
  }
  const auto bytes = at::empty({static_cast<std::int64_t>(size)}, at::kByte);
  Cursor to(bytes);
  for (const auto& tensor : own) {
    to.put(static_cast<std::int64_t>(tensor.scalar_type()));
    to.put(tensor.dim());
    for (const auto n : tensor.sizes()) to.put(n);
    if (tensor.numel() > 0) to.put(tensor.const_data_ptr(), tensor.nbytes());
  }
  return bytes;
}

std::vector<at::Tensor> unpack(const at::Tensor& bytes, std::size_t count) {
  Cursor from(bytes);
  std::vector<at::Tensor> tensors;
  for (std::size_t i = 0; i < count; ++i) {
    const auto type = static_cast<at::ScalarType>(from.take());
    std::vector<std::int64_t> sizes(static_cast<std::size_t>(from.take()));
    for (auto& n : sizes) n = from.take();
    tensors.push_back(at::empty(sizes, type));
    if (tensors.back().numel() > 0) from.take(tensors.back().mutable_data_ptr(), tensors.back().nbytes());
  }
  return tensors;
}

/// Every replica's tensors, as many as here.
std::vector<std::vector<at::Tensor>> gather(const std::vector<at::Tensor>& tensors, dist::Group& replicas) {
  const auto own = pack(tensors);
  const auto sizes = replicas.all_gather(at::full({1}, own.numel(), at::kLong));
  const auto filled = at::zeros({sizes.max().item<std::int64_t>()}, at::kByte);  // a gather wants one shape
  filled.narrow(0, 0, own.numel()).copy_(own);
  const auto gathered = replicas.all_gather(filled);
  std::vector<std::vector<at::Tensor>> all;
  for (const auto& bytes : gathered.unbind(0)) all.push_back(unpack(bytes, tensors.size()));
  return all;
}

}  // namespace

BatchPlan EvaluationRounds::plan() const {
  BatchPlan plan;
  plan.batch_size = batch_size_;
  plan.workers = workers_;
  if (replicas_) {
    plan.part = replicas_->rank();
    plan.parts = replicas_->size();
  }
  return plan;
}

std::vector<BatchAnswer> EvaluationRounds::share(std::vector<at::Tensor> tensors,
                                                 const std::vector<nn::NamedTensor>& statistics) {
  const auto count = tensors.size();
  for (const auto& item : statistics) tensors.push_back(item.value);
  std::vector<std::vector<at::Tensor>> all;
  if (replicas_)
    all = gather(tensors, *replicas_);
  else
    all.push_back(std::move(tensors));
  std::vector<BatchAnswer> answers;
  for (auto& found : all) {
    if (done_ == samples_) break;  // the last batch, passed again
    BatchAnswer answer;
    answer.first = done_;
    answer.samples = std::min(batch_size_, samples_ - done_);
    for (std::size_t i = 0; i < statistics.size(); ++i)
      answer.statistics.push_back({statistics[i].name, found[count + i]});
    found.resize(count);
    answer.tensors = std::move(found);
    done_ += answer.samples;
    answers.push_back(std::move(answer));
  }
  return answers;
}

}  // namespace stoa
