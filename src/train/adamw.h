#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "checkpoint/tensor_convert.h"
#include "config/config.h"
#include "train/optimizer.h"

namespace uvit {

class Ema;

/// Learning rate of step i = 0, 1, 2, ...: lr * min(i / warmup_steps, 1), so that the first step has rate 0 (official); then constant, or
/// cosine: lr (1 + cos(pi u)) / 2, u from 0 after the warm-up to 1 at `steps` (arXiv:1608.03983);
/// inverse_sqrt: lr / sqrt(max(i / lr_reference_steps, 1)) (Karras et al., arXiv:2312.02696);
/// warmup_stable_decay: constant, and over the last lr_decay_share of `steps` linearly to 0 (Hu et al., arXiv:2404.06395; linear: arXiv:2405.18392).
double learning_rate(const OptimizerConfig& config, std::int64_t step, std::int64_t steps);

/// Scales all gradients by min(1, max_norm / (norm + 1e-6)) when max_norm > 0. @return the norm before
double clip_gradients(const NamedTensors& parameters, double max_norm);

/// Factors of one step, in double: p *= keep where the parameter decays; m += mix1 (g - m); v = beta2 v + mix2 g^2;
/// p += minus_rate m / (sqrt(v) / correction2 + eps).
struct AdamWStep {
  double keep, mix1, beta2, mix2, minus_rate, correction2, eps;
};

/// AdamW (Loshchilov & Hutter, arXiv:1711.05101), as torch's: p *= 1 - lr wd; p -= lr / (1 - b1^k) * m / (sqrt(v) / sqrt(1 - b2^k) + eps).
class AdamW : public Optimizer {
 public:
  AdamW(const OptimizerConfig& config, NamedTensors parameters);
  void step(double lr) override { step(lr, {}); }
  /// A step, and the update of every average after it, in one pass over memory: bit for bit step(lr) and then update(parameters()) of each.
  void step(double lr, std::span<Ema> averages);
  /// Counts a step that someone else takes, on the state below, and gives its factors.
  AdamWStep begin_step(double lr);
  const NamedTensors& parameters() const { return parameters_; }
  const std::vector<at::Tensor>& exp_avg() const { return exp_avg_; }        ///< in the order of the parameters
  const std::vector<at::Tensor>& exp_avg_sq() const { return exp_avg_sq_; }
  const std::vector<bool>& decayed() const { return decayed_; }
  std::int64_t steps_done() const { return step_; }
  NamedTensors state() const override;  ///< "exp_avg.<name>", "exp_avg_sq.<name>", "step"
  void load(const NamedTensors& state) override;

 private:
  OptimizerConfig config_;
  NamedTensors parameters_;
  std::vector<at::Tensor> exp_avg_, exp_avg_sq_;
  std::vector<bool> decayed_;
  std::int64_t step_ = 0;
};

}  // namespace uvit
