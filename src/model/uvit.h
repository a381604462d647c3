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
};

UViTOptions make_uvit_options(const Config& config);

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

/// U-ViT (Bao et al., arXiv:2209.12152) and, by its attention plan, U-ViC (arXiv:2411.07176). Parameter names are those of the official state dicts.
class UViT : public torch::nn::Module {
 public:
  explicit UViT(const UViTOptions& options);
  ~UViT() override;

  /// @param x [B, C, H, W], any floating dtype; @param t [B] network time (999 t for continuous training, a step number for discrete)
  /// @param y [B] int64 labels, undefined without label token; @param context [B, tokens, context_dim], undefined without context
  /// @return  [B, C, H, W], x's dtype. Throws Error for inputs that do not fit the options.
  /// Under autocast the tokens between blocks and the norms stay float32.
  at::Tensor forward(const at::Tensor& x, const at::Tensor& t, const at::Tensor& y = {}, const at::Tensor& context = {});

  /// Official initial values drawn from (seed, name of the parameter): Linear N(0, 0.02) (truncated at +-2), zero bias; pos_embed 0.02;
  /// label embedding N(0, 1); convolutions as torch's default; norms 1 and 0. Twins of two kinds share every common value.
  void initialise(std::uint64_t seed);

  /// Replaces timestep_frequencies(embed_dim), for agreement to the last bits with a run on another maker's CPU. @param frequencies [embed_dim / 2]
  void set_timestep_frequencies(const at::Tensor& frequencies);

  const UViTOptions& options() const { return options_; }
  std::int64_t num_parameters() const;
  /// Multiply-adds counted as two, of one forward pass of one image: linears, convolutions and attention products.
  double flops_per_image() const;

 private:
  struct Impl;
  at::Tensor embed(const at::Tensor& x, const at::Tensor& t, const at::Tensor& y, const at::Tensor& context) const;
  UViTOptions options_;
  std::unique_ptr<Impl> impl_;
};

}  // namespace uvit
