#include <torch/torch.h>

#include "model/block.h"

namespace uvit {

Mlp::Mlp(std::int64_t embed_dim, std::int64_t hidden_dim) {
  fc1_ = register_module("fc1", torch::nn::Linear(embed_dim, hidden_dim));
  fc2_ = register_module("fc2", torch::nn::Linear(hidden_dim, embed_dim));
}

at::Tensor Mlp::forward(const at::Tensor& x) { return fc2_->forward(linear_gelu(fc1_, x)); }

Block::Block(const AttentionOptions& attention, std::int64_t hidden_dim, bool has_skip) {
  const std::int64_t dim = attention.embed_dim;
  norm1_ = register_module("norm1", torch::nn::LayerNorm(torch::nn::LayerNormOptions({dim})));
  attn_ = register_module("attn", make_attention(attention));
  norm2_ = register_module("norm2", torch::nn::LayerNorm(torch::nn::LayerNormOptions({dim})));
  mlp_ = register_module("mlp", std::make_shared<Mlp>(dim, hidden_dim));
  if (has_skip) skip_linear_ = register_module("skip_linear", torch::nn::Linear(2 * dim, dim));
}

at::Tensor Block::forward(const at::Tensor& x, const at::Tensor& skip) {
  at::Tensor h = x;
  if (skip_linear_) h = skip_linear_->forward(at::cat({x, skip}, -1)).to(x.scalar_type());
  const auto [sum, normed] = add_layer_norm(norm2_, h, attn_->forward(layer_norm(norm1_, h)));
  return sum + mlp_->forward(normed);
}

}  // namespace uvit
