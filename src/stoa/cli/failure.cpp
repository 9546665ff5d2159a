#include <c10/util/Exception.h>

#include <exception>
#include <new>
#include <string_view>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/text.h"
#include "stoa/cli/program.h"

namespace stoa::cli {

namespace {

// Users get one line: what stands behind the first line of a LibTorch message is where in LibTorch it arose.
std::string first_line(std::string_view text) {
  const std::size_t begin = text.find_first_not_of("\n ");
  if (begin == std::string_view::npos) return "unknown error";
  return std::string(text.substr(begin, text.find('\n', begin) - begin));
}

std::string in_one_line(std::string text) {
  for (char& c : text)
    if (c == '\n' || c == '\r') c = ' ';
  return text;
}

Failure out_of_memory(const std::string& what) {
  const std::string cure =
      "lower `train.micro_batch_size` (an update still takes `train.batch_size` samples) or "
      "`train.eval_batch_size`, or make the model smaller; `stoa info` estimates the memory of a recipe";
  return {format("out of memory{}; {}", what, cure), DeviceError("").exit_code()};
}

// LibTorch's CPU allocator reports with a plain c10::Error.
bool says_out_of_memory(std::string_view message) {
  for (const std::string_view part : {"can't allocate memory", "not enough memory", "out of memory"})
    if (message.find(part) != std::string_view::npos) return true;
  return false;
}

// ": 70.4 TiB were asked for" out of "... you tried to allocate 77309411328 bytes ...".
std::string asked_for(const std::string& message) {
  const std::string mark = "you tried to allocate ";
  const std::size_t at = message.find(mark);
  if (at == std::string::npos) return ": " + first_line(message);
  const double count = std::strtod(message.c_str() + at + mark.size(), nullptr);
  return format(": {} were asked for at once", bytes(count));
}

}  // namespace

Failure current_failure() {
  try {
    throw;
  } catch (const Error& error) {
    return {in_one_line(error.what()), error.exit_code()};
  } catch (const std::bad_alloc&) {
    return out_of_memory("");
  } catch (const c10::Error& error) {
    const std::string message = error.what_without_backtrace();
    if (dynamic_cast<const c10::OutOfMemoryError*>(&error) != nullptr || says_out_of_memory(message))
      return out_of_memory(asked_for(message));
    return {"LibTorch: " + first_line(message), 1};
  } catch (const std::exception& error) {
    if (says_out_of_memory(error.what())) return out_of_memory(asked_for(error.what()));
    return {first_line(error.what()), 1};
  } catch (...) {
    return {"unknown error", 1};
  }
}

}  // namespace stoa::cli
