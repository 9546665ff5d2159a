#include "stoa/train/task.h"

#include "stoa/base/errors.h"

namespace stoa {

void Task::save_pretrained(const std::filesystem::path&) {
  throw ConfigError(
      "models of this task have no form that Hugging Face's libraries know; export it as a run");
}

void Task::split_sequences(const dist::SequenceSplit&) {
  throw ConfigError(
      "`parallel.sequence` is over 1, but this task has no sequences that can be split; set it to 1");
}

}  // namespace stoa
