#pragma once
#include <string>

#include "checkpoint/checkpoint.h"
#include "train/ema_profile.h"

namespace uvit {

/// Exponential moving average of parameters: starts as a copy; after each optimizer step e = rate e + (1 - rate) p, multiplied first, then added
/// (the official order).
class Ema {
 public:
  Ema(EmaProfile profile, const NamedTensors& parameters);
  Ema(double rate, const NamedTensors& parameters) : Ema(constant_profile(rate), parameters) {}
  /// The step (1, 2, ...) whose rate the next update takes, here or in FusedUpdate.
  void at_step(std::int64_t step) { rate_ = profile_.rate(step); }
  void update(const NamedTensors& parameters);
  /// The same of parameter i alone.
  void update_one(std::size_t i, const at::Tensor& parameter);
  double rate() const { return rate_; }
  const std::string& profile() const { return profile_.name; }
  const NamedTensors& parameters() const { return average_; }
  void load(const NamedTensors& saved);

 private:
  EmaProfile profile_;
  double rate_;
  NamedTensors average_;
};

}  // namespace uvit
