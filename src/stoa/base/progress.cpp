#include "stoa/base/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <mutex>
#include <utility>

#include "stoa/base/format.h"
#include "stoa/base/text.h"

namespace stoa {

namespace {

constexpr double kRedrawEvery = 0.1;  // seconds between two drawings on a terminal

std::atomic<Verbosity> current_verbosity{Verbosity::kNormal};

// Guards standard error and what is known about its last line.
std::mutex screen;
std::string open_line;  // the progress line being shown on a terminal, empty if none

void put(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stderr);
  std::fflush(stderr);
}

void log_line(std::string_view text) {
  const std::lock_guard lock(screen);
  if (open_line.empty()) return put(format("{}\n", text));
  put(format("\r\033[K{}\n{}", text, open_line));
}

std::size_t terminal_width() {
  winsize size{};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

// The first `width` characters of UTF-8 text.
std::string_view clipped(std::string_view text, std::size_t width) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool starts_character = (static_cast<unsigned char>(text[i]) & 0xc0u) != 0x80u;
    if (starts_character && count++ == width) return text.substr(0, i);
  }
  return text;
}

double seconds_since(std::chrono::steady_clock::time_point then) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - then).count();
}

}  // namespace

void set_verbosity(Verbosity verbosity) {
  current_verbosity = verbosity;
}

Verbosity verbosity() {
  return current_verbosity;
}

void log_info(std::string_view message) {
  if (verbosity() != Verbosity::kQuiet) log_line(message);
}

void log_warning(std::string_view message) {
  log_line(format("warning: {}", message));
}

Progress::Progress(std::string label, std::string unit, std::int64_t total, double plain_every)
    : label_(std::move(label)),
      unit_(std::move(unit)),
      total_(total),
      plain_every_(plain_every),
      terminal_(isatty(STDERR_FILENO) != 0),
      start_(std::chrono::steady_clock::now()),
      last_drawn_(start_) {
  if (terminal_) draw(false);
}

Progress::~Progress() {
  if (finished_ || !terminal_) return;
  const std::lock_guard lock(
      screen);  // the work ended early: what is printed next starts on a line of its own
  if (!open_line.empty()) put("\n");
  open_line.clear();
}

void Progress::start_at(std::int64_t done) {
  first_ = done_ = done;
  start_ = last_drawn_ = std::chrono::steady_clock::now();
}

void Progress::update(std::int64_t done, std::string_view detail) {
  done_ = done;
  detail_ = detail;
  if (seconds_since(last_drawn_) >= (terminal_ ? kRedrawEvery : plain_every_)) draw(false);
}

void Progress::finish() {
  if (std::exchange(finished_, true)) return;
  draw(true);
}

void Progress::draw(bool last) {
  last_drawn_ = std::chrono::steady_clock::now();
  if (verbosity() == Verbosity::kQuiet) return;
  const std::string text = line(seconds_since(start_));
  const std::lock_guard lock(screen);
  if (!terminal_) return put(text + "\n");
  open_line = clipped(text, terminal_width() - 1);
  put(format("\r\033[K{}{}", open_line, last ? "\n" : ""));
  if (last) open_line.clear();
}

std::string Progress::line(double seconds) const {
  std::string text = label_ + ": " + thousands(done_);
  if (total_ > 0) text += "/" + thousands(total_);
  text += " " + unit_;
  const double rate = seconds > 0 ? static_cast<double>(done_ - first_) / seconds : 0;
  if (rate >= 100) text += format(", {} {}/s", thousands(static_cast<std::int64_t>(rate)), unit_);
  if (rate > 0 && rate < 100) text += format(", {:.3g} {}/s", rate, unit_);
  if (finished_)
    text += ", took " + duration(seconds);
  else if (rate > 0 && total_ > 0)
    text += format(", {} left", duration(static_cast<double>(total_ - done_) / rate));
  if (!detail_.empty()) text += ", " + detail_;
  return text;
}

}  // namespace stoa
