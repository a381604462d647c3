#pragma once
#include <memory>
#include <vector>

#include "train/adamw.h"
#include "train/ema.h"

namespace uvit {

/// Everything between backward and the next step: gradient norm, loss scale, clipping, AdamW and all EMA profiles. On the CPU weights, moments and
/// averages are gone through once; on a GPU all of it is three launches (kernels/optim), without the CPU waiting, and a step whose gradients are not
/// finite leaves weights, moments and averages as they are.
class FusedUpdate {
 public:
  virtual ~FusedUpdate() = default;
  /// Global norm of the gradients times `unscale`, 0-dim float64 on the device: reading it waits for a GPU. @param max_norm  as clip_gradients
  virtual at::Tensor measure(double unscale, double max_norm) = 0;
  /// The step with what `measure` found. On the CPU not to be called where the norm is not finite.
  virtual void apply(double lr) = 0;
};

/// Null where the single passes of optimizer and Ema serve: for another optimizer than AdamW; on a GPU also for parameters that are not float32, and for
/// more than four EMA profiles. Keeps references to both, whose state it advances.
std::unique_ptr<FusedUpdate> make_fused_update(Optimizer& optimizer, std::vector<Ema>& emas);

}  // namespace uvit
