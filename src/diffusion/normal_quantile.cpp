#include "diffusion/normal_quantile.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace uvit {
namespace {

/// The lower tail u < 0.02425.
double tail(double u) {
  const double q = std::sqrt(-2 * std::log(u));
  return (((((-7.784894002430293e-03 * q - 3.223964580411365e-01) * q - 2.400758277161838) * q - 2.549732539343734) * q + 4.374664141464968) * q +
          2.938163982698783) /
         ((((7.784695709041462e-03 * q + 3.224671290700398e-01) * q + 2.445134137142996) * q + 3.754408661907416) * q + 1);
}

double centre(double u) {
  const double q = u - 0.5, r = q * q;
  return (((((-3.969683028665376e+01 * r + 2.209460984245205e+02) * r - 2.759285104469687e+02) * r + 1.383577518672690e+02) * r -
           3.066479806614716e+01) *
              r +
          2.506628277459239) *
         q /
         (((((-5.447609879822406e+01 * r + 1.615858368580409e+02) * r - 1.556989798598866e+02) * r + 6.680131188771972e+01) * r -
           1.328068155288572e+01) *
              r +
          1);
}

}  // namespace

double normal_quantile(double u) {
  const double lower = 0x1p-54;
  u = std::clamp(u, lower, 1 - lower);
  if (u > 0.5) return -normal_quantile(1 - u);
  const double z = u < 0.02425 ? tail(u) : centre(u);
  const double error = 0.5 * std::erfc(-z / std::numbers::sqrt2) - u;
  const double newton = error * std::sqrt(2 * std::numbers::pi) * std::exp(z * z / 2);
  return z - newton / (1 + z * newton / 2);
}

}  // namespace uvit
