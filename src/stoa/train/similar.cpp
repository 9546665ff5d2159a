#include "stoa/train/similar.h"

#include "stoa/base/format.h"
#include "stoa/base/text.h"

namespace stoa {

namespace fs = std::filesystem;

std::string similar_path(fs::path missing, const std::function<bool(const fs::path&)>& fits) {
  if (!missing.has_filename()) missing = missing.parent_path();  // "runs/first/"
  const fs::path folder = missing.has_parent_path() ? missing.parent_path() : ".";
  std::vector<std::string> names;
  std::error_code absent;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, absent))
    if (fits(entry.path())) names.push_back(entry.path().filename().string());
  const std::string near = nearest(missing.filename().string(), names);
  return near.empty() ? "" : format("; did you mean `{}`?", missing.replace_filename(near).string());
}

}  // namespace stoa
