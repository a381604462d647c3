#pragma once
#include "samplers/sampler.h"

namespace uvit {

/// Euler steps of dx = [-beta/2 x - score_weight beta score] dt + noise_weight sqrt(beta) dw, backwards in t: the SDE for weights (1, 1), its
/// probability flow for (1/2, 0). The draw k = 1, 2, ... of `noise` belongs to step k; the last step takes none.
SampleResult euler_steps(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x_init, const NoiseSource& noise,
                         const SamplerOptions& options, double score_weight, double noise_weight);

}  // namespace uvit
