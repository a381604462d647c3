#pragma once
#include <memory>

#include "diffusion/schedule.h"

namespace uvit {

// What schedule.cpp makes its table of: one function a file.

/// VP-SDE (Song et al., arXiv:2011.13456): beta(t) = 0.1 + 19.9 t, log alpha = -(0.1 t + 9.95 t^2) / 2.
std::unique_ptr<Schedule> make_vp_linear();

/// alpha^2 = F(t) / F(0), F(t) = cos^2((t + s) / (1 + s) pi / 2), s = 0.008 (Nichol & Dhariwal, arXiv:2102.09672). Sampling starts at
/// t = 0.9946, as in DPM-Solver (arXiv:2206.00927): towards t = 1 beta grows without bound.
std::unique_ptr<Schedule> make_vp_cosine();

/// 1000 steps, beta_n = linspace(sqrt(0.00085), sqrt(0.012))^2 (Stable Diffusion's, arXiv:2112.10752). log_alpha is half the sum of
/// log(1 - beta_n), piecewise linear in t = n / 1000 (as in DPM-Solver), and goes on linearly outside [1/1000, 1]; so alpha(0) is 1 + 2e-6, and
/// sigma(0) is set to 0.
std::unique_ptr<Schedule> make_sd_discrete();

}  // namespace uvit
