// DeepFM on tables of Criteo's shape: one update as the trainer makes it, or the scoring of candidates.
//   {"mode": "train" or "score", "batch": 1024, "sizes": [26 vocabularies], "numerics": 13, "absent":
//   "strided", "pool": 100}
// The batches, `pool` of them that are used in turn, lie ready; ids follow a power law, spread over the
// tables.
#include <ATen/ATen.h>

#include <cmath>

#include "bench/support/worker.h"
#include "stoa/base/errors.h"
#include "stoa/base/random.h"
#include "stoa/nn/embedding_tables.h"
#include "stoa/ops/keep_packed.h"
#include "stoa/optim/optimizer.h"
#include "stoa/systems/cow_clip/model.h"

namespace {

using namespace stoa;

constexpr double kExponent = 1.1, kShift = 10;  // the id of rank k is drawn with probability ~ (k + 10)^-1.1

/// One batch. bench/peers/click.py draws alike.
Batch draw(std::int64_t rows, const std::vector<std::int64_t>& sizes, std::int64_t numerics,
           std::uint64_t seed) {
  const auto fields = std::ssize(sizes);
  Batch batch;
  batch.samples = rows;
  const auto ids = at::empty({rows, fields}, at::kInt);
  RandomStream random(mix_seed({seed}));
  for (std::int64_t i = 0; i < rows * fields; ++i) {
    const auto size = static_cast<double>(sizes[static_cast<std::size_t>(i % fields)]);
    const double power = 1 - kExponent, low = std::pow(kShift, power), high = std::pow(size + kShift, power);
    const double rank = std::pow(low + random.uniform() * (high - low), 1 / power) - kShift;
    const auto place = static_cast<std::uint64_t>(std::clamp(rank, 0.0, size - 1)) * 2654435761U;
    ids.mutable_data_ptr<std::int32_t>()[i] = static_cast<std::int32_t>(
        place % static_cast<std::uint64_t>(sizes[static_cast<std::size_t>(i % fields)]));
  }
  batch.tensors = {{"ids", ids},
                   {"numerics", at::rand({rows, numerics})},
                   {"labels", at::rand({rows}).lt(0.25).to(at::kFloat)}};
  return batch;
}

nn::EmbeddingOptions table_options(const Json& spec) {
  nn::EmbeddingOptions options;
  const std::string absent = spec.value("absent", "strided");
  options.absent = absent == "dense" ? nn::AbsentRows::kDense : nn::AbsentRows::kStrided;
  return options;
}

class ClickWork : public bench::Work {
 public:
  explicit ClickWork(const Json& spec)
      : sizes_(spec.at("sizes").get<std::vector<std::int64_t>>()),
        numerics_(bench::integer(spec, "numerics")),
        options_(table_options(spec)),
        tables_(sizes_, options_, 1),
        model_(cow_clip::CowClipOptions{}, ClickModelInput{std::ssize(sizes_), numerics_, options_.dim}) {
    const auto batch = bench::integer(spec, "batch");
    for (std::int64_t i = 0; i < bench::integer(spec, "pool"); ++i)
      batches_.push_back(draw(batch, sizes_, numerics_, static_cast<std::uint64_t>(i)));
  }
  Json describe() override { return {{"parameters", nn::count_parameters(model_)}}; }

 protected:
  const Batch& next() { return batches_[static_cast<std::size_t>(done_++) % batches_.size()]; }

  std::vector<std::int64_t> sizes_;
  std::int64_t numerics_;
  nn::EmbeddingOptions options_;
  nn::EmbeddingTables tables_;
  cow_clip::CowClipImpl model_;
  std::vector<Batch> batches_;
  std::int64_t done_ = 0;
};

class TrainingStep final : public ClickWork {
 public:
  explicit TrainingStep(const Json& spec) : ClickWork(spec) {
    optim::OptimizerOptions adam;
    adam.eps = 1e-7;
    adam.keras_eps = true;
    optimizer_ = optim::make_optimizer(nn::distinct_parameters(model_), adam);
    for (std::int64_t i = 0; i < bench::integer(spec, "warm_up"); ++i) run();
  }

  void run() override {
    const Batch& batch = next();
    optimizer_->zero_grad();
    tables_.zero_grad();
    const auto logits = model_.score(tables_.lookup(batch["ids"]), batch["numerics"]);
    const auto loss = at::binary_cross_entropy_with_logits(logits, batch["labels"]);
    (loss + model_.penalty(options_.l2)).backward();
    const auto scale = optimizer_->clipping(0, false);
    if (!std::isfinite(loss.item<double>() + scale.norm + tables_.squared_gradient()))
      throw NumericError("the loss or a gradient is not finite");
    optimizer_->step(8e-4, scale);
    tables_.step();
  }

 private:
  std::unique_ptr<optim::Optimizer> optimizer_;
};

class Scoring final : public ClickWork {
 public:
  explicit Scoring(const Json& spec) : ClickWork(spec) { model_.eval(); }

  void run() override {
    const at::NoGradGuard no_gradients;
    const Batch& batch = next();
    model_.score(tables_.lookup(batch["ids"]), batch["numerics"]).sigmoid();
  }

 private:
  ops::KeepPacked keep_packed_;  // as `stoa predict` does
};

}  // namespace

int main(int argc, char** argv) {
  return bench::serve(argc, argv, [](const Json& spec) -> std::unique_ptr<bench::Work> {
    if (spec.at("mode") == "score") return std::make_unique<Scoring>(spec);
    return std::make_unique<TrainingStep>(spec);
  });
}
