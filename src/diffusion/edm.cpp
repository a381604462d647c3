#include <cmath>

#include "diffusion/normal_quantile.h"
#include "diffusion/schedules.h"

namespace uvit {
namespace {

class Edm : public Schedule {
 public:
  double log_alpha(double) const override { return 0; }
  double sigma(double t) const override { return t; }
  double lambda_inverse(double lambda) const override { return std::exp(-lambda); }
  double drift(double) const override { return 0; }
  double squared_diffusion(double t) const override { return 2 * t; }
  double sigma_slope(double) const override { return 1; }

  double t_min() const override { return 0.002; }
  double t_max() const override { return 80; }
  double prior_std() const override { return t_max(); }
  bool unit_time() const override { return false; }
  double input_scale(double t) const override { return 1 / std::hypot(t, sigma_data); }
  double network_time(double t) const override { return 250 * std::log(t); }
  double training_time(double u) const override { return std::exp(-1.2 + 1.2 * normal_quantile(u)); }
};

}  // namespace

std::unique_ptr<Schedule> make_edm() { return std::make_unique<Edm>(); }

}  // namespace uvit
