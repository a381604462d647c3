#include <torch/torch.h>

#include <cmath>

#include "samplers/solvers.h"
#include "samplers/time_grid.h"

namespace uvit {

SampleResult edm_heun(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x_init, const NoiseSource& noise,
                      const SamplerOptions& options) {
  // In y = x / alpha and the noise level sigma / alpha, where every schedule is EDM's.
  SamplerOptions spaced = options;
  spaced.grid = "solver";
  const std::vector<double> times = time_grid(schedule, spaced, "karras", options.num_steps);
  std::vector<double> levels;
  for (const double t : times) levels.push_back(std::exp(-schedule.lambda(t)));
  levels.push_back(0);

  SampleResult result{x_init / schedule.alpha(times.front()), 0};
  at::Tensor& y = result.x0;
  const auto slope = [&](const at::Tensor& at, double level) {
    const double t = schedule.lambda_inverse(-std::log(level));
    ++result.nfe;
    return (at - denoiser(at * schedule.alpha(t), for_each_row(t, at)).x0) / level;
  };
  const double most = std::fmin(options.churn / static_cast<double>(options.num_steps), std::sqrt(2.0) - 1);
  for (std::int64_t step = 1; step <= options.num_steps; ++step) {
    const double level = levels[static_cast<std::size_t>(step - 1)], next = levels[static_cast<std::size_t>(step)];
    const double gamma = level >= options.churn_low && level <= options.churn_high ? most : 0;
    const double raised = level * (1 + gamma);
    if (gamma > 0) y = y + noise(step) * (options.churn_noise * std::sqrt(raised * raised - level * level));
    const at::Tensor d = slope(y, raised);
    at::Tensor ahead = y + d * (next - raised);
    if (next > 0) ahead = y + (d + slope(ahead, next)) * (0.5 * (next - raised));
    y = ahead;
    if (options.on_step) options.on_step(step, next > 0 ? y * schedule.alpha(times[static_cast<std::size_t>(step)]) : y);
  }
  return result;
}

}  // namespace uvit
