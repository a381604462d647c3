#pragma once
#include <torch/nn/module.h>

#include <cstdint>

namespace uvit {

/// RMSNorm over the last dimension (arXiv:1910.07467): x / sqrt(mean(x^2) + eps) * weight, in the dtype of the weight [width], which is 1 at first.
class RmsNorm : public torch::nn::Module {
 public:
  RmsNorm(std::int64_t width, double eps);
  at::Tensor forward(const at::Tensor& x) const;

 private:
  at::Tensor weight_;
  double eps_;
};

}  // namespace uvit
