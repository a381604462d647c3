#include <torch/torch.h>

#include <algorithm>

#include "train/fused_loop.h"
#include "train/loss_scale.h"

namespace uvit {

void LossScale::unscale(const NamedTensors& parameters) const {
  if (!on_) return;
  for (const auto& [name, parameter] : parameters)
    if (parameter.grad().defined()) parameter.mutable_grad().mul_(1 / scale_);
}

void LossScale::update(bool overflow) {
  if (!on_) return;
  if (overflow) {
    scale_ /= 2;
    good_steps_ = 0;
  } else if (++good_steps_ >= kGrowthInterval) {
    scale_ = std::min(2 * scale_, kLargest);
    good_steps_ = 0;
  }
}

at::Tensor LossScale::state() const { return torch::tensor({scale_, good_steps_}, torch::kFloat64); }

void LossScale::load(const NamedTensors& saved) {
  at::Tensor values = state();
  copy_named(saved, "loss_scale", values);
  scale_ = values[0].item<double>();
  good_steps_ = values[1].item<double>();
}

}  // namespace uvit
