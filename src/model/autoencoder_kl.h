#pragma once
#include <torch/nn/module.h>
#include <torch/nn/modules/conv.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace uvit {

/// Everything that fixes the autoencoder. The defaults are Stable Diffusion's (f8, 4 latent channels).
struct AutoencoderOptions {
  std::int64_t in_channels = 3, out_channels = 3;
  std::int64_t z_channels = 4;                       ///< channels between encoder and quant_conv
  std::int64_t embed_dim = 4;                        ///< channels of a latent
  std::int64_t ch = 128;                             ///< width of the first level
  std::vector<std::int64_t> ch_mult = {1, 2, 4, 4};  ///< width of each level over ch; a latent is 2^(levels - 1) times smaller than the image
  std::int64_t num_res_blocks = 2;                   ///< residual blocks a level of the encoder; the decoder has one more
  std::vector<bool> attention;                       ///< levels with attention behind each residual block; empty: none (the middle always has it)
  double scale_factor = 0.18215;                     ///< latents are multiplied by it, so that their standard deviation is about 1

  std::int64_t levels() const { return static_cast<std::int64_t>(ch_mult.size()); }
  std::int64_t downscale() const { return std::int64_t{1} << (levels() - 1); }  ///< pixels of an image a pixel of its latent, a side
  bool operator==(const AutoencoderOptions&) const = default;
};

/// The KL autoencoder of latent diffusion (Rombach et al., arXiv:2112.10752). Parameter names are those of the official autoencoder_kl.pth.
/// GroupNorm has 32 groups and eps 1e-6, so every width is a multiple of 32.
class AutoencoderKL : public torch::nn::Module {
 public:
  /// Throws Error for a width that is no multiple of 32, or options that are not positive.
  explicit AutoencoderKL(const AutoencoderOptions& options);

  /// @param images [B, C, H, W] in [-1, 1], sides multiples of downscale(); @return moments [B, 2 embed_dim, h, w]: mean and log of the variance
  /// Throws Error for another shape.
  at::Tensor moments(const at::Tensor& images);
  /// scale_factor * (mean + exp(clamp(logvar, -30, 20) / 2) * noise). @param noise [B, embed_dim, h, w], standard normal; undefined: the mean alone
  at::Tensor sample(const at::Tensor& moments, const at::Tensor& noise) const;
  /// @param z [B, embed_dim, h, w], scaled as sample() returns it; @return [B, C, H, W], about [-1, 1], not clamped
  at::Tensor decode(const at::Tensor& z);

  /// torch's default values of convolutions, drawn from (seed, name of the parameter).
  void initialise(std::uint64_t seed);
  const AutoencoderOptions& options() const { return options_; }

 private:
  AutoencoderOptions options_;
  std::shared_ptr<torch::nn::Module> encoder_, decoder_;
  torch::nn::Conv2d quant_conv_{nullptr}, post_quant_conv_{nullptr};
};

/// Standard normal noise for sample(), [1, channels, height, width] float32: a function of (seed, index) alone.
at::Tensor latent_noise(std::uint64_t seed, std::uint64_t index, std::int64_t channels, std::int64_t height, std::int64_t width);

}  // namespace uvit
