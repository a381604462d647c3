#include <torch/torch.h>

#include <cmath>

#include "samplers/solvers.h"
#include "samplers/time_grid.h"

namespace uvit {

SampleResult dpm_solver_pp_2m(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x_init, const NoiseSource&,
                              const SamplerOptions& options) {
  const std::vector<double> times = uniform_lambda_times(schedule, options);
  SampleResult result{x_init, 0};
  at::Tensor previous;      // the x0 predicted one step before
  double previous_h = 0;    // lambda covered by that step
  for (std::size_t i = 0; i < times.size(); ++i) {
    const at::Tensor predicted = denoiser(result.x0, for_each_row(times[i], result.x0)).x0;
    ++result.nfe;
    if (i + 1 == times.size()) {
      result.x0 = predicted;
    } else {
      const double s = times[i], t = times[i + 1], h = schedule.lambda(t) - schedule.lambda(s);
      // Extrapolated to the middle of the step; the first step has nothing to extrapolate from.
      const at::Tensor middle = previous.defined() ? predicted + (predicted - previous) * (0.5 * h / previous_h) : predicted;
      result.x0 = result.x0 * (schedule.sigma(t) / schedule.sigma(s)) + middle * (-schedule.alpha(t) * std::expm1(-h));
      previous = predicted;
      previous_h = h;
    }
    if (options.on_step) options.on_step(result.nfe, result.x0);
  }
  return result;
}

}  // namespace uvit
