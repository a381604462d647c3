#include <torch/torch.h>

#include "samplers/solvers.h"
#include "samplers/time_grid.h"

namespace uvit {

SampleResult ddim(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x_init, const NoiseSource&, const SamplerOptions& options) {
  const std::vector<double> times = uniform_times(schedule, options);
  SampleResult result{x_init, 0};
  for (std::size_t i = 0; i < times.size(); ++i) {
    const Prediction prediction = denoiser(result.x0, for_each_row(times[i], result.x0));
    ++result.nfe;
    const bool last = i + 1 == times.size();
    result.x0 = last ? prediction.x0 : prediction.x0 * schedule.alpha(times[i + 1]) + prediction.eps * schedule.sigma(times[i + 1]);
    if (options.on_step) options.on_step(result.nfe, result.x0);
  }
  return result;
}

}  // namespace uvit
