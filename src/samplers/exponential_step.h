#pragma once
#include <cmath>

#include "diffusion/schedule.h"

namespace uvit {

/// Which reading of the network an exponential integrator takes to be smooth: eps (DPM-Solver) or x0 (DPM-Solver++).
enum class Reading { noise, data };

/// The exact solution of the flow from s to t for a reading that is a polynomial of lambda:
///   x_t = decay x_s - scale (phi1 m + phi2 m' + phi3 m'' + ...), m', m'' the derivatives of the reading m by r = (lambda - lambda_s) / (lambda_t - lambda_s).
/// With h = lambda_t - lambda_s > 0: noise: decay = alpha_t / alpha_s, scale = sigma_t, z = h; data: decay = sigma_t / sigma_s, scale = alpha_t, z = -h
/// (Lu et al., arXiv:2206.00927 and 2211.01095). One form serves both.
struct ExponentialStep {
  double decay, scale, h;
  double z;              ///< the signed step that the phi are functions of
  double noise_std = 0;  ///< standard deviation of the noise that the SDE adds in this step

  double phi1() const { return std::expm1(z); }
  double phi2() const { return phi1() / z - 1; }
  double phi3() const { return phi2() / z - 0.5; }
};

inline ExponentialStep exponential_step(const Schedule& schedule, Reading reading, double s, double t) {
  const double h = schedule.lambda(t) - schedule.lambda(s);
  if (reading == Reading::noise) return {std::exp(schedule.log_alpha(t) - schedule.log_alpha(s)), schedule.sigma(t), h, h};
  return {schedule.sigma(t) / schedule.sigma(s), schedule.alpha(t), h, -h};
}

/// The same for the reverse SDE with eta times its noise, on the data reading (arXiv:2211.01095, section 5; eta = 0 is the flow): z = -(1 + eta) h, and
/// x decays by another e^(-eta h).
inline ExponentialStep exponential_sde_step(const Schedule& schedule, double s, double t, double eta) {
  ExponentialStep step = exponential_step(schedule, Reading::data, s, t);
  if (eta == 0) return step;
  step.decay *= std::exp(-eta * step.h);
  step.z = -(1 + eta) * step.h;
  step.noise_std = schedule.sigma(t) * std::sqrt(-std::expm1(-2 * eta * step.h));
  return step;
}

}  // namespace uvit
