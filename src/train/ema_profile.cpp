#include <torch/torch.h>

#include "train/ema_profile.h"

#include <fmt/format.h>

#include <cmath>

#include "checkpoint/checkpoint.h"
#include "core/error.h"

namespace uvit {

EmaProfile constant_profile(double rate) {
  return {ema_profile(rate), [rate](std::int64_t) { return rate; }};
}

EmaProfile half_life_profile(double half_life_images, double ramp_up, std::int64_t batch_size) {
  const auto batch = static_cast<double>(batch_size);
  return {fmt::format("half_life_{}", half_life_images), [=](std::int64_t step) {
            const double seen = batch * static_cast<double>(step - 1);
            const double half_life = ramp_up > 0 ? std::fmin(half_life_images, ramp_up * seen) : half_life_images;
            return half_life > 0 ? std::exp2(-batch / half_life) : 0.0;
          }};
}

EmaProfile power_profile(double length) {
  const double exponent = power_gamma(length) + 1;
  return {fmt::format("power_{}", length), [exponent](std::int64_t step) { return std::pow(1 - 1 / static_cast<double>(step), exponent); }};
}

double power_gamma(double length) {
  const auto length_of = [](double gamma) { return std::sqrt((gamma + 1) / (gamma + 3)) / (gamma + 2); };
  if (!(length > 0 && length <= length_of(0)))
    throw Error(fmt::format("an EMA of relative length {}: lengths are above 0 and at most {:.4f}, the average of all steps alike", length,
                            length_of(0)));
  double low = 0, high = 1;
  while (length_of(high) > length) high *= 2;
  for (int i = 0; i < 200; ++i) {
    const double middle = 0.5 * (low + high);
    (length_of(middle) > length ? low : high) = middle;
  }
  return 0.5 * (low + high);
}

std::vector<EmaProfile> ema_profiles(const TrainConfig& train) {
  std::vector<EmaProfile> profiles;
  for (const double rate : train.ema_decay) profiles.push_back(constant_profile(rate));
  if (train.ema_half_life > 0) profiles.push_back(half_life_profile(train.ema_half_life, train.ema_ramp_up, train.batch_size));
  for (const double length : train.ema_power) profiles.push_back(power_profile(length));
  return profiles;
}

double start_share(const EmaProfile& profile, std::int64_t steps) {
  double share = 1;
  for (std::int64_t step = 1; step <= steps && share > 0; ++step) share *= profile.rate(step);
  return share;
}

}  // namespace uvit
