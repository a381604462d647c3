#pragma once
#include <torch/nn/module.h>
#include <torch/nn/modules/linear.h>

#include <cstdint>
#include <vector>

namespace uvit {

/// A linear layer whose initial values are all 0.
class ZeroLinear : public torch::nn::LinearImpl {
 public:
  using torch::nn::LinearImpl::LinearImpl;
};

/// What the condition does to one residual branch; [B, 1, C] each, undefined where the network has no such condition: the branch stays as it is.
struct BranchModulation {
  at::Tensor shift, scale, gate;
  /// normed * (1 + scale) + shift
  at::Tensor before(const at::Tensor& normed) const { return scale.defined() ? normed * (1 + scale) + shift : normed; }
  /// gate * branch
  at::Tensor after(const at::Tensor& branch) const { return gate.defined() ? gate * branch : branch; }
};

/// adaLN-zero (Peebles & Xie, arXiv:2212.09748): `parts` vectors of the width, linear(silu(condition)), all 0 at first.
/// State dict, with DiT's name for the module: adaLN_modulation.1.*
class Modulation : public torch::nn::Module {
 public:
  Modulation(std::int64_t width, std::int64_t parts);
  /// @param condition [B, C]; @return `parts` tensors [B, 1, C]
  std::vector<at::Tensor> forward(const at::Tensor& condition);

 private:
  std::int64_t parts_;
  std::shared_ptr<ZeroLinear> linear_;
};

}  // namespace uvit
