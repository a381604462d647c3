#include <torch/torch.h>

#include "samplers/euler.h"
#include "samplers/solvers.h"

namespace uvit {

SampleResult euler_ode(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x_init, const NoiseSource& noise,
                       const SamplerOptions& options) {
  return euler_steps(denoiser, schedule, x_init, noise, options, 0.5, 0.0);
}

}  // namespace uvit
