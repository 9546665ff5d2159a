#include "stoa/dist/errors.h"

#include <algorithm>
#include <initializer_list>
#include <string_view>

#include "stoa/base/format.h"

namespace stoa::dist {
namespace {

bool contains(std::string_view text, std::initializer_list<std::string_view> parts) {
  for (const auto part : parts)
    if (text.find(part) != std::string_view::npos) return true;
  return false;
}

/// The first line without the source file that Gloo puts before it, and without c10's stack trace.
std::string first_line(std::string text) {
  text.erase(std::min(text.find('\n'), text.size()));
  if (text.starts_with('['))
    if (const auto end = text.find("] "); end != std::string::npos) text.erase(0, end + 2);
  if (const auto trace = text.find(" Exception raised from"); trace != std::string::npos) text.erase(trace);
  while (!text.empty() && (text.back() == '.' || text.back() == ' ')) text.pop_back();
  return text;
}

}  // namespace

DistributedError explain_failure(const std::string& doing, const std::exception& error, double timeout_s) {
  const std::string what = first_line(error.what());
  std::string cause;
  if (contains(what, {"address already in use", "EADDRINUSE"}))
    cause = "the port is in use; end the run that holds it or set MASTER_PORT to a free one";
  else if (contains(what, {"closed by peer", "reset by peer", "Broken pipe", "Connection reset",
                           "likely closed", "pair closure"}))
    cause = "connection closed by peer; another rank ended: its own message, printed before, says why";
  else if (contains(what, {"client socket has timed out", "Connection refused"}))
    cause = format("nothing answered within {} s; start rank 0, and check MASTER_ADDR and MASTER_PORT",
                   timeout_s);
  else if (contains(what, {"Timed out", "timed out", "timeout", "Timeout"}))
    cause = format(
        "no answer within {} s; look for a rank that hangs, or raise parallel.timeout if one is merely slow",
        timeout_s);
  else
    cause = what + "; see what the other ranks print";
  return DistributedError(format("{} failed: {}", doing, cause));
}

}  // namespace stoa::dist
