#pragma once

#include <chrono>
#include <fstream>
#include <string>
#include <thread>

namespace stoa::test {

/// True where a process runs; false once it has ended, even if nobody has waited for it yet.
inline bool is_running(int process) {
  std::ifstream file("/proc/" + std::to_string(process) + "/stat");
  std::string text;
  if (!std::getline(file, text)) return false;
  const std::size_t name_end = text.rfind(')');  // "PID (NAME) STATE ..."
  const char state = name_end + 2 < text.size() ? text[name_end + 2] : 'X';
  return state != 'Z' && state != 'X';
}

/// Waits for the end of a process that need not be a child; false where a minute is not enough.
inline bool ends(int process) {
  for (int i = 0; i < 6000 && is_running(process); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  return !is_running(process);
}

}  // namespace stoa::test
