#pragma once
#include <torch/nn/module.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

namespace uvit {

/// The norm before a branch and before the prediction, over the last dimension. Two kinds:
///   layer: (x - mean) / sqrt(var + 1e-5) * weight + bias      rms: x / sqrt(mean(x^2) + 1e-6) * weight (arXiv:1910.07467)
/// State dict: weight (, bias) [width]; none where it is not affine: then a Modulation behind it scales and shifts, and the eps of layer is 1e-6
/// (arXiv:2212.09748). Computed in the weight's dtype, so in float32 under autocast; without a weight in x's dtype, float32 at least.
class Norm : public torch::nn::Module {
 public:
  virtual at::Tensor forward(const at::Tensor& x) = 0;
  /// {x + branch, forward(x + branch)}: the end of one residual branch and the beginning of the next.
  virtual std::pair<at::Tensor, at::Tensor> add(const at::Tensor& x, const at::Tensor& branch) = 0;
};

/// Throws Error for a kind that is neither "layer" nor "rms".
std::shared_ptr<Norm> make_norm(const std::string& kind, std::int64_t width, bool affine = true);

}  // namespace uvit
