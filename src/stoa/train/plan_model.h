#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "stoa/train/recipe.h"
#include "stoa/train/task.h"

namespace stoa {

/// What a recipe trains, in the numbers from which train/plan.h predicts memory and time. Kept numbers come
/// from the model's own description (ModelPart::activations), which says what its operators keep for the
/// backward pass; the shape of the blocks from the keys that all transformers of the house have (model.dim,
/// depth, heads, mlp_dim). A model without them is planned as one block that only data and ZeRO can split.
struct PlanModel {
  /// Of the whole model.
  double parameters = 0;      ///< numbers, frozen ones and buffers included
  double learned = 0;         ///< of them, those with gradients
  double block_learned = 0;   ///< of these, in attention, perceptrons and mixtures
  double scores_learned = 0;  ///< in the matrix of the loss over a vocabulary, whose gradient the loss makes
  double tables = 0;          ///< bytes of weights with an update rule of their own
  std::int64_t states = 0;    ///< numbers of the optimiser for each learned parameter
  bool average = false;       ///< another copy of all parameters is kept
  double bytes_per_number = 4;  ///< of what is kept for the backward pass

  /// Of one sample.
  double macs = 0;            ///< multiply-accumulates of the forward pass
  double attention_macs = 0;  ///< of them, in products of tokens with tokens, or with projected rows
  double kept = 0;            ///< numbers kept for the backward pass
  double block_kept = 0;      ///< of them, by the blocks
  double input_bytes = 0;     ///< of a sample itself

  /// The blocks; without them `depth` is 1 and the rest 0.
  std::int64_t tokens = 0, width = 0, depth = 1, heads = 0;
  double projected = 0;  ///< rows to which Linformer projects keys and values; 0 without
  double hidden = 0;     ///< numbers a token has between the layers of a perceptron, or of its experts

  /// Mixtures; 0 without them.
  std::int64_t experts = 0;   ///< of each
  std::int64_t mixtures = 0;  ///< layers that have one
  /// Rows that a token has in a mixture: the experts it goes to, or fewer where these have no room for all.
  double choices = 0;
  double expert_learned = 0;  ///< of block_learned, in experts
  double expert_macs = 0;     ///< of macs
  double expert_kept = 0;     ///< of block_kept
  bool cuts_experts = false;  ///< their hidden units can be dealt out as those of perceptrons

  bool shared = false;  ///< blocks share their weights
  bool splits_sequences = false;
  /// What the model says, today, to so many parts of its matrices, or stages; numbers that it takes are left
  /// out.
  std::map<std::int64_t, std::string> refused_parts = {}, refused_stages = {};
  bool recomputes = false;      ///< the recipe runs blocks again in the backward pass
  bool can_recompute = false;   ///< model.recompute is there
  std::int64_t vocabulary = 0;  ///< rows of the loss's matrix; 0 for a loss of few classes
  double asked = 1;             ///< share of the tokens that the loss asks for

  /// The step.
  std::int64_t batch = 1, micro_batch = 1, workers = 0;
  dist::ParallelOptions parallel;  ///< as the recipe has it
};

/// Reads all that from a recipe and its task, which was built from it (data are not needed).
PlanModel plan_model(Recipe& recipe, Task& task);

}  // namespace stoa
