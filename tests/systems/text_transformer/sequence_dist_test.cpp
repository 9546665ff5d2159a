// Every gradient of a language model whose sequences are split is that of one process, in double: the only
// check that shows sums over the ranks to be right, since Adam hides their scale (sequence-parallelism.md 7
// and 8).
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "stoa/base/format.h"
#include "stoa/data/text/masking.h"
#include "stoa/dist/gradient_buckets.h"
#include "stoa/dist/world.h"
#include "stoa/nn/parameters.h"
#include "support/temp_dir.h"
#include "systems/text_transformer/split_runs.h"

namespace stoa {
namespace {

using dist::SequenceMethod;
using dist::SequenceSplit;
using dist::TokenOrder;
using Gradients = std::map<std::string, at::Tensor>;
using Settings = std::vector<std::string>;

struct Way {
  SequenceMethod method;
  int ulysses = 1;
};

const std::vector<Way> kEveryMethod = {{SequenceMethod::kRing},
                                       {SequenceMethod::kRsa},
                                       {SequenceMethod::kGatherKv},
                                       {SequenceMethod::kUlysses},
                                       {SequenceMethod::kHybrid, 2}};

bool can_share(const Way& way, int ranks, std::int64_t heads) {
  if (way.method == SequenceMethod::kHybrid)
    return ranks > way.ulysses && ranks % way.ulysses == 0 && heads % way.ulysses == 0;
  return way.method != SequenceMethod::kUlysses || heads % ranks == 0;
}

Gradients gradients_of(Task& task) {
  Gradients gradients;
  for (const auto& parameter : nn::distinct_parameters(task.model())) {
    const auto& gradient = parameter.tensor.grad();
    gradients.emplace(parameter.name, gradient.defined() ? gradient : at::zeros_like(parameter.tensor));
  }
  return gradients;
}

/// A model, a batch of it, and what one process finds.
class Whole {
 public:
  Whole(const std::string& task, const Settings& set, std::int64_t micro_batch = 2)
      : micro_batch_(micro_batch) {
    test::write_text(folder_.path());
    const auto recipe = folder_ / (task + ".toml");
    one_ = test::task_in_double(recipe, set);
    many_ = test::task_in_double(recipe, set);
    batch = one_->train_batches({.batch_size = 3, .seed = 3})->next();
  }

  /// This rank's part of the same model.
  Task& part() { return *many_; }

  void expect_equal_gradients(dist::World& world, const SequenceSplit& split, const std::string& what) {
    if (!wanted_) wanted_ = differentiate(*one_, {});
    const auto& wanted = *wanted_;
    many_->split_sequences(split);
    dist::GradientBuckets buckets(nn::distinct_parameters(many_->model()), world.all());
    StepShare share;
    share.partners = &world.all();
    share.buckets = &buckets;
    share.meets_in_passes = true;
    const auto found = differentiate(*many_, share);
    ASSERT_EQ(found.losses.size(), wanted.losses.size()) << what;
    for (std::size_t i = 0; i < wanted.losses.size(); ++i)
      EXPECT_NEAR(found.losses[i].second, wanted.losses[i].second, 1e-12)
          << what << ", " << wanted.losses[i].first;
    for (std::size_t i = 0; i < wanted.metrics.size(); ++i)
      EXPECT_NEAR(found.metrics[i].second, wanted.metrics[i].second, 1e-7)  // which are counted in fp32
          << what << ", " << wanted.metrics[i].first;
    // that of a key's bias is rounding alone, and so measured by the least
    EXPECT_LT(test::furthest(gradients_of(*many_), gradients_of(*one_), 1e-3), 1e-12) << what;
  }

  /// How far its gradients are from those of the same weights with other settings.
  double apart(const std::string& task, const Settings& set) {
    const auto other = test::task_in_double(folder_ / (task + ".toml"), set);
    differentiate(*other, {});
    return test::furthest(gradients_of(*other), gradients_of(*one_), 1e-3);
  }

  Batch batch;

 private:
  BatchOutcome differentiate(Task& task, StepShare share) {
    task.model().zero_grad();
    share.seed = 11;
    return accumulate_gradients(task, batch, {}, micro_batch_, {}, false, share);
  }

  std::int64_t micro_batch_;
  test::TempDir folder_;
  std::unique_ptr<Task> one_, many_;
  std::optional<BatchOutcome> wanted_;
};

void expect_equal_by_every_way(dist::World& world, const std::string& task, std::int64_t heads,
                               Settings set) {
  set.push_back(format("model.heads={}", heads));
  Whole whole(task, set, /*micro_batch=*/0);
  for (const auto& way : kEveryMethod)
    for (const auto order : {TokenOrder::kContiguous, TokenOrder::kZigzag, TokenOrder::kStriped}) {
      if (!can_share(way, world.size(), heads)) continue;
      const SequenceSplit split{world.all_shared(), way.method, order, way.ulysses};
      whole.expect_equal_gradients(world, split,
                                   format("{}, {} of {}, {}, {} heads", task, name_of(way.method),
                                          way.ulysses, name_of(order), heads));
    }
}

/// 30 tokens: of 4 ranks, and of 2 and 4 in zigzag order, every batch is padded further.
STOA_PROCESS_TEST(SequenceGradients, AreThoseOfOneProcessForEveryMethodAndOrder, 2, 3, 4) {
  const auto world = dist::World::join(dist::read_place());
  const std::int64_t shared = world->size() == 3 ? 3 : 4;
  expect_equal_by_every_way(*world, "causal_text", shared, {"model.norm=pre"});
  // heads that four ranks cannot share out
  expect_equal_by_every_way(*world, "masked_text", world->size() == 2 ? 4 : 3, {});
}

STOA_PROCESS_TEST(SequenceGradients, OfRecomputedAndSharedLayersAreThoseOfOneProcess, 2) {
  const auto world = dist::World::join(dist::read_place());
  const SequenceSplit split{world->all_shared(), SequenceMethod::kRing, TokenOrder::kZigzag};
  Whole recomputed("causal_text", {"model.norm=pre", "model.recompute=true"});
  recomputed.expect_equal_gradients(*world, split, "recomputed");
  Whole shared("masked_text", {"model.preset=albert", "model.depth=3", "model.embedding_dim=12"});
  shared.expect_equal_gradients(*world, split, "one layer for all");
}

/// Means of the chunks' means, as the published code takes them, are not a number here. What each rank drops
/// of embeddings, hidden states and probabilities is its own: without dropout gradients are others.
STOA_PROCESS_TEST(SequenceGradients, OfChunksWithoutATargetAreThoseOfOneProcess, 4) {
  const auto world = dist::World::join(dist::read_place());
  Whole whole("masked_text", {});
  const auto targets = whole.batch["targets"];
  targets.fill_(kNoTarget);
  targets.select(1, 1).copy_(whole.batch["ids"].select(1, 2));  // in the first chunk alone
  for (const auto order : {TokenOrder::kContiguous, TokenOrder::kZigzag}) {
    const SequenceSplit split{world->all_shared(), SequenceMethod::kRing, order};
    whole.expect_equal_gradients(*world, split, format("targets of one rank, {}", name_of(order)));
    EXPECT_EQ(whole.part().weight(whole.batch), world->rank() == 0 ? 3 : 0);
  }
  for (const char* without : {"model.dropout=0", "model.attention_dropout=0"})
    EXPECT_GT(whole.apart("masked_text", {without}), 0.01) << without;
}

}  // namespace
}  // namespace stoa
