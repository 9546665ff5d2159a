// Language models whose sequences are split compute no padding that no sequence of the micro-batch needs.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <memory>
#include <string>

#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/data/text/masking.h"
#include "stoa/dist/group.h"
#include "stoa/tasks/causal_text.h"
#include "stoa/tasks/masked_text.h"
#include "support/embedding_text_model.h"
#include "support/temp_dir.h"

namespace stoa {
namespace {

using dist::TokenOrder;

/// Keeps what it was given.
class WatchedTextModel : public test::EmbeddingTextModel {
 public:
  using EmbeddingTextModel::EmbeddingTextModel;
  bool splits_sequences() const override { return true; }
  TextOutput forward(const nn::PackedTokens& tokens) override {
    seen = tokens;
    return EmbeddingTextModel::forward(tokens);
  }
  nn::PackedTokens seen;
};

/// A task of sequences that are padded to 48 tokens.
struct Built {
  test::TempDir folder;
  std::unique_ptr<Task> task;

  explicit Built(const std::string& objective) {
    write_file_atomically(folder / "text.txt", "one cat and one dog\n\ntwo cats and no dog\n");
    const auto text = format(
        "[task]\n[data]\ntrain = [\"{0}\"]\neval = [\"{0}\"]\ntokenizer = \"bytes\"\nlength = 48\n{1}",
        (folder / "text.txt").string(), objective == "masked_text" ? "pairs = \"sentence_order\"\n" : "");
    std::unique_ptr<TaskRecipe> recipe;
    const auto model = text_model_recipe<WatchedTextModel, test::EmbeddingTextOptions>();
    if (objective == "masked_text")
      recipe = std::make_unique<MaskedTextRecipe>(model);
    else
      recipe = std::make_unique<CausalTextRecipe>(model);
    read_fields(Config::from_text(text, "recipe"), [&](FieldVisitor& v) { recipe->visit(v); });
    recipe->validate();
    torch::manual_seed(1);
    task = recipe->build({/*open_data=*/false, Json(), {}});
    task->model().to(at::kDouble);
  }
  void split(TokenOrder order) const {
    dist::SequenceSplit split;
    split.group = std::make_shared<dist::Group>("sequence", std::vector<int>{0}, 0,
                                                std::shared_ptr<dist::Connection>());
    split.order = order;
    task->split_sequences(split);
  }
  const nn::PackedTokens& seen() const { return dynamic_cast<WatchedTextModel&>(task->model()).seen; }
};

/// Sequences of such lengths; of each token the next is asked for.
Batch batch_of(const std::vector<std::int64_t>& lengths) {
  const auto rows = std::ssize(lengths);
  const auto ids = at::zeros({rows, 48}, at::kLong), targets = at::full({rows, 48}, kNoTarget, at::kLong);
  for (std::int64_t i = 0; i < rows; ++i) {
    const auto length = lengths[static_cast<std::size_t>(i)];
    ids[i].narrow(0, 0, length).copy_(at::arange(length, at::kLong) + 97 + i);
    targets[i].narrow(0, 0, length).copy_(at::arange(length, at::kLong) + 98 + i);
  }
  return {{{"ids", ids},
           {"lengths", at::tensor(lengths, at::kLong)},
           {"segments", at::zeros_like(ids)},
           {"targets", targets},
           {"pair", at::zeros({rows}, at::kLong)}},
          rows};
}

TEST(SplitPadding, EndsBehindTheLongestSequenceOfTheMicroBatch) {
  const auto batch = batch_of({3, 7, 20});
  for (const auto& [order, unit] : {std::pair(TokenOrder::kContiguous, 1), {TokenOrder::kZigzag, 2}}) {
    const Built built("causal_text");
    built.split(order);
    built.task->loss(batch, {});
    EXPECT_EQ(built.seen().tokens(), 3 * 20);
    built.task->loss(batch.slice(0, 2), {});
    EXPECT_EQ(built.seen().tokens(), 2 * (7 + 7 % unit)) << "a multiple of " << unit;
    EXPECT_EQ(built.seen().segments.numel(), built.seen().tokens());
  }
}

TEST(SplitPadding, LeavesTokensTheirPlacesFromWhichDropoutIsDrawn) {
  const Built built("causal_text");
  built.split(TokenOrder::kContiguous);
  built.task->loss(batch_of({3, 7}), {});
  const auto keys = built.seen().keys().view({2, 7});
  built.task->loss(batch_of({3, 48}), {});
  EXPECT_TRUE(keys.equal(built.seen().keys().view({2, 48}).narrow(1, 0, 7)));
}

TEST(SplitPadding, ChangesNeitherLossNorWeight) {
  for (const char* objective : {"masked_text", "causal_text"}) {
    const Built whole(objective), split(objective);
    split.split(TokenOrder::kZigzag);
    const auto batch = batch_of({5, 11, 9});
    EXPECT_EQ(split.task->weight(batch), whole.task->weight(batch)) << objective;
    const auto found = split.task->loss(batch, {}), wanted = whole.task->loss(batch, {});
    EXPECT_NEAR(found.loss.item<double>(), wanted.loss.item<double>(), 1e-12) << objective;
    ASSERT_EQ(found.side.losses.size(), wanted.side.losses.size());
    for (std::size_t i = 0; i < wanted.side.losses.size(); ++i)
      EXPECT_NEAR(found.side.losses[i].value.item<double>(), wanted.side.losses[i].value.item<double>(),
                  1e-12);
  }
}

}  // namespace
}  // namespace stoa
