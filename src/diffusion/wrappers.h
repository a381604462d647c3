#pragma once
#include "diffusion/denoiser.h"
#include "diffusion/schedule.h"

namespace uvit {

// Denoisers made from denoisers; each changes x0 and gives the eps that goes with it, eps = (x - alpha x0) / sigma. They keep a reference to the schedule.

/// Dynamic thresholding (Saharia et al., arXiv:2205.11487, section 2.3; as in DPM-Solver's code): x0 <- clamp(x0, -s, s) / s, s = the quantile of a
/// sample's |x0|, at least 1.
Denoiser threshold(Denoiser denoiser, const Schedule& schedule, double quantile);

/// Inpainting: where mask is 1 the denoiser answers `known`, elsewhere x0 of `denoiser`. A solver that starts from noise then reaches `known` exactly
/// there, and what it paints elsewhere sees it at every noise level (Lugmayr et al., arXiv:2201.09865, without resampling).
/// @param known [B, C, H, W]; @param mask [1 or B, 1 or C, H, W] of 0 and 1
Denoiser keep_known(Denoiser denoiser, const Schedule& schedule, at::Tensor known, at::Tensor mask);

/// (1 - share) a + share b, a sample's own share each: [B, 1, 1, 1].
Denoiser blend(Denoiser a, Denoiser b, at::Tensor share);

}  // namespace uvit
