#pragma once
#include <torch/nn/module.h>
#include <torch/nn/modules/linear.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace uvit {

/// What an attention block needs to know to be made.
struct AttentionOptions {
  std::int64_t embed_dim = 0, num_heads = 0;
  bool qkv_bias = false;
  std::int64_t block_index = 0;  ///< place in running order from 0
  std::string kind;              ///< row of the kind table
  std::string backend = "eager";
};

/// Multi-head self-attention of one block: x [B, L, C] -> proj(attend(qkv(x))) [B, L, C]. State dict: qkv.weight (, qkv.bias), proj.weight, proj.bias.
/// A kind with parameters of its own derives from it, registers them here (so that they are attn.<name>), and overrides attend.
class Attention : public torch::nn::Module {
 public:
  explicit Attention(const AttentionOptions& options);
  at::Tensor forward(const at::Tensor& x);

 protected:
  /// @param x [B, L, C], the block's normalised input; @param qkv [B, L, 3, H, D] with q first. @return [B, L, C]
  virtual at::Tensor attend(const at::Tensor& x, const at::Tensor& qkv);
  AttentionOptions options_;

 private:
  torch::nn::Linear qkv_{nullptr}, proj_{nullptr};
};

/// A row of the table of attention kinds.
struct AttentionKind {
  std::string name;
  std::string description;  ///< formula and source
  std::shared_ptr<Attention> (*make)(const AttentionOptions& options);
  /// The weights w of o = w v from the scores, in plain ATen operations.
  /// @param scores [N, L, Lk], float32 or float64; @param hidden bool [L, Lk], true where a key is not visible; undefined: all are. Every row sees a key.
  at::Tensor (*weights)(const at::Tensor& scores, const at::Tensor& hidden);
};

std::span<const AttentionKind> attention_kinds();

/// The module of options.kind. Throws Error for an unknown kind, with the nearest name.
std::shared_ptr<Attention> make_attention(const AttentionOptions& options);

}  // namespace uvit
