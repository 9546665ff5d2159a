#include "stoa/ops/linear_cross_entropy_blocks.h"

#include <ATen/ATen.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>

#include <bit>
#include <cmath>
#include <limits>

#include "stoa/ops/gemm_kernels.h"
#include "stoa/ops/linear_cross_entropy_kernels.h"
#include "stoa/ops/row_blocks.h"

namespace stoa::ops {
namespace {

constexpr std::int64_t kClasses = 256;  // of a block of scores, which the cache holds beside their weights

/// Chunks of rows one after the other, scores transposed [classes, rows]: so they are products of the weights
/// as they lie with few rows, and are in turn what the gradient of the weights needs on its left. Classes are
/// cut into groups of blocks, a group being the work of one thread at a time; what must be added over groups
/// is added in their order.
class Blocks {
 public:
  Blocks(const CrossEntropyCall& call, Operands operands);
  CrossEntropyPass run();

 private:
  struct Chunk {
    std::int64_t first, count;       ///< among the rows that count
    std::int64_t width;              ///< count and some rows of zeros
    PackedMatrices turned, upright;  ///< x as [dim, width] and [width, dim]
  };

  Chunk load(std::int64_t first) const;
  void score(const Chunk& chunk, std::int64_t group);
  void finish(const Chunk& chunk);
  void differentiate(const Chunk& chunk, std::int64_t group);
  void keep_x_gradient(const Chunk& chunk) const;

  ScoreSums sums(std::int64_t group) const {
    float* const at = sums_.mutable_data_ptr<float>() + group * 3 * most_;
    return {at, at + most_, at + 2 * most_};
  }
  /// Calls work(first class, classes) for the blocks of a group.
  template <class Work>
  void for_each_block(std::int64_t group, const Work& work) const {
    const std::int64_t end = std::min(classes_, (group + 1) * blocks_ / groups_ * kClasses);
    for (auto first = group * blocks_ / groups_ * kClasses; first < end; first += kClasses)
      work(first, std::min(kClasses, end - first));
  }
  template <class Work>
  void for_each_group(const Work& work) const {
    at::parallel_for(0, groups_, 1, [&](std::int64_t begin, std::int64_t end) {
      for (auto group = begin; group < end; ++group) work(group);
    });
  }
  /// Calls work(column, row of its target in the block) for the columns whose target is in a block.
  template <class Work>
  void for_each_target(const Chunk& chunk, std::int64_t first, std::int64_t classes, const Work& work) const {
    for (std::int64_t column = 0; column < chunk.count; ++column) {
      const auto row = call_.target[static_cast<std::size_t>(chunk.first + column)] - first;
      if (row >= 0 && row < classes) work(column, row);
    }
  }

  const CrossEntropyCall& call_;
  Operands operands_;
  std::int64_t dim_, classes_, blocks_, groups_, most_;
  const float *weight_, *bias_;
  std::vector<float> picked_, log_sum_;  // [most_] scores of the targets, logarithms of sums
  at::Tensor sums_;                      // [groups, 3, most_]
  at::Tensor scores_;                    // [classes, most_], where there are gradients
  at::Tensor partial_;                   // [groups, most_ * dim] of the gradient of x
  double loss_ = 0;
  CrossEntropyPass pass_;
};

/// Rows made up with zeros: the micro kernel is compiled anew for every size it meets, and batches differ in
/// how many rows count.
std::int64_t padded(std::int64_t rows) {
  return rows < 64 ? static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(rows)))
                   : (rows + 63) / 64 * 64;
}

/// Rows of a chunk where all are of about one size.
std::int64_t even_chunks(std::int64_t rows, std::int64_t most) {
  const std::int64_t chunks = std::max<std::int64_t>(1, (rows + most - 1) / most);
  return padded((rows + chunks - 1) / chunks);
}

