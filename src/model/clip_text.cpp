#include <torch/torch.h>

#include "model/clip_text.h"

#include <fmt/format.h>

#include "core/error.h"

namespace uvit {
namespace nn = torch::nn;

namespace {

class SelfAttention : public nn::Module {
 public:
  SelfAttention(std::int64_t dim, std::int64_t num_heads) : num_heads_(num_heads) {
    k_proj_ = register_module("k_proj", nn::Linear(dim, dim));
    v_proj_ = register_module("v_proj", nn::Linear(dim, dim));
    q_proj_ = register_module("q_proj", nn::Linear(dim, dim));
    out_proj_ = register_module("out_proj", nn::Linear(dim, dim));
  }
  at::Tensor forward(const at::Tensor& x) {
    const auto heads = [&](const at::Tensor& y) { return y.unflatten(2, {num_heads_, -1}).transpose(1, 2); };  // [B, H, L, D]
    const at::Tensor out = at::scaled_dot_product_attention(heads(q_proj_->forward(x)), heads(k_proj_->forward(x)), heads(v_proj_->forward(x)), {}, 0.0,
                                                            /*is_causal=*/true);
    return out_proj_->forward(out.transpose(1, 2).flatten(2));
  }

 private:
  std::int64_t num_heads_;
  nn::Linear k_proj_{nullptr}, v_proj_{nullptr}, q_proj_{nullptr}, out_proj_{nullptr};
};

class FeedForward : public nn::Module {
 public:
  explicit FeedForward(const ClipTextOptions& options) : quick_gelu_(options.quick_gelu) {
    fc1_ = register_module("fc1", nn::Linear(options.embed_dim, options.hidden_dim));
    fc2_ = register_module("fc2", nn::Linear(options.hidden_dim, options.embed_dim));
  }
  at::Tensor forward(const at::Tensor& x) {
    const at::Tensor h = fc1_->forward(x);
    return fc2_->forward(quick_gelu_ ? h * at::sigmoid(1.702 * h) : at::gelu(h));
  }

 private:
  bool quick_gelu_;
  nn::Linear fc1_{nullptr}, fc2_{nullptr};
};

void check_options(const ClipTextOptions& o) {
  if (o.vocab_size < 1 || o.max_length < 1 || o.embed_dim < 1 || o.hidden_dim < 1 || o.depth < 1 || o.num_heads < 1)
    throw Error("text encoder: vocabulary, length, widths, depth and heads must be positive");
  if (o.embed_dim % o.num_heads != 0) throw Error(fmt::format("text encoder: {} heads do not divide the width {}", o.num_heads, o.embed_dim));
}

nn::LayerNorm make_norm(std::int64_t dim) { return nn::LayerNorm(nn::LayerNormOptions({dim})); }

/// Holds the two embeddings under the name they have in the state dict.
class Embeddings : public nn::Module {
 public:
  Embeddings(const nn::Embedding& token, const nn::Embedding& position) {
    register_module("token_embedding", token);
    register_module("position_embedding", position);
  }
};

class LayerList : public nn::Module {
 public:
  explicit LayerList(const nn::ModuleList& layers) { register_module("layers", layers); }
};

}  // namespace

/// x += self_attn(layer_norm1(x)), x += mlp(layer_norm2(x)).
class ClipTextLayer : public nn::Module {
 public:
  explicit ClipTextLayer(const ClipTextOptions& options) {
    self_attn_ = register_module("self_attn", std::make_shared<SelfAttention>(options.embed_dim, options.num_heads));
    norm1_ = register_module("layer_norm1", make_norm(options.embed_dim));
    mlp_ = register_module("mlp", std::make_shared<FeedForward>(options));
    norm2_ = register_module("layer_norm2", make_norm(options.embed_dim));
  }
  at::Tensor forward(const at::Tensor& x) {
    const at::Tensor h = x + self_attn_->forward(norm1_->forward(x));
    return h + mlp_->forward(norm2_->forward(h));
  }

 private:
  std::shared_ptr<SelfAttention> self_attn_;
  std::shared_ptr<FeedForward> mlp_;
  nn::LayerNorm norm1_{nullptr}, norm2_{nullptr};
};

ClipTextEncoder::ClipTextEncoder(const ClipTextOptions& options) : options_(options) {
  check_options(options);
  token_embedding_ = nn::Embedding(options.vocab_size, options.embed_dim);
  position_embedding_ = nn::Embedding(options.max_length, options.embed_dim);
  register_module("embeddings", std::make_shared<Embeddings>(token_embedding_, position_embedding_));
  nn::ModuleList list;
  for (std::int64_t i = 0; i < options.depth; ++i) {
    layers_.push_back(std::make_shared<ClipTextLayer>(options));
    list->push_back(layers_.back());
  }
  register_module("encoder", std::make_shared<LayerList>(list));
  final_layer_norm_ = register_module("final_layer_norm", make_norm(options.embed_dim));
}

ClipTextEncoder::~ClipTextEncoder() = default;

at::Tensor ClipTextEncoder::forward(const at::Tensor& ids) {
  if (ids.dim() != 2 || ids.scalar_type() != at::kLong || ids.size(1) < 1 || ids.size(1) > options_.max_length)
    throw Error(fmt::format("the text encoder got ids of shape [{}]: it wants [B, up to {}] of int64", fmt::join(ids.sizes(), ", "), options_.max_length));
  if (ids.numel() > 0 && (ids.min().item<std::int64_t>() < 0 || ids.max().item<std::int64_t>() >= options_.vocab_size))
    throw Error(fmt::format("a token id lies outside 0 ... {}: the vocabulary file belongs to another text encoder", options_.vocab_size - 1));
  const at::Tensor positions = at::arange(ids.size(1), ids.options());
  at::Tensor h = token_embedding_->forward(ids) + position_embedding_->forward(positions);
  for (const auto& layer : layers_) h = layer->forward(h);
  return final_layer_norm_->forward(h);
}

}  // namespace uvit
