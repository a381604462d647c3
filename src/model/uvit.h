#pragma once
#include <torch/nn/module.h>

#include <cstdint>
#include <memory>
#include <string>

#include "attention/attention.h"
#include "attention/plan.h"

namespace uvit {

/// Everything that fixes the network. make_uvit_options derives it from a Config.
struct UViTOptions {
  std::int64_t height = 32, width = 32, channels = 3, patch_size = 2;
  std::int64_t embed_dim = 512, depth = 12, num_heads = 8;
  double mlp_ratio = 4.0;
  bool qkv_bias = false, mlp_time_embed = false, conv = true, skip = true;
  std::int64_t label_rows = 0;  ///< rows of the label embedding (the official num_classes); 0: no label token
  std::int64_t context_dim = 0, context_tokens = 0;
  AttentionPlan plan;
  std::string attention_backend = "fused";
  bool qk_norm = false, rope = false;           ///< attention.h
  std::string mlp = "gelu", norm = "layer";     ///< feed_forward.h, norm.h
  std::int64_t register_tokens = 0;             ///< learned tokens without a position, first in the sequence (arXiv:2309.16588)
  bool adaln_zero = false;                      ///< time and label modulate every block (modulation.h) and are no tokens
  std::int64_t align_dim = 0, align_block = 0;  ///< a projector of the patches behind that block (arXiv:2410.06940); 0: none

  std::int64_t num_patches() const { return (height / patch_size) * (width / patch_size); }
  /// Tokens with a position before the patches: label, time, context.
  std::int64_t num_extras() const { return (adaln_zero ? 0 : 1 + (label_rows > 0 ? 1 : 0)) + (context_dim > 0 ? context_tokens : 0); }
  /// Length of the sequence.
  std::int64_t num_tokens() const { return register_tokens + num_extras() + num_patches(); }
  /// Hidden width of the MLP "gelu".
  std::int64_t hidden_dim() const { return static_cast<std::int64_t>(static_cast<double>(embed_dim) * mlp_ratio); }
};

UViTOptions make_uvit_options(const Config& config);

/// Throws Error, in one line, for options that no network can have.
void check_options(const UViTOptions& options);

/// f_i = exp(-ln(10000) i / half), i < half = dim / 2, in the official code's float32 operations. [half] float32
/// The float32 exp of LibTorch rounds a few near-ties differently on CPUs of different makers: there the last bit of f_i differs, and at t = 999 the
/// fifth digit of the embedding.
at::Tensor timestep_frequencies(std::int64_t dim);

/// Sinusoidal timestep embedding: [cos(t f), sin(t f)], a zero appended for odd dim. Computed in float32.
/// @param t [B] float32; @param frequencies [dim / 2] float32; @return [B, dim] float32
at::Tensor timestep_embedding(const at::Tensor& t, const at::Tensor& frequencies, std::int64_t dim);
at::Tensor timestep_embedding(const at::Tensor& t, std::int64_t dim);

/// [B, N, p*p*C] -> [B, C, H, W]: tokens in raster order, inside a token (row, column, channel) with the channel fastest. H and W in pixels.
at::Tensor unpatchify(const at::Tensor& tokens, std::int64_t channels, std::int64_t height, std::int64_t width, std::int64_t patch_size);

/// [B, C, H, W] -> [B, N, C*p*p]: tokens in raster order, inside a token (channel, row, column) as in the weight of the patch convolution.
at::Tensor patchify(const at::Tensor& image, std::int64_t patch_size);

/// The position embedding of patches on another grid: bicubic (a = -0.75) without antialiasing, half-pixel centres, as is usual for ViT
/// (arXiv:2010.11929, section 3.2). The first rows, of the tokens before the patches, are copied.
/// @param pos_embed [1, extras + rows * columns, C]; @return [1, extras + new_rows * new_columns, C]
at::Tensor interpolate_pos_embed(const at::Tensor& pos_embed, std::int64_t rows, std::int64_t columns, std::int64_t new_rows,
                                 std::int64_t new_columns);

/// U-ViT (Bao et al., arXiv:2209.12152) and, by its attention plan, U-ViC (arXiv:2411.07176). Parameter names are those of the official state dicts.
class UViT : public torch::nn::Module {
 public:
  explicit UViT(const UViTOptions& options);
  ~UViT() override;

  /// @param x [B, C, H, W], any floating dtype; @param t [B] network time (999 t for continuous training, a step number for discrete)
  /// @param y [B] int64 labels, undefined without label token; @param context [B, tokens, context_dim], undefined without context
  /// @return  [B, C, H, W], x's dtype. Throws Error for inputs that do not fit the options.
  /// Under autocast the tokens between blocks and the norms stay float32.
  /// @param aligned where it is not null and the options have align_dim: gets the projected patches of block align_block, [B, N, align_dim]
  at::Tensor forward(const at::Tensor& x, const at::Tensor& t, const at::Tensor& y = {}, const at::Tensor& context = {},
                     at::Tensor* aligned = nullptr);

  /// Official initial values drawn from (seed, name of the parameter): Linear N(0, 0.02) (truncated at +-2), zero bias; pos_embed 0.02;
  /// label embedding N(0, 1); convolutions as torch's default; norms 1 and 0. Twins of two kinds share every common value.
  /// Register tokens 0.02. With adaln_zero as DiT: modulations and prediction 0, label embedding 0.02.
  void initialise(std::uint64_t seed);

  /// Replaces timestep_frequencies(width of the time embedding: embed_dim, 256 with adaln_zero), for agreement to the last bits with a run on another
  /// maker's CPU. @param frequencies [width / 2]
  void set_timestep_frequencies(const at::Tensor& frequencies);

  /// Every k-th block keeps its inputs alone for backward, which runs it again (recompute.h): less memory, the same bits. 0: none.
  void set_recompute_every(std::int64_t k) { recompute_every_ = k; }

  const UViTOptions& options() const { return options_; }
  std::int64_t num_parameters() const;
  /// Multiply-adds counted as two, of one forward pass of one image: linears, convolutions and attention products; without the
  /// projector, which sampling does not run.
  double flops_per_image() const;

 private:
  struct Impl;
  at::Tensor embed_time(const at::Tensor& t) const;
  at::Tensor embed(const at::Tensor& x, const at::Tensor& t, const at::Tensor& y, const at::Tensor& context) const;
  at::Tensor condition(const at::Tensor& t, const at::Tensor& y) const;
  UViTOptions options_;
  std::int64_t recompute_every_ = 0;
  std::unique_ptr<Impl> impl_;
};

}  // namespace uvit
