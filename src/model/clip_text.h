#pragma once
#include <torch/nn/module.h>
#include <torch/nn/modules/embedding.h>
#include <torch/nn/modules/normalization.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace uvit {

/// Everything that fixes the text encoder. The defaults are those of CLIP ViT-L/14.
struct ClipTextOptions {
  std::int64_t vocab_size = 49408, max_length = 77;
  std::int64_t embed_dim = 768, hidden_dim = 3072, depth = 12, num_heads = 12;
  bool quick_gelu = true;  ///< x sigmoid(1.702 x) as OpenAI's weights want it; false: GELU with erf
  bool operator==(const ClipTextOptions&) const = default;
};

class ClipTextLayer;

/// The text encoder of CLIP (Radford et al., arXiv:2103.00020): token + position embedding, pre-norm transformer with a causal mask, final LayerNorm.
/// Parameter names are those of Hugging Face's CLIPTextModel without the prefix text_model.
class ClipTextEncoder : public torch::nn::Module {
 public:
  /// Throws Error for options that are not positive, or heads that do not divide the width.
  explicit ClipTextEncoder(const ClipTextOptions& options);
  ~ClipTextEncoder() override;

  /// The last hidden state behind the final LayerNorm, which the official text models take as context.
  /// @param ids [B, L] int64, L <= max_length; @return [B, L, embed_dim]. Throws Error for another shape or an id outside the vocabulary.
  at::Tensor forward(const at::Tensor& ids);

  const ClipTextOptions& options() const { return options_; }

 private:
  ClipTextOptions options_;
  torch::nn::Embedding token_embedding_{nullptr}, position_embedding_{nullptr};
  std::vector<std::shared_ptr<ClipTextLayer>> layers_;
  torch::nn::LayerNorm final_layer_norm_{nullptr};
};

}  // namespace uvit
