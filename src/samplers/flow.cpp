#include <torch/torch.h>

#include "core/error.h"
#include "samplers/solvers.h"
#include "samplers/time_grid.h"

namespace uvit {
namespace {

/// dx/dt at one time for the whole batch.
at::Tensor velocity(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x, double t) {
  const Prediction prediction = denoiser(x, for_each_row(t, x));
  return prediction.x0 * schedule.alpha_slope(t) + prediction.eps * schedule.sigma_slope(t);
}

/// num_steps steps from t_noise to 0, or to t_end where it is given, uniform in t.
SampleResult flow_steps(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x_init, const SamplerOptions& options, bool heun) {
  SamplerOptions checked = options;
  checked.t_end = options.t_end > 0 ? options.t_end : -1;
  time_range(schedule, checked);
  if (!schedule.unit_time()) throw Error("the flow solvers step evenly in t, which for this schedule is sigma: take edm_heun");
  const double start = options.t_start < 0 ? schedule.t_noise() : options.t_start, end = options.t_end < 0 ? 0 : options.t_end;
  const auto time = [&](std::int64_t step) {
    return shifted_time(start, end, static_cast<double>(step) / static_cast<double>(options.num_steps), options.shift);
  };
  SampleResult result{x_init, 0};
  for (std::int64_t step = 1; step <= options.num_steps; ++step) {
    const double t = time(step - 1), next = time(step), dt = next - t;
    const at::Tensor v = velocity(denoiser, schedule, result.x0, t);
    ++result.nfe;
    at::Tensor ahead = result.x0 + v * dt;
    if (heun && next > 0) {
      ahead = result.x0 + (v + velocity(denoiser, schedule, ahead, next)) * (0.5 * dt);
      ++result.nfe;
    }
    result.x0 = ahead;
    if (options.on_step) options.on_step(step, result.x0);
  }
  return result;
}

}  // namespace

SampleResult flow_euler(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x_init, const NoiseSource&, const SamplerOptions& options) {
  return flow_steps(denoiser, schedule, x_init, options, false);
}

SampleResult flow_heun(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x_init, const NoiseSource&, const SamplerOptions& options) {
  return flow_steps(denoiser, schedule, x_init, options, true);
}

}  // namespace uvit
