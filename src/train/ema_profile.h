#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "config/config.h"

namespace uvit {

/// How long an average remembers: e = rate e + (1 - rate) p after each optimizer step, with the rate of that step.
struct EmaProfile {
  std::string name;                          ///< in files: ema_<name>.safetensors
  std::function<double(std::int64_t)> rate;  ///< of step 1, 2, ...
};

/// The same rate in every step; named by it, "0.9999".
EmaProfile constant_profile(double rate);

/// rate = 2^(-batch_size / h), h = min(half_life, ramp_up * images seen before the step), half-lives in images: early averages forget the start
/// (Karras et al., arXiv:2206.00364, as its code trains; ramp_up 0: no ramp). Named "half_life_<images>".
EmaProfile half_life_profile(double half_life_images, double ramp_up, std::int64_t batch_size);

/// rate = (1 - 1/step)^(gamma + 1): the average is that of p(i) with density (gamma + 1) i^gamma / step^(gamma + 1) over the training so far, whose
/// standard deviation is `length` times the training (Karras et al., arXiv:2312.02696, section 3.1). It never holds the start. Name: "power_<length>".
EmaProfile power_profile(double length);

/// gamma >= 0 of a relative length in (0, 1 / sqrt(12)]: length^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)).
double power_gamma(double length);

/// All profiles that the configuration asks for: ema_decay, then ema_half_life, then ema_power. The first one is what sampling uses.
std::vector<EmaProfile> ema_profiles(const TrainConfig& train);

/// The share of the initial weights that is left in the average after `steps` steps: the product of the rates.
double start_share(const EmaProfile& profile, std::int64_t steps);

}  // namespace uvit
