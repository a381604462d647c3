#include <cmath>

#include "diffusion/schedules.h"

namespace uvit {
namespace {

constexpr double kBeta0 = 0.1, kBeta1 = 20.0;

/// log(e^x + 1) without overflow.
double softplus(double x) { return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x)); }

class VpLinear : public VpSchedule {
 public:
  double log_alpha(double t) const override { return -0.5 * (kBeta0 * t + 0.5 * (kBeta1 - kBeta0) * t * t); }
  double beta(double t) const override { return kBeta0 + (kBeta1 - kBeta0) * t; }

  /// The positive root of -2 log_alpha(t) = log(1 + e^(-2 lambda)), in the form that does not subtract.
  double lambda_inverse(double lambda) const override {
    const double integral = softplus(-2 * lambda);
    return 2 * integral / (kBeta0 + std::sqrt(kBeta0 * kBeta0 + 2 * (kBeta1 - kBeta0) * integral));
  }
};

}  // namespace

std::unique_ptr<Schedule> make_vp_linear() { return std::make_unique<VpLinear>(); }

}  // namespace uvit
