#pragma once
#include <vector>

#include "samplers/sampler.h"

namespace uvit {

/// Every solver calls the denoiser at n = num_steps times, from t_start down to t_end, and its last step goes from t_end to t = 0, where alpha = 1
/// and sigma = 0 whatever the schedule says. Both grids hold the n times; with n = 1 that is t_start alone.
/// Both throw Error unless num_steps >= 1 and t_start > t_end, with a finite lambda at both.

/// Uniform in t.
std::vector<double> uniform_times(const Schedule& schedule, const SamplerOptions& options);
/// Uniform in lambda = log(alpha / sigma).
std::vector<double> uniform_lambda_times(const Schedule& schedule, const SamplerOptions& options);

/// t once a row of x.
std::vector<double> for_each_row(double t, const at::Tensor& x);

}  // namespace uvit
