#pragma once
#include <memory>
#include <span>
#include <string>

namespace uvit {

/// A variance-preserving noise schedule, x_t = alpha(t) x0 + sigma(t) eps, alpha^2 + sigma^2 = 1, in double. t in [t_min, t_max] when sampling.
class Schedule {
 public:
  virtual ~Schedule() = default;
  virtual double log_alpha(double t) const = 0;  ///< log alpha(t); the official cum_alpha is alpha^2
  double alpha(double t) const;
  double sigma(double t) const;   ///< sqrt(-expm1(2 log_alpha)): accurate near t = 0, where 1 - alpha^2 is not
  double lambda(double t) const;  ///< log(alpha / sigma), falls strictly with t; +inf where sigma is 0
  virtual double lambda_inverse(double lambda) const = 0;
  virtual double beta(double t) const = 0;       ///< dx = -beta/2 x dt + sqrt(beta) dw
  virtual double t_min() const { return 1e-3; }  ///< where sampling ends
  virtual double t_max() const { return 1.0; }   ///< where sampling starts
  /// What the network is given for t: 999 t in continuous training, the (fractional) step number in discrete.
  virtual double network_time(double t) const { return 999.0 * t; }
  /// The time of a training sample from a uniform draw u in [0, 1): u itself, with no lower cut, in continuous training; in discrete training
  /// (1 + floor(N u)) / N, which network_time turns into a step number 1 ... N.
  virtual double training_time(double u) const { return u; }
};

struct ScheduleRow {
  std::string name;
  std::string description;
  std::unique_ptr<Schedule> (*make)();
};

/// vp_linear (beta 0.1 .. 20), vp_cosine (s = 0.008), and sd_discrete (scaled linear betas, 1000 steps).
std::span<const ScheduleRow> schedule_table();
std::unique_ptr<Schedule> make_schedule(const std::string& name);

}  // namespace uvit
