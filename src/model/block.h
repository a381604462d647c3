#pragma once
#include <torch/nn/module.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>

#include <cstdint>
#include <memory>

#include "attention/attention.h"
#include "model/token_ops.h"

namespace uvit {

/// fc2(gelu(fc1(x))), GELU with erf. State dict: fc1.*, fc2.*
class Mlp : public torch::nn::Module {
 public:
  Mlp(std::int64_t embed_dim, std::int64_t hidden_dim);
  at::Tensor forward(const at::Tensor& x);

 private:
  torch::nn::Linear fc1_{nullptr}, fc2_{nullptr};
};

/// x = skip_linear([x, skip]) in an out-block, then x += attn(norm1(x)), x += mlp(norm2(x)).
class Block : public torch::nn::Module {
 public:
  Block(const AttentionOptions& attention, std::int64_t hidden_dim, bool has_skip);
  /// @param x, skip [B, L, C]; skip is undefined unless the block was made with has_skip. @return [B, L, C]
  at::Tensor forward(const at::Tensor& x, const at::Tensor& skip = {});

 private:
  torch::nn::LayerNorm norm1_{nullptr}, norm2_{nullptr};
  std::shared_ptr<Attention> attn_;
  std::shared_ptr<Mlp> mlp_;
  torch::nn::Linear skip_linear_{nullptr};
};

}  // namespace uvit
