#include <torch/torch.h>

#include "samplers/euler.h"

#include <cmath>

#include "samplers/time_grid.h"

namespace uvit {

SampleResult euler_steps(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x_init, const NoiseSource& noise,
                         const SamplerOptions& options, double score_weight, double noise_weight) {
  std::vector<double> times = time_grid(schedule, options, "time_uniform", options.num_steps);
  times.push_back(0);
  SampleResult result{x_init, 0};
  for (std::int64_t step = 1; step <= options.num_steps; ++step) {
    const double t = times[static_cast<std::size_t>(step - 1)], dt = times[static_cast<std::size_t>(step)] - t;
    const double beta = schedule.squared_diffusion(t), to_score = -1 / schedule.sigma(t);
    const at::Tensor eps = denoiser(result.x0, for_each_row(t, result.x0)).eps;
    ++result.nfe;
    result.x0 = result.x0 * (1 + schedule.drift(t) * dt) + eps * (-score_weight * beta * to_score * dt);
    if (noise_weight != 0 && step < options.num_steps) result.x0 = result.x0 + noise(step) * (noise_weight * std::sqrt(-beta * dt));
    if (options.on_step) options.on_step(step, result.x0);
  }
  return result;
}

}  // namespace uvit
