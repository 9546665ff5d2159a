#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "stoa/ops/block_attention_forms.h"

// The third form of block_attention.h's work on one block of keys: LibTorch's flash kernels, where a mask
// comes to pieces that they know. Internal to ops/.
namespace stoa::ops {

/// How a block's mask falls into what flash kernels take. The first queries see nothing; the others see all
/// of the first keys and behind these, where `square`, the i-th of them its i-th key and those before it.
/// Keys beyond are seen by none.
struct FlashCut {
  std::int64_t first_query = 0;
  std::int64_t whole_keys = 0;
  bool square = false;

  bool operator==(const FlashCut&) const = default;
};

/// None where it does not: documents, padding that differs between samples, positions in another order. The
/// blocks of whole and of causal rings are so cut, with contiguous, zigzag and striped tokens.
std::optional<FlashCut> flash_cut(const BlockMask& mask, const BlockSight& sight, std::int64_t batch,
                                  std::int64_t queries, std::int64_t keys);

/// Whether LibTorch, as it was built and set, has flash kernels for such queries on their device.
bool has_flash_kernels(const at::Tensor& q);

/// Where the kernels should do it: fp16 or bf16 on a GPU for which LibTorch has them, heads of a multiple of
/// 8 up to 192 numbers, no dropout (theirs is drawn otherwise than ours), and a mask that can be cut.
std::optional<FlashCut> flash_on_gpu(const BlockCall& call);

/// Folds the block into `state`: the kernels' output and log-sum-exp, merged in float. On the CPU the same
/// with LibTorch's CPU kernels of the same signature, which take float and double too: what the tests hold to
/// the reference.
void update_by_flash(const BlockCall& call, const FlashCut& cut, const AttentionBlock& state);

/// Adds the block's part of the gradients. The kernels take the output and log-sum-exp of whole rows, all
/// blocks merged, and make rows.delta themselves: it has to be that of `whole` alone.
void backward_by_flash(const BlockCall& call, const FlashCut& cut, const BlockRows& rows,
                       const AttentionBlock& whole, const BlockGradients& into);

}  // namespace stoa::ops
