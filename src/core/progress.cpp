#include "core/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace uvit {
namespace {

using Seconds = std::chrono::duration<double>;
constexpr double kShowAfterSeconds = 2;
constexpr double kRedrawSeconds = 0.2;
constexpr double kLineSeconds = 5;
constexpr int kBarWidth = 24;

std::string format_rate(double rate) { return rate >= 100 ? fmt::format("{:.0f}", rate) : fmt::format("{:.3g}", rate); }

}  // namespace

Progress::Progress(std::string what, std::int64_t total, std::string unit, std::int64_t already)
    : what_(std::move(what)), unit_(std::move(unit)), total_(total), already_(already), done_(already), start_(std::chrono::steady_clock::now()),
      shown_at_(start_), terminal_(isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() { finish(); }

void Progress::update(std::int64_t done, const std::string& note) {
  done_ = done;
  note_ = note;
  const auto now = std::chrono::steady_clock::now();
  if (Seconds(now - start_).count() < kShowAfterSeconds) return;
  if (shown_ && Seconds(now - shown_at_).count() < (terminal_ ? kRedrawSeconds : kLineSeconds)) return;
  show(note, false);
  shown_at_ = now;
}

void Progress::finish() {
  if (finished_) return;
  finished_ = true;
  if (shown_ || Seconds(std::chrono::steady_clock::now() - start_).count() >= kShowAfterSeconds) show(note_, true);
}

void Progress::show(const std::string& note, bool last) {
  const double seconds = Seconds(std::chrono::steady_clock::now() - start_).count();
  const double rate = seconds > 0 ? static_cast<double>(done_ - already_) / seconds : 0;
  const double share = total_ > 0 ? std::clamp(static_cast<double>(done_) / static_cast<double>(total_), 0.0, 1.0) : 0;
  const std::string left = last                     ? fmt::format("in {}", format_duration(seconds))
                           : rate > 0 && total_ > 0 ? fmt::format("ETA {}", format_duration(static_cast<double>(total_ - done_) / rate))
                                                    : "ETA ?";
  std::string line = what_ + " ";
  if (terminal_) {
    const int filled = static_cast<int>(share * kBarWidth);
    line += fmt::format("[{:{}}] ", std::string(static_cast<std::size_t>(filled), '='), kBarWidth);
  }
  line += fmt::format("{}/{} ({:.0f} %)  {} {}/s  {}", done_, total_, 100 * share, format_rate(rate), unit_, left);
  if (!note.empty()) line += "  " + note;
  if (terminal_)
    std::fprintf(stderr, "\r%s\033[K%s", line.c_str(), last ? "\n" : "");  // ESC [K clears what a longer line left
  else
    std::fprintf(stderr, "%s\n", line.c_str());
  std::fflush(stderr);
  shown_ = true;
}

std::string format_duration(double seconds) {
  if (!(seconds >= 0) || seconds > 1e9) return "?";
  const auto total = static_cast<std::int64_t>(std::llround(seconds));
  const std::int64_t hours = total / 3600, minutes = total / 60 % 60;
  return hours > 0 ? fmt::format("{}:{:02}:{:02}", hours, minutes, total % 60) : fmt::format("{}:{:02}", minutes, total % 60);
}

}  // namespace uvit
