#pragma once
#include <torch/nn/module.h>

#include <cstdint>
#include <memory>
#include <string>

namespace uvit {

/// The MLP of a block, on each token by itself. Two kinds:
///   gelu:   fc2(gelu(fc1(x))), GELU with erf, h hidden units. State dict: fc1.*, fc2.*
///   swiglu: w3(silu(a) * b), [a, b] = w12(x) (arXiv:2002.05202), swiglu_width(h) hidden units. State dict: w12.*, w3.*
class FeedForward : public torch::nn::Module {
 public:
  /// @param x [B, L, C]; @return [B, L, C]
  virtual at::Tensor forward(const at::Tensor& x) = 0;
};

/// 2/3 of the hidden width, so that three matrices have the parameters of two, rounded up to a multiple of 8, at least 8.
std::int64_t swiglu_width(std::int64_t hidden_dim);

/// Throws Error for a kind that is neither "gelu" nor "swiglu".
std::shared_ptr<FeedForward> make_feed_forward(const std::string& kind, std::int64_t embed_dim, std::int64_t hidden_dim);

}  // namespace uvit
