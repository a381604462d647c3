#pragma once
#include <memory>

#include "diffusion/schedule.h"

namespace uvit {

/// alpha^2 + sigma^2 = 1, dx = -beta/2 x dt + sqrt(beta) dw: made from log_alpha and beta alone.
class VpSchedule : public Schedule {
 public:
  double sigma(double t) const override;  ///< sqrt(-expm1(2 log_alpha)): accurate near t = 0, where 1 - alpha^2 is not
  virtual double beta(double t) const = 0;
  double drift(double t) const override { return -0.5 * beta(t); }
  double squared_diffusion(double t) const override { return beta(t); }
};

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

/// EDM (Karras et al., arXiv:2206.00364, table 1): alpha = 1, t = sigma in [0.002, 80], trained at log sigma ~ N(-1.2, 1.2^2). The network sees
/// c_in x, c_in = 1 / sqrt(sigma^2 + sigma_data^2), at the time 1000 c_noise = 250 log sigma: the factor 1000, which is ours, spreads c_noise over
/// the range that the sinusoidal embedding resolves.
std::unique_ptr<Schedule> make_edm();

/// Rectified flow (Liu et al., arXiv:2209.03003; Lipman et al., arXiv:2210.02747): alpha = 1 - t, sigma = t.
std::unique_ptr<Schedule> make_flow();

}  // namespace uvit
