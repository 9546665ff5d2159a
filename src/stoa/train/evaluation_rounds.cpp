#include "stoa/train/evaluation_rounds.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>

#include "stoa/base/json.h"

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

bool is_last(const nn::LayerExchange& stages) {
  return stages.stage() + 1 == stages.stages();
}

/// Answers end to end, each of as many tensors, the last of which have names.
struct Answers {
  std::int64_t answers = 0;
  std::vector<std::string> names;
  std::vector<at::Tensor> tensors;
};

/// What the last stage has, which others are given.
Answers take_last(const nn::LayerExchange& stages, const Answers& own) {
  const auto text = Json(own.names).dump();
  const auto bytes = pack(own.tensors);
  const auto sizes = at::tensor(
      {own.answers, static_cast<std::int64_t>(text.size()), bytes.numel(), std::ssize(own.tensors)},
      at::kLong);
  stages.take_last(sizes);
  const auto size = [&](std::int64_t i) { return sizes[i].item<std::int64_t>(); };
  const auto message = at::empty({size(1) + size(2)}, at::kByte);
  if (is_last(stages)) {
    Cursor to(message);
    to.put(text.data(), text.size());
    if (bytes.numel() > 0) to.put(bytes.const_data_ptr(), bytes.nbytes());
  }
  stages.take_last(message);
  if (is_last(stages)) return own;
  std::string names(static_cast<std::size_t>(size(1)), ' ');
  Cursor(message).take(names.data(), names.size());
  return {size(0), Json::parse(names).get<std::vector<std::string>>(),
          unpack(message.slice(0, size(1)), static_cast<std::size_t>(size(3)))};
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

BatchAnswer EvaluationRounds::next_answer(std::vector<at::Tensor> tensors,
                                          const std::vector<std::string>& statistics) {
  BatchAnswer answer;
  answer.first = done_;
  answer.samples = std::min(batch_size_, samples_ - done_);
  done_ += answer.samples;
  const auto count = tensors.size() - statistics.size();
  for (std::size_t i = 0; i < statistics.size(); ++i)
    answer.statistics.push_back({statistics[i], tensors[count + i]});
  tensors.resize(count);
  answer.tensors = std::move(tensors);
  return answer;
}

std::vector<BatchAnswer> EvaluationRounds::of_round(std::vector<at::Tensor> tensors,
                                                    const std::vector<nn::NamedTensor>& statistics) {
  std::vector<std::string> names;
  for (const auto& item : statistics) {
    tensors.push_back(item.value);
    names.push_back(item.name);
  }
  std::vector<std::vector<at::Tensor>> all;
  if (replicas_)
    all = gather(tensors, *replicas_);
  else
    all.push_back(std::move(tensors));
  std::vector<BatchAnswer> answers;
  for (auto& found : all) {
    if (done_ == samples_) break;  // the last batch, passed again
    answers.push_back(next_answer(std::move(found), names));
  }
  return answers;
}

std::vector<BatchAnswer> EvaluationRounds::share(std::vector<at::Tensor> tensors,
                                                 const std::vector<nn::NamedTensor>& statistics,
                                                 const std::shared_ptr<const nn::LayerExchange>& stages) {
  if (!stages) return of_round(std::move(tensors), statistics);
  constexpr std::int64_t kRounds = 8;  // times the stages: a ninth of the time or less is waited for
  stages_ = stages;
  ++waiting_;
  if (is_last(*stages))
    for (auto& answer : of_round(std::move(tensors), statistics)) held_.push_back(std::move(answer));
  return waiting_ < kRounds * stages->stages() ? std::vector<BatchAnswer>() : rest();
}

std::vector<BatchAnswer> EvaluationRounds::rest() {
  if (waiting_ == 0) return {};
  waiting_ = 0;
  std::vector<std::string> names;
  std::vector<at::Tensor> tensors;
  if (!held_.empty())
    for (const auto& item : held_.front().statistics) names.push_back(item.name);
  for (const auto& answer : held_) {
    tensors.insert(tensors.end(), answer.tensors.begin(), answer.tensors.end());
    for (const auto& item : answer.statistics) tensors.push_back(item.value);
  }
  const auto last = take_last(*stages_, {std::ssize(held_), std::move(names), std::move(tensors)});
  if (is_last(*stages_)) return std::exchange(held_, {});
  std::vector<BatchAnswer> answers;
  for (std::int64_t i = 0; i < last.answers; ++i) {
    const auto each = std::ssize(last.tensors) / last.answers;
    const auto from = last.tensors.begin() + i * each;
    answers.push_back(next_answer({from, from + each}, last.names));
  }
  return answers;
}

}  // namespace stoa
