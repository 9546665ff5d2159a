#include "stoa/train/pipeline_schedule.h"

#include <algorithm>

#include "stoa/base/format.h"

namespace stoa {

std::vector<PipelineStep> pipeline_steps(PipelineSchedule schedule, std::int64_t stage, std::int64_t stages,
                                         std::int64_t micro_batches) {
  // the last stage can go back at once, each one before it has a pass forward and one back to wait for
  const std::int64_t ahead =
      schedule == PipelineSchedule::kGPipe ? micro_batches : std::min(micro_batches, stages - 1 - stage);
  std::vector<PipelineStep> steps;
  for (std::int64_t i = 0; i < ahead; ++i) steps.push_back({true, i});
  for (std::int64_t i = 0; i < micro_batches; ++i) {
    if (i + ahead < micro_batches) steps.push_back({true, i + ahead});
    steps.push_back({false, i});
  }
  return steps;
}

double idle_share(std::int64_t stages, std::int64_t micro_batches) {
  return static_cast<double>(stages - 1) / static_cast<double>(micro_batches + stages - 1);
}

std::string idle_text(std::int64_t stages, std::int64_t samples, std::int64_t micro_batch_size) {
  const auto size = micro_batch_size == 0 ? samples : std::min(samples, micro_batch_size);
  const auto count = (samples + size - 1) / size;
  return format("{} stages, {} micro-batch{} a step: each stage waits {:.0f} % of the time or more{}", stages,
                count, count == 1 ? "" : "es", 100 * idle_share(stages, count),
                count < 4 * (stages - 1) ? "; a smaller `train.micro_batch_size` makes it less" : "");
}

}  // namespace stoa
