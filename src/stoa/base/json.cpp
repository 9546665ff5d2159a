#include "stoa/base/json.h"

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"

namespace stoa {
namespace {

constexpr int kDeepest = 100;  // what copies or prints a value calls itself for each level

}  // namespace

Json read_json(const std::filesystem::path& file) {
  const std::string text = read_file(file);
  const auto check = [&](int depth, Json::parse_event_t, const Json&) {
    if (depth > kDeepest)
      throw DataError(format("{}: values are nested deeper than {} levels", file.string(), kDeepest));
    return true;
  };
  try {
    return Json::parse(text, check);
  } catch (const Json::parse_error& error) {
    throw DataError(format("{}: not valid JSON at byte {}; the file is damaged or was cut short",
                           file.string(), error.byte));
  } catch (const Json::out_of_range&) {
    throw DataError(format("{}: a number is too large for 64 bits; the file is damaged", file.string()));
  }
}

}  // namespace stoa
