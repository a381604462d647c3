#include <torch/torch.h>

#include "samplers/ddim.h"

#include <cmath>

#include "samplers/solvers.h"
#include "samplers/time_grid.h"

namespace uvit {

SampleResult ddim_steps(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x_init, const NoiseSource& noise,
                        const SamplerOptions& options, double eta) {
  const std::vector<double> times = time_grid(schedule, options, "time_uniform", options.num_steps);
  SampleResult result{x_init, 0};
  for (std::size_t i = 0; i < times.size(); ++i) {
    const Prediction prediction = denoiser(result.x0, for_each_row(times[i], result.x0));
    ++result.nfe;
    if (i + 1 == times.size()) {
      result.x0 = prediction.x0;
    } else {
      const double sigma = schedule.sigma(times[i + 1]), h = schedule.lambda(times[i + 1]) - schedule.lambda(times[i]);
      const double variance = eta * eta * sigma * sigma * -std::expm1(-2 * h);
      result.x0 = prediction.x0 * schedule.alpha(times[i + 1]) + prediction.eps * std::sqrt(sigma * sigma - variance);
      if (variance > 0) result.x0 = result.x0 + noise(static_cast<std::int64_t>(i + 1)) * std::sqrt(variance);
    }
    if (options.on_step) options.on_step(result.nfe, result.x0);
  }
  return result;
}

SampleResult ddim(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x_init, const NoiseSource& noise, const SamplerOptions& options) {
  return ddim_steps(denoiser, schedule, x_init, noise, options, options.eta);
}

}  // namespace uvit
