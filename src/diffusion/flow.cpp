#include <cmath>

#include "diffusion/schedules.h"

namespace uvit {
namespace {

class Flow : public Schedule {
 public:
  double log_alpha(double t) const override { return std::log1p(-t); }
  double alpha(double t) const override { return 1 - t; }
  double sigma(double t) const override { return t; }
  /// t / (1 - t) = e^-lambda
  double lambda_inverse(double lambda) const override { return lambda > 0 ? std::exp(-lambda) / (1 + std::exp(-lambda)) : 1 / (1 + std::exp(lambda)); }
  double drift(double t) const override { return -1 / (1 - t); }
  double squared_diffusion(double t) const override { return 2 * t / (1 - t); }
  double alpha_slope(double) const override { return -1; }
  double sigma_slope(double) const override { return 1; }

  double t_max() const override { return 0.999; }
  double t_noise() const override { return 1; }
};

}  // namespace

std::unique_ptr<Schedule> make_flow() { return std::make_unique<Flow>(); }

}  // namespace uvit