Blocks::Blocks(const CrossEntropyCall& call, Operands operands)
    : call_(call),
      operands_(operands),
      dim_(call.weight.size(1)),
      classes_(call.weight.size(0)),
      blocks_((classes_ + kClasses - 1) / kClasses),
      // groups keep a gradient of x each: not more room for these than for the scores
      groups_(std::min(blocks_, std::clamp<std::int64_t>(classes_ / dim_, 8, 32))),
      most_(even_chunks(call.counted(), rows_of_chunk(classes_))),
      weight_(call.weight.const_data_ptr<float>()),
      bias_(call.bias.defined() ? call.bias.const_data_ptr<float>() : nullptr),
      picked_(static_cast<std::size_t>(most_)),
      log_sum_(static_cast<std::size_t>(most_)),
      sums_(at::empty({groups_, 3, most_}, call.x.options())),
      pass_(CrossEntropyPass::zeros(call)) {
  if (call.need_any()) scores_ = at::empty({classes_, most_}, call.x.options());
}

Blocks::Chunk Blocks::load(std::int64_t first) const {
  Chunk chunk;
  chunk.first = first;
  chunk.count = std::min(most_, call_.counted() - first);
  chunk.width = padded(chunk.count);
  const auto rows = at::zeros({chunk.width, dim_}, call_.x.options());
  auto* const to = rows.mutable_data_ptr<float>();
  for (std::int64_t i = 0; i < chunk.count; ++i)
    std::copy_n(call_.x.const_data_ptr<float>() + call_.row[static_cast<std::size_t>(first + i)] * dim_, dim_,
                to + i * dim_);
  chunk.turned = pack(to, 1, dim_, chunk.width, /*transposed=*/true, operands_);
  if (call_.need_weight) chunk.upright = pack(to, 1, chunk.width, dim_, /*transposed=*/false, operands_);
  return chunk;
}

void Blocks::score(const Chunk& chunk, std::int64_t group) {
  const auto of_group = sums(group);
  std::fill_n(of_group.largest, chunk.count, -std::numeric_limits<float>::infinity());
  std::fill_n(of_group.sum, 2 * most_, 0.0F);
  std::vector<float> not_kept(static_cast<std::size_t>(scores_.defined() ? 0 : kClasses * chunk.width));
  for_each_block(group, [&](std::int64_t first, std::int64_t classes) {
    float* const s =
        scores_.defined() ? scores_.mutable_data_ptr<float>() + first * chunk.width : not_kept.data();
    gemm_rows(weight_ + first * dim_, dim_, classes, chunk.turned[0], s, chunk.width, false);
    add_scores(s, bias_ == nullptr ? nullptr : bias_ + first, of_group, classes, chunk.count, chunk.width);
    for_each_target(chunk, first, classes, [&](std::int64_t column, std::int64_t row) {
      picked_[static_cast<std::size_t>(column)] = s[row * chunk.width + column];
    });
  });
}

/// What the groups know of each row comes together.
void Blocks::finish(const Chunk& chunk) {
  for (std::int64_t i = 0; i < chunk.count; ++i) {
    const auto column = static_cast<std::size_t>(i);
    float largest = -std::numeric_limits<float>::infinity();
    for (std::int64_t g = 0; g < groups_; ++g) largest = std::max(largest, sums(g).largest[i]);
    const double shift = std::isinf(largest) && largest < 0 ? 0 : largest;
    double sum = 0, total = 0;
    for (std::int64_t g = 0; g < groups_; ++g) {
      const auto group = sums(g);
      sum += group.sum[i] * std::exp(group.largest[i] - shift);
      total += group.total[i];
    }
    const double log_sum = shift + std::log(sum);
    double loss = log_sum - (1 - call_.smoothing) * picked_[column];
    if (call_.smoothing > 0) loss -= call_.smoothing / static_cast<double>(classes_) * total;
    log_sum_[column] = static_cast<float>(log_sum);
    loss_ += loss;
    const auto row = call_.row[static_cast<std::size_t>(chunk.first + i)];
    pass_.row_loss.mutable_data_ptr<float>()[row] = static_cast<float>(loss);
    pass_.correct.mutable_data_ptr<bool>()[row] = picked_[column] >= largest && !std::isnan(loss);
  }
}

