#include <torch/torch.h>

#include "samplers/ddim.h"
#include "samplers/solvers.h"

namespace uvit {

SampleResult ddpm(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x_init, const NoiseSource& noise, const SamplerOptions& options) {
  return ddim_steps(denoiser, schedule, x_init, noise, options, 1);
}

}  // namespace uvit
