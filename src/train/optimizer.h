#pragma once
#include <memory>
#include <span>
#include <string>

#include "checkpoint/tensor_convert.h"
#include "config/config.h"

namespace uvit {

/// Turns gradients into steps, with a state of its own that goes into checkpoints.
class Optimizer {
 public:
  virtual ~Optimizer() = default;
  /// One step with the parameters' gradients; a parameter without one is left alone. @param lr  learning_rate() of optimizer.lr at this step
  virtual void step(double lr) = 0;
  /// Everything that the next step depends on beside parameters and gradients, under names that load knows.
  virtual NamedTensors state() const = 0;
  /// Throws Error where a tensor is missing or of another shape.
  virtual void load(const NamedTensors& state) = 0;
};

struct OptimizerRow {
  std::string name;
  std::string description;
  std::unique_ptr<Optimizer> (*make)(const OptimizerConfig& config, NamedTensors parameters);
};

std::span<const OptimizerRow> optimizer_table();
/// The row of config.name. Throws Error, with the nearest name, where there is none, and for rates that the row cannot use.
std::unique_ptr<Optimizer> make_optimizer(const OptimizerConfig& config, NamedTensors parameters);

}  // namespace uvit
