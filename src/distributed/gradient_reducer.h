#pragma once
#include "distributed/gradient_sum.h"

namespace c10d {
class Reducer;
}

namespace uvit {

/// c10d's Reducer: gradients lie in buckets, and a bucket is summed over processes as soon as backward has filled it, beside the rest of backward.
/// In the first step, which tells the parameters that the loss reaches from those it does not, one exchange follows backward.
class GradientReducer : public GradientSum {
 public:
  GradientReducer(ProcessGroup& processes, std::vector<std::pair<std::string, at::Tensor>> parameters);
  ~GradientReducer() override;
  void backward(const at::Tensor& loss, bool last) override;

 private:
  void sum_once();
  void make_buckets();

  std::vector<std::pair<std::string, at::Tensor>> parameters_;
  std::unique_ptr<c10d::Reducer> reducer_;
  bool failed_ = false;
};

}  // namespace uvit
