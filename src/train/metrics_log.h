#pragma once
#include <chrono>
#include <filesystem>
#include <optional>
#include <string>

#include "config/config.h"
#include "io/event_file.h"

namespace uvit {

/// What is reported of training between two lines of the log.
struct MetricsLine {
  std::int64_t step = 0;          ///< optimizer steps done
  std::optional<double> loss;     ///< mean since the last line; none where none was finite
  double lr = 0;                  ///< the rate the last step used
  std::optional<double> grad_norm;  ///< of the last step, before clipping; none where it is not finite and the step was left out
  double images_per_second = 0;   ///< training steps alone
  double data_wait = 0;           ///< share of their time spent waiting for data, 0 .. 1
  double seconds = 0;             ///< since the run began, breaks left out
  std::optional<double> eval_loss;
  std::optional<double> update_ratio;  ///< |change of the parameters| / |parameters| of the last step; 0 where it was left out
  std::optional<double> max_attention_score;  ///< largest |scale q k^T| of a few images of the last batch; none where it is not finite
  std::int64_t skipped_steps = 0;  ///< left out so far, for a loss or gradients that were not finite
  std::int64_t rollbacks = 0;      ///< times that training went back to a checkpoint
  std::optional<double> align_loss = {};  ///< of the last step, before its weight (alignment.h); none without an encoder
};

/// RUN/metrics.jsonl (one object a line) and RUN/events.out.tfevents.*.
class MetricsLog {
 public:
  /// Drops the lines beyond `step`, which a resumed run writes again, and what a crash left half-written.
  MetricsLog(const std::filesystem::path& run, std::int64_t step);
  void write(const MetricsLine& line);
  /// The settings of the run, for TensorBoard's table of runs.
  void add_settings(const std::string& run, const Config& config);
  /// Drops the lines beyond `step`, to which training went back.
  void rewind(std::int64_t step);
  /// Brings the lines to the disk, so that a checkpoint never outlives the lines before it.
  void sync() const;
  EventFile& events() { return events_; }
  /// Seconds of the run up to the step it was resumed from.
  double seconds_before() const { return seconds_before_; }

 private:
  std::filesystem::path path_;
  double seconds_before_;
  EventFile events_;
};

/// Time spent in training steps, and the part of it spent waiting for data.
class StepClock {
 public:
  /// Starts a step; data_ready ends its waiting for data; stop ends the step.
  void start() { started_ = Clock::now(); }
  void data_ready() { wait_ += since(started_); }
  void stop(std::int64_t images) {
    seconds_ += since(started_);
    images_ += images;
  }
  double images_per_second() const { return seconds_ > 0 ? static_cast<double>(images_) / seconds_ : 0; }
  double data_wait() const { return seconds_ > 0 ? wait_ / seconds_ : 0; }

 private:
  using Clock = std::chrono::steady_clock;
  static double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }
  Clock::time_point started_;
  double seconds_ = 0, wait_ = 0;
  std::int64_t images_ = 0;
};

}  // namespace uvit
