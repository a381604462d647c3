#pragma once
#include <vector>

#include "samplers/sampler.h"

namespace uvit {

struct LikelihoodResult {
  std::vector<double> log_likelihood;  ///< [B], nats
  std::int64_t nfe = 0;                ///< calls of the denoiser, each with one backward pass
};

/// log p(x) of the density that the probability flow makes of N(0, prior_std^2) at t_max (Song et al., arXiv:2011.13456, appendix D.2): the flow is
/// followed from x at `t_low` up, log p(x) = log N(x_T) + integral of its divergence, which Hutchinson's estimator takes as z^T J z with the signs z of
/// a noise draw, the same for all times. Heun's method with num_steps steps even in lambda; NFE = 2 num_steps.
/// @param x      [B, C, H, W] float32 or float64; 8-bit images are dequantised by the caller
/// @param probe  of x's shape, its signs are used
/// Throws Error unless num_steps >= 1 and lambda is finite at both ends.
LikelihoodResult log_likelihood(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x, const at::Tensor& probe, double t_low,
                                std::int64_t num_steps);

/// Where the flow of real images begins: 1e-5 for schedules that train down to t = 0, else t_min.
double likelihood_start(const Schedule& schedule);

/// Bits a dimension of an 8-bit image that was dequantised to (value + u) / 127.5 - 1, u in [0, 1): -log2 p / dims + log2 127.5.
double bits_per_dim(double log_likelihood, std::int64_t dims);

}  // namespace uvit
