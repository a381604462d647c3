#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "distributed/process_group.h"

namespace c10d {
class Reducer;
}

namespace uvit {

/// Averages gradients over processes with c10d's Reducer: they lie in buckets, and a bucket is exchanged as soon as backward has filled it, beside the
/// rest of backward. In the first step, which tells the parameters that the loss reaches from those it does not, one exchange follows backward.
class GradientReducer {
 public:
  GradientReducer(ProcessGroup& processes, std::vector<std::pair<std::string, at::Tensor>> parameters);
  ~GradientReducer();
  GradientReducer(const GradientReducer&) = delete;
  GradientReducer& operator=(const GradientReducer&) = delete;

  /// Backward of one micro-batch, added to the gradients that are there. With the `last` one of a step, gradients become the mean over the processes of
  /// their sums. Throws PeerError where another process is gone.
  void backward(const at::Tensor& loss, bool last);

 private:
  void average_once();
  void make_buckets();

  ProcessGroup& processes_;
  std::vector<std::pair<std::string, at::Tensor>> parameters_;
  std::unique_ptr<c10d::Reducer> reducer_;
  bool failed_ = false;
};

}  // namespace uvit
