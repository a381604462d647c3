#pragma once
#include <memory>
#include <span>
#include <string>

namespace uvit {

/// A variance-preserving noise schedule, x_t = alpha(t) x0 + sigma(t) eps, in double. t in [t_min, t_max].
class Schedule {
 public:
  virtual ~Schedule() = default;
  virtual double log_alpha(double t) const = 0;  ///< log alpha(t), alpha^2 = cum_alpha
  double alpha(double t) const;                  ///< sqrt(cum_alpha)
  double sigma(double t) const;                  ///< sqrt(1 - cum_alpha), accurate near t = 0
  double lambda(double t) const;                 ///< log(alpha / sigma)
  virtual double lambda_inverse(double lambda) const = 0;
  virtual double beta(double t) const = 0;       ///< dx = -beta/2 x dt + sqrt(beta) dw
  virtual double t_min() const { return 1e-3; }  ///< where sampling ends
  virtual double t_max() const { return 1.0; }   ///< where sampling starts
  /// What the network is given for t: 999 t in continuous training, the (fractional) step number in discrete.
  virtual double network_time(double t) const { return 999.0 * t; }
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
