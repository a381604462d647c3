#pragma once
#include <span>
#include <string>

#include "config/config.h"
#include "diffusion/schedule.h"

namespace uvit {

/// How training times are drawn, a row each, as a function of one uniform draw u in [0, 1): so any law can be stratified.
struct TimeSamplingRow {
  std::string name;
  std::string description;
  double (*time)(const Schedule& schedule, double u, const DiffusionConfig& config);
};

std::span<const TimeSamplingRow> time_sampling_table();

/// The time of a training sample from u: the row diffusion.time_sampling with its time_mean, time_std and time_shift. Keeps a reference to the schedule.
class TimeLaw {
 public:
  /// Throws Error for an unknown row.
  TimeLaw(const DiffusionConfig& config, const Schedule& schedule);
  double operator()(double u) const;

 private:
  const Schedule& schedule_;
  const TimeSamplingRow& row_;
  DiffusionConfig config_;
};

/// s t / (1 + (s - 1) t): for s > 1 more of the times lie near noise (Esser et al., arXiv:2403.03206, eq. 23).
double shift_time(double t, double shift);

/// The draw of sample `index` from its own u: with stratification in the index mod batch_size -th of batch_size equal parts of [0, 1), else u.
double stratified_draw(double u, std::uint64_t index, const Config& config);

}  // namespace uvit
