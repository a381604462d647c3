#pragma once
#include <torch/nn/module.h>
#include <torch/nn/modules/linear.h>

#include <cstdint>
#include <memory>
#include <string>

#include "attention/attention.h"
#include "model/feed_forward.h"
#include "model/modulation.h"
#include "model/norm.h"

namespace uvit {

/// What a block needs to know to be made.
struct BlockOptions {
  AttentionOptions attention;
  std::int64_t hidden_dim = 0;  ///< of the MLP
  bool skip = false;            ///< takes a long skip connection
  std::string mlp = "gelu";     ///< feed_forward.h
  std::string norm = "layer";   ///< norm.h
  bool modulated = false;       ///< by adaLN-zero
};

/// x = skip_linear([x, skip]) in an out-block, then x += attn(norm1(x)), x += mlp(norm2(x)); modulated: shifts, scales and gates around the two.
class Block : public torch::nn::Module {
 public:
  explicit Block(const BlockOptions& options);
  /// @param x, skip [B, L, C]; skip is undefined unless the block was made with it. @param condition [B, C], undefined unless it is modulated.
  /// @return [B, L, C]
  at::Tensor forward(const at::Tensor& x, const at::Tensor& skip = {}, const at::Tensor& condition = {});

 private:
  std::shared_ptr<Norm> norm1_, norm2_;
  std::shared_ptr<Attention> attn_;
  std::shared_ptr<FeedForward> mlp_;
  torch::nn::Linear skip_linear_{nullptr};
  std::shared_ptr<Modulation> modulation_;
};

}  // namespace uvit
