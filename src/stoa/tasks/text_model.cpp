#include "stoa/tasks/text_model.h"

#include "stoa/base/errors.h"

namespace stoa {

at::Tensor TextModel::continued(const at::Tensor&, TextCache&) {
  throw ConfigError("this model cannot continue a text token by token");
}

void TextModel::save_pretrained(const std::filesystem::path&) const {
  throw ConfigError("this model has no form that Hugging Face's transformers know");
}

}  // namespace stoa