void Blocks::differentiate(const Chunk& chunk, std::int64_t group) {
  const auto scale = static_cast<float>(1 / static_cast<double>(call_.counted()));
  const auto even = static_cast<float>(call_.smoothing / static_cast<double>(classes_));
  const float of_target = scale * static_cast<float>(1 - call_.smoothing);
  std::vector<float> turned(static_cast<std::size_t>(call_.need_x ? kClasses * chunk.width : 0));
  bool add = false;
  for_each_block(group, [&](std::int64_t first, std::int64_t classes) {
    float* const g = scores_.mutable_data_ptr<float>() + first * chunk.width;
    float* const grad_bias = call_.need_bias ? pass_.bias.mutable_data_ptr<float>() + first : nullptr;
    score_gradients(g, log_sum_.data(), even, scale, grad_bias, classes, chunk.count, chunk.width);
    for_each_target(chunk, first, classes, [&](std::int64_t column, std::int64_t row) {
      g[row * chunk.width + column] -= of_target;
      if (grad_bias != nullptr) grad_bias[row] -= of_target;
    });
    if (call_.need_weight)
      gemm_rows(g, chunk.width, classes, chunk.upright[0],
                pass_.weight.mutable_data_ptr<float>() + first * dim_, dim_, true);
    if (!call_.need_x) return;
    transpose_block(g, chunk.width, classes, chunk.width, turned.data(), classes);
    const auto w = pack(weight_ + first * dim_, 1, classes, dim_, /*transposed=*/false, operands_);
    gemm_rows(turned.data(), classes, chunk.width, w[0],
              partial_.mutable_data_ptr<float>() + group * chunk.width * dim_, dim_, add);
    add = true;
  });
}

void Blocks::keep_x_gradient(const Chunk& chunk) const {
  const auto sum = add_row_blocks(partial_);
  for (std::int64_t i = 0; i < chunk.count; ++i)
    std::copy_n(
        sum.const_data_ptr<float>() + i * dim_, dim_,
        pass_.x.mutable_data_ptr<float>() + call_.row[static_cast<std::size_t>(chunk.first + i)] * dim_);
}

CrossEntropyPass Blocks::run() {
  for (std::int64_t first = 0; first < call_.counted(); first += most_) {
    const auto chunk = load(first);
    for_each_group([&](std::int64_t group) { score(chunk, group); });
    finish(chunk);
    if (!call_.need_any()) continue;
    if (call_.need_x) partial_ = at::empty({groups_, chunk.width * dim_}, call_.x.options());
    for_each_group([&](std::int64_t group) { differentiate(chunk, group); });
    if (call_.need_x) keep_x_gradient(chunk);
  }
  if (call_.counted() > 0) pass_.loss.fill_(loss_ / static_cast<double>(call_.counted()));
  return pass_;
}

}  // namespace

CrossEntropyPass CrossEntropyPass::zeros(const CrossEntropyCall& call) {
  const auto options = call.x.options().dtype(at::toOpMathType(call.x.scalar_type()));
  const auto like = [&](bool needed, const at::Tensor& tensor) {
    return needed ? at::zeros(tensor.sizes(), options) : at::Tensor();
  };
  return {at::zeros({}, options),
          at::zeros({call.x.size(0)}, options),
          at::zeros({call.x.size(0)}, options.dtype(at::kBool)),
          like(call.need_x, call.x),
          like(call.need_weight, call.weight),
          like(call.need_bias, call.bias)};
}

CrossEntropyPass cross_entropy_blocks(const CrossEntropyCall& call, Operands operands) {
  return Blocks(call, operands).run();
}

}  // namespace stoa::ops
