#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace stoa {

/// How talkative the program is, and where. All of it goes to standard error; standard output is for results.
enum class Verbosity { kQuiet, kNormal, kDebug };
void set_verbosity(Verbosity verbosity);
Verbosity verbosity();

/// One line on standard error; a progress line that is being shown moves below it. Warnings are shown even
/// when quiet.
void log_info(std::string_view message);
void log_warning(std::string_view message);

/// Progress of long work: on a terminal one line that is redrawn with rate and time left, elsewhere a plain
/// line every `plain_every` seconds. Says nothing when quiet.
class Progress {
 public:
  /// `unit` is what is counted ("steps", "images"); `total` 0 means unknown.
  Progress(std::string label, std::string unit, std::int64_t total, double plain_every = 10);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// `done` of `total` are finished; `detail` (losses, accuracies) is shown behind the rate.
  void update(std::int64_t done, std::string_view detail = "");
  /// Draws the last state and ends the line.
  void finish();
  /// The work did not start at 0 (a resumed run): keeps rate and time left honest.
  void start_at(std::int64_t done);

 private:
  void draw(bool last);
  std::string line(double seconds) const;

  std::string label_, unit_, detail_;
  std::int64_t total_, done_ = 0, first_ = 0;
  double plain_every_;
  bool terminal_, finished_ = false;
  std::chrono::steady_clock::time_point start_, last_drawn_;
};

}  // namespace stoa
