#pragma once
#include "checkpoint/tensor_convert.h"

namespace uvit {

/// Dynamic loss scaling for float16 gradients (Micikevicius et al., arXiv:1710.03740): the loss is multiplied by a power of two and gradients are
/// divided by it.
/// A step whose gradients overflow is left out and the scale halved; after 2000 good steps it is doubled. Off, the scale is 1 and nothing happens.
class LossScale {
 public:
  explicit LossScale(bool on) : on_(on), scale_(on ? 65536.0 : 1.0) {}
  double value() const { return scale_; }
  /// Divides the gradients by the scale.
  void unscale(const NamedTensors& parameters) const;
  /// Whether an overflow can still be the scale's fault.
  bool can_shrink() const { return on_ && scale_ > 1; }
  void update(bool overflow);

  at::Tensor state() const;                   ///< [2] float64: scale, good steps since it changed
  void load(const NamedTensors& state);       ///< from the tensor "loss_scale"

 private:
  static constexpr double kGrowthInterval = 2000, kLargest = 1 << 24;
  bool on_;
  double scale_, good_steps_ = 0;
};

}  // namespace uvit
