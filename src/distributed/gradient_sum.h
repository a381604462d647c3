#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "distributed/process_group.h"

namespace uvit {

/// How the gradients of a step's micro-batches, over all processes, come together.
class GradientSum {
 public:
  explicit GradientSum(ProcessGroup& processes) : processes_(processes) {}
  virtual ~GradientSum() = default;
  GradientSum(const GradientSum&) = delete;
  GradientSum& operator=(const GradientSum&) = delete;

  /// Backward of one micro-batch; gradients are undefined or zero before the first of a step. With the `last` one they become the sum over all
  /// micro-batches of all processes. Throws PeerError where another process is gone.
  virtual void backward(const at::Tensor& loss, bool last) = 0;
  /// Whether a micro-batch must lie in memory of its own: the bits of a product may hang on alignment.
  virtual bool wants_copies() const { return false; }
  ProcessGroup& processes() { return processes_; }

 protected:
  ProcessGroup& processes_;
};

/// Plain backward when alone; c10d's Reducer with several processes; the fixed tree where `reproducible`.
/// @param micro_batches  of a step, in this process
std::unique_ptr<GradientSum> make_gradient_sum(ProcessGroup& processes, const std::vector<std::pair<std::string, at::Tensor>>& parameters, bool reproducible,
                                               std::int64_t micro_batches);

}  // namespace uvit
