#pragma once
#include <string>

#include "checkpoint/checkpoint.h"

namespace uvit {

/// Exponential moving average of parameters: starts as a copy; after each optimizer step e = rate e + (1 - rate) p, multiplied first, then added
/// (the official order).
class Ema {
 public:
  Ema(double rate, const NamedTensors& parameters);
  void update(const NamedTensors& parameters);
  double rate() const { return rate_; }
  std::string profile() const { return ema_profile(rate_); }  ///< "0.9999": the name in files
  const NamedTensors& parameters() const { return average_; }
  void load(const NamedTensors& saved);

 private:
  double rate_;
  NamedTensors average_;
};

}  // namespace uvit
