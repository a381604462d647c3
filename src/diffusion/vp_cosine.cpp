#include <cmath>
#include <numbers>

#include "diffusion/schedules.h"

namespace uvit {
namespace {

constexpr double kShift = 0.008;
constexpr double kRate = std::numbers::pi / 2 / (1 + kShift);  // radians a unit of t
constexpr double kStart = kShift * kRate;                      // the angle at t = 0

class VpCosine : public VpSchedule {
 public:
  /// log(cos(start + rate t) / cos(start)). Near t = 0 the quotient is 1 - small, near t = 1 the cosine is the sine of what is left
  /// to pi / 2: each half keeps its digits.
  double log_alpha(double t) const override {
    if (t > 0.5) return std::log(std::sin(kRate * (1 - t)) / std::cos(kStart));
    const double half_sine = std::sin(kRate * t / 2);
    return std::log1p(-2 * half_sine * half_sine - std::tan(kStart) * std::sin(kRate * t));
  }

  double beta(double t) const override {
    // tan of the angle, again by what is left to pi / 2 in the upper half.
    const double tangent = t > 0.5 ? 1 / std::tan(kRate * (1 - t)) : std::tan(kStart + kRate * t);
    return 2 * kRate * tangent;
  }

  /// The angle from its sine and cosine: acos alone would lose half of the digits near t = 0.
  double lambda_inverse(double lambda) const override {
    const double log_alpha_squared = lambda > 0 ? -std::log1p(std::exp(-2 * lambda)) : 2 * lambda - std::log1p(std::exp(2 * lambda));
    const double cosine = std::cos(kStart) * std::exp(log_alpha_squared / 2);
    const double start_sine = std::sin(kStart), start_cosine = std::cos(kStart);
    const double sine = std::sqrt(start_sine * start_sine - start_cosine * start_cosine * std::expm1(log_alpha_squared));
    return (std::atan2(sine, cosine) - kStart) / kRate;
  }

  double t_max() const override { return 0.9946; }
};

}  // namespace

std::unique_ptr<Schedule> make_vp_cosine() { return std::make_unique<VpCosine>(); }

}  // namespace uvit
