#include "diffusion/time_law.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/name_table.h"
#include "diffusion/normal_quantile.h"

namespace uvit {
namespace {

double own(const Schedule& schedule, double u, const DiffusionConfig& config) {
  return schedule.training_time(config.time_shift == 1 ? u : shift_time(u, config.time_shift));
}

double logit_normal(const Schedule& schedule, double u, const DiffusionConfig& config) {
  return own(schedule, 1 / (1 + std::exp(-config.time_mean - config.time_std * normal_quantile(u))), config);
}

double log_normal(const Schedule& schedule, double u, const DiffusionConfig& config) {
  const double t = schedule.lambda_inverse(-config.time_mean - config.time_std * normal_quantile(u));
  return std::clamp(config.time_shift == 1 ? t : shift_time(t, config.time_shift), schedule.t_min(), schedule.t_max());
}

}  // namespace

std::span<const TimeSamplingRow> time_sampling_table() {
  static const std::array<TimeSamplingRow, 3> table = {{
      {"schedule", "uniform in t or in the step number; edm: log sigma ~ N(-1.2, 1.2^2)", own},
      {"logit_normal", "t = sigmoid(N(time_mean, time_std^2)), arXiv:2403.03206", logit_normal},
      {"log_normal", "log(sigma / alpha) ~ N(time_mean, time_std^2), cut to the range of sampling, arXiv:2206.00364", log_normal},
  }};
  return table;
}

TimeLaw::TimeLaw(const DiffusionConfig& config, const Schedule& schedule)
    : schedule_(schedule), row_(find_row(time_sampling_table(), "time sampling", config.time_sampling)), config_(config) {}

double TimeLaw::operator()(double u) const { return row_.time(schedule_, u, config_); }

double shift_time(double t, double shift) { return shift * t / (1 + (shift - 1) * t); }

double stratified_draw(double u, std::uint64_t index, const Config& config) {
  if (!config.diffusion.stratified_times) return u;
  const auto parts = static_cast<std::uint64_t>(config.train.batch_size);
  return (static_cast<double>(index % parts) + u) / static_cast<double>(parts);
}

}  // namespace uvit
