#include <torch/torch.h>

#include "samplers/time_grid.h"

#include <fmt/format.h>

#include <array>
#include <cmath>

#include "core/error.h"
#include "core/name_table.h"
#include "diffusion/time_law.h"

namespace uvit {
namespace {

double between(double first, double last, double share) { return first + (last - first) * share; }

double time_uniform(const Schedule&, double start, double end, double share, const SamplerOptions& options) {
  return shifted_time(start, end, share, options.shift);
}

double log_snr(const Schedule& schedule, double start, double end, double share, const SamplerOptions&) {
  return schedule.lambda_inverse(between(schedule.lambda(start), schedule.lambda(end), share));
}

/// The official file looks sqrt(t) up in a table of 10^7 times, evenly spaced: it rounds t up to the next of them.
double time_quadratic(const Schedule&, double start, double end, double share, const SamplerOptions&) {
  const double root = between(std::sqrt(start), std::sqrt(end), share), spacing = (start - end) / (1e7 - 1);
  return end + std::ceil((root * root - end) / spacing) * spacing;
}

double t2(const Schedule&, double start, double end, double share, const SamplerOptions&) {
  return std::pow(between(std::sqrt(start), std::sqrt(end), share), 2);
}

double karras(const Schedule& schedule, double start, double end, double share, const SamplerOptions& options) {
  const auto root = [&](double t) { return std::exp(-schedule.lambda(t) / options.rho); };
  return schedule.lambda_inverse(-options.rho * std::log(between(root(start), root(end), share)));
}

}  // namespace

std::span<const TimeGridRow> time_grid_table() {
  static const std::array<TimeGridRow, 5> table = {{
      {"time_uniform", "uniform in t, shifted by sample.time_shift, arXiv:2403.03206", time_uniform},
      {"log_snr", "uniform in log(alpha / sigma), arXiv:2206.00927", log_snr},
      {"time_quadratic", "uniform in sqrt(t), as dpm_solver_pytorch rounds it, arXiv:2206.00927", time_quadratic},
      {"t2", "uniform in sqrt(t), as dpm_solver_pp has it, arXiv:2211.01095", t2},
      {"karras", "uniform in (sigma / alpha)^(1/7), arXiv:2206.00364", karras},
  }};
  return table;
}

double shifted_time(double start, double end, double share, double shift) {
  if (shift == 1) return between(start, end, share);
  return shift_time(between(shift_time(start, 1 / shift), shift_time(end, 1 / shift), share), shift);
}

TimeRange time_range(const Schedule& schedule, const SamplerOptions& options) {
  if (options.num_steps < 1) throw Error(fmt::format("num_steps is {}: sampling takes at least one step", options.num_steps));
  if (options.shift != 1 && !schedule.unit_time())
    throw Error("sample.time_shift is for times in (0, 1), and this schedule counts in sigma: take the grid log_snr or karras");
  const TimeRange range{options.t_start < 0 ? schedule.t_max() : options.t_start, options.t_end < 0 ? schedule.t_min() : options.t_end};
  const bool finite = std::isfinite(schedule.lambda(range.start)) && std::isfinite(schedule.lambda(range.end));
  if (!(range.start > range.end) || !finite) {
    throw Error(fmt::format("cannot sample from t = {} to t = {}: give times within {} ... {} of the schedule, the first one larger", range.start,
                            range.end, schedule.t_min(), schedule.t_max()));
  }
  return range;
}

std::vector<double> time_grid(const Schedule& schedule, const SamplerOptions& options, const std::string& own, std::int64_t count) {
  const TimeRange range = time_range(schedule, options);
  const std::string suited = own == "time_uniform" && !schedule.unit_time() ? "karras" : own;  // uniform in sigma leaves the image to the last steps
  const TimeGridRow& row = find_row(time_grid_table(), "time grid", options.grid == "solver" ? suited : options.grid);
  std::vector<double> times = {range.start};
  for (std::int64_t i = 1; i < count; ++i) {
    times.push_back(row.time(schedule, range.start, range.end, static_cast<double>(i) / static_cast<double>(count - 1), options));
  }
  if (count > 1) times.back() = range.end;
  return times;
}

std::vector<double> for_each_row(double t, const at::Tensor& x) { return std::vector<double>(static_cast<std::size_t>(x.size(0)), t); }

}  // namespace uvit
