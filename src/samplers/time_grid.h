#pragma once
#include <span>
#include <string>
#include <vector>

#include "samplers/sampler.h"

namespace uvit {

/// How the times of a sampling run are spaced, a row each: the time at `share` in [0, 1] of the way from `start` to `end`.
struct TimeGridRow {
  std::string name;
  std::string description;
  double (*time)(const Schedule& schedule, double start, double end, double share, const SamplerOptions& options);
};

std::span<const TimeGridRow> time_grid_table();

/// `count` times from t_start down to t_end, both exact (t_start alone for count = 1), on options.grid, or on `own` where that is "solver"
/// (for edm "karras" in place of "time_uniform").
/// Throws Error unless num_steps >= 1 and t_start > t_end, with a finite lambda at both; for an unknown grid; and for a shift of edm's sigma.
std::vector<double> time_grid(const Schedule& schedule, const SamplerOptions& options, const std::string& own, std::int64_t count);

struct TimeRange {
  double start, end;
};
/// The checked t_start and t_end.
TimeRange time_range(const Schedule& schedule, const SamplerOptions& options);

/// The time at `share` of the way from `start` to `end`, uniform before the shift t -> s t / (1 + (s - 1) t) that both ends have gone through.
double shifted_time(double start, double end, double share, double shift);

/// t once a row of x.
std::vector<double> for_each_row(double t, const at::Tensor& x);

}  // namespace uvit
