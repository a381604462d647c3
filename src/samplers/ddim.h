#pragma once
#include "samplers/sampler.h"

namespace uvit {

/// Steps of x_s = alpha_s x0 + sqrt(sigma_s^2 - v) eps + sqrt(v) z with v = eta^2 sigma_s^2 (1 - (alpha_t sigma_s / (alpha_s sigma_t))^2), the variance
/// of q(x_s | x_t, x0) for eta = 1. Step k takes noise draw k; the last step returns x0.
SampleResult ddim_steps(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x_init, const NoiseSource& noise,
                        const SamplerOptions& options, double eta);

}  // namespace uvit
