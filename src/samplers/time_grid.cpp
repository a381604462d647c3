#include <torch/torch.h>

#include "samplers/time_grid.h"

#include <fmt/format.h>

#include <cmath>
#include <functional>

#include "core/error.h"

namespace uvit {
namespace {

struct Range {
  double start, end;
};

Range checked_range(const Schedule& schedule, const SamplerOptions& options) {
  if (options.num_steps < 1) throw Error(fmt::format("num_steps is {}: sampling takes at least one step", options.num_steps));
  const Range range{options.t_start < 0 ? schedule.t_max() : options.t_start, options.t_end < 0 ? schedule.t_min() : options.t_end};
  const bool finite = std::isfinite(schedule.lambda(range.start)) && std::isfinite(schedule.lambda(range.end));
  if (!(range.start > range.end) || !finite) {
    throw Error(fmt::format("cannot sample from t = {} to t = {}: give times within {} ... {} of the schedule, the first one larger", range.start,
                            range.end, schedule.t_min(), schedule.t_max()));
  }
  return range;
}

/// n values from `first` to `last`, both of them exact; `first` alone for n = 1.
std::vector<double> spaced(double first, double last, std::int64_t n, const std::function<double(double)>& time) {
  std::vector<double> times = {first};
  for (std::int64_t i = 1; i < n; ++i) times.push_back(time(static_cast<double>(i) / static_cast<double>(n - 1)));
  if (n > 1) times.back() = last;
  return times;
}

}  // namespace

std::vector<double> uniform_times(const Schedule& schedule, const SamplerOptions& options) {
  const Range range = checked_range(schedule, options);
  return spaced(range.start, range.end, options.num_steps, [&](double share) { return range.start + (range.end - range.start) * share; });
}

std::vector<double> uniform_lambda_times(const Schedule& schedule, const SamplerOptions& options) {
  const Range range = checked_range(schedule, options);
  const double first = schedule.lambda(range.start), last = schedule.lambda(range.end);
  return spaced(range.start, range.end, options.num_steps, [&](double share) { return schedule.lambda_inverse(first + (last - first) * share); });
}

std::vector<double> for_each_row(double t, const at::Tensor& x) { return std::vector<double>(static_cast<std::size_t>(x.size(0)), t); }

}  // namespace uvit
