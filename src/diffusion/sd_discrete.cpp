#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "diffusion/schedules.h"

namespace uvit {
namespace {

constexpr std::int64_t kSteps = 1000;

class SdDiscrete : public VpSchedule {
 public:
  SdDiscrete() : log_alpha_(kSteps) {
    const double first = std::sqrt(0.00085), last = std::sqrt(0.012);
    double sum = 0;
    for (std::int64_t i = 0; i < kSteps; ++i) {
      const double root = first + (last - first) * static_cast<double>(i) / (kSteps - 1);
      sum += 0.5 * std::log1p(-root * root);
      log_alpha_[static_cast<std::size_t>(i)] = sum;
    }
  }

  double log_alpha(double t) const override {
    const std::size_t i = segment(t * kSteps);
    return log_alpha_[i] + (t * kSteps - static_cast<double>(i + 1)) * (log_alpha_[i + 1] - log_alpha_[i]);
  }

  /// The slope of log_alpha; at a step n, that of the segment which ends there (the one which begins, at the first).
  double beta(double t) const override {
    const std::size_t i = segment(t * kSteps);
    return -2 * kSteps * (log_alpha_[i + 1] - log_alpha_[i]);
  }

  double lambda_inverse(double lambda) const override {
    const double log_alpha = lambda > 0 ? -0.5 * std::log1p(std::exp(-2 * lambda)) : lambda - 0.5 * std::log1p(std::exp(2 * lambda));
    // log_alpha_ falls: the first step whose value is not above the one looked for ends its segment.
    const auto end = std::lower_bound(log_alpha_.begin(), log_alpha_.end(), log_alpha, std::greater<>());
    const std::size_t i = clamped(static_cast<double>(end - log_alpha_.begin()) - 1);
    const double within = (log_alpha - log_alpha_[i]) / (log_alpha_[i + 1] - log_alpha_[i]);
    return (static_cast<double>(i + 1) + within) / kSteps;
  }

  double t_min() const override { return 1.0 / kSteps; }
  double network_time(double t) const override { return kSteps * t; }
  double training_time(double u) const override { return (1 + std::floor(kSteps * u)) / kSteps; }

 private:
  static std::size_t clamped(double i) { return static_cast<std::size_t>(std::clamp(i, 0.0, static_cast<double>(kSteps - 2))); }
  /// The i for which steps i + 1 and i + 2 enclose `step`; the outermost ones beyond the ends.
  static std::size_t segment(double step) { return clamped(std::ceil(step) - 2); }

  std::vector<double> log_alpha_;  // of steps 1 ... 1000
};

}  // namespace

std::unique_ptr<Schedule> make_sd_discrete() { return std::make_unique<SdDiscrete>(); }

}  // namespace uvit
