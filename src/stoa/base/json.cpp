#include "stoa/base/json.h"

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"

namespace stoa {

Json read_json(const std::filesystem::path& file) {
  const std::string text = read_file(file);
  try {
    return Json::parse(text);
  } catch (const Json::parse_error& error) {
    throw DataError(format("{}: not valid JSON at byte {}; the file is damaged or was cut short",
                           file.string(), error.byte));
  }
}

}  // namespace stoa
