#pragma once
#include "samplers/sampler.h"

namespace uvit {

// What sampler.cpp makes its table of: one algorithm a file. Signature: Solver in sampler.h; time grids: time_grid.h.

/// dx = [-beta/2 x - beta score] dt + sqrt(beta) dw, score = -eps / sigma, by Euler-Maruyama steps uniform in t. The k-th step uses noise draw k, the
/// last one none (Song et al., arXiv:2011.13456; grid and noise as U-ViT's official code).
SampleResult euler_maruyama_sde(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x_init, const NoiseSource& noise,
                                const SamplerOptions& options);

/// The probability flow dx = [-beta/2 x - beta/2 score] dt by Euler steps on the same grid.
SampleResult euler_ode(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x_init, const NoiseSource& noise,
                       const SamplerOptions& options);

/// x_s = alpha_s x0 + sigma_s eps, steps uniform in t, eta = 0 (Song et al., arXiv:2010.02502). First order; the last step returns x0.
SampleResult ddim(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x_init, const NoiseSource& noise,
                  const SamplerOptions& options);

/// Second-order multistep solver on the data prediction, steps uniform in lambda (Lu et al., arXiv:2211.01095, algorithm 2). The first step is of
/// first order, and so is the last one, to sigma = 0, which returns x0.
SampleResult dpm_solver_pp_2m(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x_init, const NoiseSource& noise,
                              const SamplerOptions& options);

}  // namespace uvit
