#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "stoa/dist/sequence/sequence_attention.h"

// What splitting costs, as formulas: of the sections 2.4 and 2.5 of sequence-parallelism.md and 2.6, 2.8 and
// 2.9 of large-scale-optimisation.md. They know nothing of a recipe; train/plan.h puts them together.
namespace stoa::dist {

/// What carries messages between two processes.
struct Link {
  double bytes_per_s = 1.25e9;
  double latency_s = 50e-6;
};

/// Seconds of a ring all-reduce of so many bytes among `ranks`: 2 (p - 1) latency + 2 (p - 1) / p bytes /
/// bandwidth; 0 for one rank.
double all_reduce_seconds(double bytes, std::int64_t ranks, const Link& link);
/// Half of that: an all-gather to, or a reduce-scatter of, so many bytes.
double all_gather_seconds(double bytes, std::int64_t ranks, const Link& link);
/// An exchange in which every rank has so many bytes, equal parts of them for each: (p - 1) latency + (p - 1)
/// / p bytes / bandwidth.
double all_to_all_seconds(double bytes, std::int64_t ranks, const Link& link);

/// Share of a pipeline's time in which a stage waits, by GPipe and by 1F1B: (stages - 1) / (micro_batches +
/// stages - 1).
double pipeline_idle(std::int64_t stages, std::int64_t micro_batches);

/// Bytes that each parameter takes.
struct ParameterBytes {
  double weight = 4, gradient = 4, optimizer = 8;
};
/// Bytes of weights, gradients and optimiser states on each of `ranks` by ZeRO: stage 1 deals out the states,
/// 2 the gradients too, 3 the weights too. Mixed precision and Adam are {2, 2, 12}.
double zero_bytes(double parameters, const ParameterBytes& bytes, std::int64_t stage, std::int64_t ranks);

/// Numbers that a rank sends for attention of one layer, forward and backward, by its own part of the queries
/// [batch, length / ranks, heads, head_dim]; `ulysses` is for kHybrid.
double sequence_traffic(SequenceMethod method, std::int64_t ranks, std::int64_t ulysses = 1);

/// Numbers that a rank sends for one mixture, forward and backward, where experts are dealt out and equally
/// busy: rows out, answers back, and both again, 4 tokens choices width (ranks - 1) / ranks.
double expert_traffic(double tokens, double choices, double width, std::int64_t ranks);

/// One block of a transformer, and how many ranks share it.
struct BlockShape {
  double batch = 64, length = 512, width = 768, heads = 12, head_dim = 64;
  double ranks = 1;
  double projected = 256;  ///< rows that Linformer projects keys and values to
};

/// The paper's tables 1 to 3: numbers on a rank, weights counted four times (value, gradient, two moments).
double mlp_by_tensor(const BlockShape& s);
double mlp_by_sequence(const BlockShape& s);
double attention_by_tensor(const BlockShape& s);
double attention_by_rsa(const BlockShape& s);
double linformer_by_sequence(const BlockShape& s);
/// The same count for blockwise ring attention, which keeps logarithms of sums in place of the scores and
/// has two buffers for keys and values under way: 16AZH + 8BZLA/N + BZL/N + BLH/N.
double attention_by_ring(const BlockShape& s);

/// Ways through one attention block whose memory was measured (bench/ours/memory.cpp).
enum class BlockMethod {
  kTensorScores,  ///< heads split, scores of all pairs in memory, as Megatron did when the paper compared
  kTensorTiled,   ///< heads split, our own attention
  kRsa,
  kRing
};
/// "tensor, scores kept", "tensor, tiled", "RSA", "ring".
const char* name_of(BlockMethod method);

/// Bytes of fp32 tensors that one attention block (x W_qkv, attention, times W_out) holds at most in a
/// forward and backward pass, its input, weights and all gradients included.
double block_peak_bytes(BlockMethod method, const BlockShape& s);

/// The longest sequence whose block fits into so many bytes a rank, as a multiple of `step`; 0 for none.
double longest_sequence(BlockMethod method, BlockShape s, double bytes, double step);

}  // namespace stoa::dist
