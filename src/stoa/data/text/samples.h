#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "stoa/data/loader.h"
#include "stoa/data/text/options.h"
#include "stoa/data/text/pairs.h"
#include "stoa/data/text/text_dataset.h"
#include "stoa/data/text/windows.h"

namespace stoa {

/// The sequences that a model reads, made of one side of a data set. Thread-safe.
class TextSamples {
 public:
  /// Throws ConfigError where the tokenizer lacks a token that the objective needs, DataError where the text
  /// does not give a sample.
  TextSamples(std::shared_ptr<const TextDataset> dataset, const TextDataOptions& options, bool training);

  /// Samples of an epoch.
  std::int64_t size() const;
  /// A batch, all int64: `ids` [b, length] padded with the pad token (0 where there is none), `lengths` [b],
  /// `segments` [b, length], `targets` [b, length] (kNoTarget where nothing is asked) and, with a pair task,
  /// `pair` [b]. A function of the keys and the run's seed alone.
  ///
  /// Masked: [CLS] A [SEP] or [CLS] A [SEP] B [SEP], some tokens hidden. Causal: a window, and as targets the
  /// tokens that follow each of its own.
  Batch batch(const std::vector<SampleKey>& keys, std::uint64_t run_seed) const;

 private:
  struct Row;
  void check_tokens() const;
  void fill_masked(const SampleKey& key, const Row& row) const;
  void fill_causal(const SampleKey& key, std::uint64_t run_seed, const Row& row) const;

  std::shared_ptr<const TextDataset> dataset_;
  TextDataOptions options_;
  std::optional<SentenceBlocks> blocks_;  // masked
  std::optional<TokenWindows> windows_;   // causal
};

/// Endless training batches: every sample once an epoch, in an order fixed by the plan's seed.
std::unique_ptr<BatchSource> train_text_batches(std::shared_ptr<const TextSamples> samples,
                                                const BatchPlan& plan);
std::unique_ptr<BatchSource> train_text_batches(std::shared_ptr<const TextDataset> dataset,
                                                const TextDataOptions& options, const BatchPlan& plan);
/// Every evaluation sample once, in order; always the same ones (seed 0, epoch 0), whatever the plan's seed.
std::unique_ptr<BatchSource> eval_text_batches(std::shared_ptr<const TextSamples> samples, BatchPlan plan);
std::unique_ptr<BatchSource> eval_text_batches(std::shared_ptr<const TextDataset> dataset,
                                               const TextDataOptions& options, const BatchPlan& plan);

}  // namespace stoa
