#include "stoa/train/task.h"

#include "stoa/base/errors.h"

namespace stoa {

void Task::save_pretrained(const std::filesystem::path&) {
  throw ConfigError(
      "models of this task have no form that Hugging Face's libraries know; export it as a run");
}

}  // namespace stoa
