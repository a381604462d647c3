#pragma once
#include <memory>
#include <vector>

#include "train/adamw.h"
#include "train/ema.h"

namespace uvit {

/// Everything between backward and the next step, for parameters on a GPU: gradient norm, loss scale, clipping, AdamW and all EMA profiles in three
/// launches (kernels/optim), without the CPU waiting. A step whose gradients are not finite leaves weights, moments and averages as they are.
class DeviceUpdate {
 public:
  virtual ~DeviceUpdate() = default;
  /// Global norm of the gradients times `unscale`, 0-dim float64 on the device: reading it waits. @param max_norm  as clip_gradients
  virtual at::Tensor measure(double unscale, double max_norm) = 0;
  /// The step with what `measure` found.
  virtual void apply(double lr) = 0;
};

/// Null where the single passes of optimizer and Ema serve: on the CPU, for another optimizer than AdamW, for parameters that are not float32, and for
/// more than four EMA profiles. Keeps references to both, whose state it advances.
std::unique_ptr<DeviceUpdate> make_device_update(Optimizer& optimizer, std::vector<Ema>& emas);

}  // namespace uvit
