#pragma once
#include <chrono>
#include <cstdint>
#include <string>

namespace uvit {

/// Progress with rate and time left on stderr: a bar redrawn in place on a terminal, a plain line every few seconds elsewhere.
/// Nothing is shown for work that ends within two seconds.
class Progress {
 public:
  /// @param what  what is being done, for instance "train"
  /// @param total number of units; @param unit for the rate, for instance "images"
  /// @param already units done before the start (a resumed run): they count as done and not in the rate
  Progress(std::string what, std::int64_t total, std::string unit, std::int64_t already = 0);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// `done` units are complete; `note` is appended, for instance "loss 0.0312".
  void update(std::int64_t done, const std::string& note = {});
  /// Ends the line. Called by the destructor too.
  void finish();

 private:
  void show(const std::string& note, bool last);
  std::string what_, unit_, note_;
  std::int64_t total_, already_, done_;
  std::chrono::steady_clock::time_point start_, shown_at_;
  bool terminal_, shown_ = false, finished_ = false;
};

/// "1:02:03" or "4:05" for a number of seconds.
std::string format_duration(double seconds);

}  // namespace uvit
