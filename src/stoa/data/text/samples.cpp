#include "stoa/data/text/samples.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/data/text/masking.h"

namespace stoa {

namespace {

constexpr std::uint64_t kRingCut = 203;  // names the stream that cuts an epoch's ring

}  // namespace

/// One sample's place in a batch.
struct TextSamples::Row {
  std::int64_t *ids, *segments, *targets, *length, *pair;
};

TextSamples::TextSamples(std::shared_ptr<const TextDataset> dataset, const TextDataOptions& options,
                         bool training)
    : dataset_(std::move(dataset)), options_(options) {
  options_.validate();
  const TextDocuments& documents = training ? dataset_->train : dataset_->eval;
  if (options_.objective == TextObjective::kCausal) {
    windows_.emplace(documents, dataset_->tokenizer->special().end, options_.length, training);
  } else {
    check_tokens();
    blocks_.emplace(documents, options_.pairs, options_.length, options_.short_share);
  }
}

void TextSamples::check_tokens() const {
  const SpecialTokens& special = dataset_->tokenizer->special();
  const std::pair<const char*, std::int32_t> needed[] = {
      {"pad", special.pad}, {"cls", special.cls}, {"sep", special.sep}, {"mask", special.mask}};
  for (const auto& [name, id] : needed)
    if (id < 0)
      throw ConfigError(
          format("the tokenizer has no {} token, which masked text needs; choose another tokenizer, or learn "
                 "which token comes next (task.name = \"causal_text\")",
                 name));
}

std::int64_t TextSamples::size() const {
  return blocks_ ? blocks_->size() : windows_->size();
}

void TextSamples::fill_masked(const SampleKey& key, const Row& row) const {
  RandomStream random(key.seed);
  const SegmentPair pair = blocks_->segments(key.index, random);
  const SpecialTokens& special = dataset_->tokenizer->special();
  std::vector<std::int32_t> ids = {special.cls};
  ids.insert(ids.end(), pair.first.begin(), pair.first.end());
  ids.push_back(special.sep);
  const std::size_t second = ids.size();
  if (options_.pairs != PairTask::kNone) {
    ids.insert(ids.end(), pair.second.begin(), pair.second.end());
    ids.push_back(special.sep);
    *row.pair = pair.label;
  }
  mask_tokens(ids, *dataset_->tokenizer, options_.masking, random, {row.targets, ids.size()});
  std::ranges::copy(ids, row.ids);
  std::fill(row.segments + second, row.segments + ids.size(), std::int64_t{1});
  *row.length = std::ssize(ids);
}

void TextSamples::fill_causal(const SampleKey& key, std::uint64_t run_seed, const Row& row) const {
  const std::uint64_t cut = mix_seed({run_seed, kRingCut, static_cast<std::uint64_t>(key.epoch)});
  const std::vector<std::int32_t> window = windows_->window(key.index, cut);
  std::copy(window.begin(), window.end() - 1, row.ids);
  std::copy(window.begin() + 1, window.end(), row.targets);
  *row.length = std::ssize(window) - 1;
}

Batch TextSamples::batch(const std::vector<SampleKey>& keys, std::uint64_t run_seed) const {
  const std::int64_t rows = std::ssize(keys), length = options_.length;
  const std::int64_t pad = std::max(0, dataset_->tokenizer->special().pad);
  const bool with_pair = blocks_ && options_.pairs != PairTask::kNone;
  const at::Tensor ids = at::full({rows, length}, pad, at::kLong), segments = at::zeros_like(ids),
                   targets = at::full({rows, length}, kNoTarget, at::kLong),
                   lengths = at::zeros({rows}, at::kLong), pair = at::zeros({rows}, at::kLong);
  for (std::int64_t i = 0; i < rows; ++i) {
    const Row row{ids.mutable_data_ptr<std::int64_t>() + i * length,
                  segments.mutable_data_ptr<std::int64_t>() + i * length,
                  targets.mutable_data_ptr<std::int64_t>() + i * length,
                  lengths.mutable_data_ptr<std::int64_t>() + i, pair.mutable_data_ptr<std::int64_t>() + i};
    const SampleKey& key = keys[static_cast<std::size_t>(i)];
    blocks_ ? fill_masked(key, row) : fill_causal(key, run_seed, row);
  }
  Batch batch{{{"ids", ids}, {"lengths", lengths}, {"segments", segments}, {"targets", targets}}, rows};
  if (with_pair) batch.tensors["pair"] = pair;
  return batch;
}

std::unique_ptr<BatchSource> train_text_batches(std::shared_ptr<const TextSamples> samples,
                                                const BatchPlan& plan) {
  return shuffled_batches(
      samples->size(), plan,
      [samples, seed = plan.seed](const std::vector<SampleKey>& keys) { return samples->batch(keys, seed); });
}

std::unique_ptr<BatchSource> train_text_batches(std::shared_ptr<const TextDataset> dataset,
                                                const TextDataOptions& options, const BatchPlan& plan) {
  return train_text_batches(std::make_shared<const TextSamples>(std::move(dataset), options, true), plan);
}

std::unique_ptr<BatchSource> eval_text_batches(std::shared_ptr<const TextSamples> samples, BatchPlan plan) {
  plan.seed = 0;
  return ordered_batches(samples->size(), plan,
                         [samples](const std::vector<SampleKey>& keys) { return samples->batch(keys, 0); });
}

std::unique_ptr<BatchSource> eval_text_batches(std::shared_ptr<const TextDataset> dataset,
                                               const TextDataOptions& options, const BatchPlan& plan) {
  return eval_text_batches(std::make_shared<const TextSamples>(std::move(dataset), options, false), plan);
}

}  // namespace stoa
