#include <torch/torch.h>

#include "model/block.h"

namespace uvit {

Block::Block(const BlockOptions& options) {
  const std::int64_t dim = options.attention.embed_dim;
  norm1_ = register_module("norm1", make_norm(options.norm, dim, !options.modulated));
  attn_ = register_module("attn", make_attention(options.attention));
  norm2_ = register_module("norm2", make_norm(options.norm, dim, !options.modulated));
  mlp_ = register_module("mlp", make_feed_forward(options.mlp, dim, options.hidden_dim));
  if (options.skip) skip_linear_ = register_module("skip_linear", torch::nn::Linear(2 * dim, dim));
  if (options.modulated) modulation_ = register_module("adaLN_modulation", std::make_shared<Modulation>(dim, 6));
}

at::Tensor Block::forward(const at::Tensor& x, const at::Tensor& skip, const at::Tensor& condition) {
  BranchModulation attn, mlp;
  if (modulation_) {
    const std::vector<at::Tensor> parts = modulation_->forward(condition);
    attn = {parts[0], parts[1], parts[2]};
    mlp = {parts[3], parts[4], parts[5]};
  }
  at::Tensor h = x;
  if (skip_linear_) h = skip_linear_->forward(at::cat({x, skip}, -1)).to(x.scalar_type());
  const auto [sum, normed] = norm2_->add(h, attn.after(attn_->forward(attn.before(norm1_->forward(h)))));
  return sum + mlp.after(mlp_->forward(mlp.before(normed)));
}

}  // namespace uvit
