#pragma once
#include <memory>
#include <span>
#include <string>

#include "config/config.h"

namespace uvit {

/// A noise schedule, x_t = alpha(t) x0 + sigma(t) eps, in double. t in [t_min, t_max] when sampling. Variance-preserving ones keep
/// alpha^2 + sigma^2 = 1; flow and edm do not, and everything that uses a schedule asks for alpha and sigma.
class Schedule {
 public:
  virtual ~Schedule() = default;
  virtual double log_alpha(double t) const = 0;  ///< the official cum_alpha is alpha^2
  virtual double alpha(double t) const;
  virtual double sigma(double t) const = 0;
  double lambda(double t) const;  ///< log(alpha / sigma), falls strictly with t; +inf where sigma is 0
  virtual double lambda_inverse(double lambda) const = 0;

  /// dx = drift x dt + sqrt(squared_diffusion) dw has these marginals: drift = d log(alpha) / dt, squared_diffusion = d sigma^2 / dt - 2 drift sigma^2
  /// (Kingma et al., arXiv:2107.00630). Variance-preserving: -beta / 2 and beta.
  virtual double drift(double t) const = 0;
  virtual double squared_diffusion(double t) const = 0;
  /// The probability flow is dx/dt = alpha_slope x0 + sigma_slope eps, with the derivatives of alpha and sigma.
  virtual double alpha_slope(double t) const { return alpha(t) * drift(t); }
  virtual double sigma_slope(double t) const { return squared_diffusion(t) / (2 * sigma(t)) + drift(t) * sigma(t); }

  virtual double t_min() const { return 1e-3; }           ///< where sampling ends
  virtual double t_max() const { return 1.0; }            ///< where sampling starts: lambda is finite there
  virtual double t_noise() const { return t_max(); }      ///< where the flow solvers start: flow begins at pure noise, where lambda is not finite
  virtual double prior_std() const { return 1.0; }        ///< standard deviation of the noise that sampling starts from
  virtual bool unit_time() const { return true; }         ///< t lies in [0, 1], so that it can be shifted; edm's t is sigma
  virtual double input_scale(double) const { return 1; }  ///< what x_t is multiplied by before the network sees it; EDM's c_in
  /// What the network is given for t: 999 t in continuous training, the (fractional) step number in discrete.
  virtual double network_time(double t) const { return 999.0 * t; }
  /// The time of a training sample from a uniform draw u in [0, 1): u itself, with no lower cut, in continuous training; in discrete training
  /// (1 + floor(N u)) / N, which network_time turns into a step number 1 ... N; in edm log-normal.
  virtual double training_time(double u) const { return u; }

  double sigma_data = 0.5;  ///< standard deviation of the data, for EDM's preconditioning and weighting
};

struct ScheduleRow {
  std::string name;
  std::string description;
  std::unique_ptr<Schedule> (*make)();
};

/// vp_linear (beta 0.1 .. 20), vp_cosine (s = 0.008), sd_discrete (scaled linear betas, 1000 steps), edm, and flow.
std::span<const ScheduleRow> schedule_table();
std::unique_ptr<Schedule> make_schedule(const std::string& name);
/// With sigma_data; throws Error besides for a combination of schedule, prediction, weighting and training times that cannot be trained.
std::unique_ptr<Schedule> make_schedule(const DiffusionConfig& config);

}  // namespace uvit
