#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "stoa/data/loader.h"
#include "stoa/dist/group.h"
#include "stoa/nn/layer_split.h"
#include "stoa/nn/outputs.h"

namespace stoa {

/// What one batch of an evaluation gave.
struct BatchAnswer {
  std::int64_t first = 0, samples = 0;  ///< its samples, counted in the order of the evaluation
  std::vector<at::Tensor> tensors;
  std::vector<nn::NamedTensor> statistics;
};

/// The batches of an evaluation, shared out over the replicas of a run: of N each passes every N-th through
/// its model, the same batches as one process makes. After each pass all are told what the others' gave, so
/// that all add up the same answers in the same order, to the bit. All make equally many passes, since models
/// may meet within them: where the batches have run out, a replica passes the last one again for nothing.
class EvaluationRounds {
 public:
  /// Over `samples` samples. Without `replicas` this process makes all batches.
  EvaluationRounds(std::int64_t samples, std::int64_t batch_size, int workers,
                   std::shared_ptr<dist::Group> replicas = nullptr)
      : samples_(samples), batch_size_(batch_size), workers_(workers), replicas_(std::move(replicas)) {}

  /// What ordered_batches() makes this process's batches of.
  BatchPlan plan() const;
  /// To be called once for each of them, by all replicas: the answers of this round's batches, in order.
  /// `tensors` may be of any sizes, `statistics` of the same names everywhere; those of others are on the
  /// CPU. Where the layers are split over `stages`, the last one's count alone, and all get them some rounds
  /// at a time, so that the first need not wait for the last in every round. Throws DistributedError.
  std::vector<BatchAnswer> share(std::vector<at::Tensor> tensors,
                                 const std::vector<nn::NamedTensor>& statistics = {},
                                 const std::shared_ptr<const nn::LayerExchange>& stages = nullptr);
  /// To be called behind the last round: the answers that are still to come.
  std::vector<BatchAnswer> rest();

  std::int64_t samples() const { return samples_; }
  /// Samples whose answers were returned, or, where others know them, computed.
  std::int64_t done() const { return done_; }

 private:
  std::vector<BatchAnswer> of_round(std::vector<at::Tensor> tensors,
                                    const std::vector<nn::NamedTensor>& statistics);
  BatchAnswer next_answer(std::vector<at::Tensor> tensors, const std::vector<std::string>& statistics);

  std::int64_t samples_, batch_size_;
  int workers_;
  std::shared_ptr<dist::Group> replicas_;
  std::int64_t done_ = 0;
  std::shared_ptr<const nn::LayerExchange> stages_;  ///< null for all layers in one process
  std::int64_t waiting_ = 0;                         ///< rounds whose answers not all stages have yet
  std::vector<BatchAnswer> held_;                    ///< of them, by the last stage
};

/// Implemented by tasks whose evaluate() makes its passes in EvaluationRounds.
class SharesEvaluation {
 public:
  virtual ~SharesEvaluation() = default;
  /// From now on evaluate() is called by all replicas together, each of which returns what one process does;
  /// null: by this process alone.
  void share_evaluation(std::shared_ptr<dist::Group> replicas) { replicas_ = std::move(replicas); }

 protected:
  EvaluationRounds rounds(std::int64_t samples, std::int64_t batch_size, int workers) const {
    return {samples, batch_size, workers, replicas_};
  }

 private:
  std::shared_ptr<dist::Group> replicas_;
};

}  // namespace stoa
