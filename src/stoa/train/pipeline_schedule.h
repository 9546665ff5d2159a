#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace stoa {

/// In which order the stages of a pipeline make forward and backward passes of micro-batches.
enum class PipelineSchedule {
  kGPipe,                 ///< all forward, then all backward (arXiv 1811.06965)
  kOneForwardOneBackward  ///< a backward pass as soon as there can be one: few micro-batches are held
};

/// The forward or backward pass of a micro-batch, counted from 0.
struct PipelineStep {
  bool forward;
  std::int64_t micro_batch;
  bool operator==(const PipelineStep&) const = default;
};

/// What stage `stage` of `stages` does with so many micro-batches. Forward and backward passes are each in
/// the order of the micro-batches, as in one process. A schedule of one stage is forward, backward, forward
/// ... with kOneForwardOneBackward, which holds what at most `stages - stage` micro-batches keep for their
/// backward passes; kGPipe holds all.
std::vector<PipelineStep> pipeline_steps(PipelineSchedule schedule, std::int64_t stage, std::int64_t stages,
                                         std::int64_t micro_batches);

/// The share of the time that each stage waits, where all passes of a kind take equally long: (p - 1) / (m +
/// p - 1) for p stages and m micro-batches, with either schedule.
double idle_share(std::int64_t stages, std::int64_t micro_batches);

/// That in words for a run whose steps have so many samples, in micro-batches of `micro_batch_size` (0: all).
std::string idle_text(std::int64_t stages, std::int64_t samples, std::int64_t micro_batch_size);

}  // namespace stoa
