#include <torch/torch.h>

#include "model/autoencoder_kl.h"

#include <fmt/format.h>

#include <cmath>

#include "core/error.h"
#include "core/random.h"
#include "model/init.h"

namespace uvit {
namespace {

namespace nn = torch::nn;

nn::Conv2d conv(std::int64_t in, std::int64_t out, std::int64_t kernel) {
  return nn::Conv2d(nn::Conv2dOptions(in, out, kernel).padding(kernel / 2));
}

nn::GroupNorm group_norm(std::int64_t channels) { return nn::GroupNorm(nn::GroupNormOptions(32, channels).eps(1e-6)); }

/// x + conv2(silu(norm2(conv1(silu(norm1(x)))))), a 1x1 convolution on x where the width changes.
class ResnetBlock : public nn::Module {
 public:
  ResnetBlock(std::int64_t in, std::int64_t out) {
    norm1_ = register_module("norm1", group_norm(in));
    conv1_ = register_module("conv1", conv(in, out, 3));
    norm2_ = register_module("norm2", group_norm(out));
    conv2_ = register_module("conv2", conv(out, out, 3));
    if (in != out) shortcut_ = register_module("nin_shortcut", conv(in, out, 1));
  }
  at::Tensor forward(const at::Tensor& x) {
    const at::Tensor h = conv1_->forward(at::silu(norm1_->forward(x)));
    const at::Tensor residual = conv2_->forward(at::silu(norm2_->forward(h)));
    return (shortcut_ ? shortcut_->forward(x) : x) + residual;
  }

 private:
  nn::GroupNorm norm1_{nullptr}, norm2_{nullptr};
  nn::Conv2d conv1_{nullptr}, conv2_{nullptr}, shortcut_{nullptr};
};

/// Single-head attention over the pixels, scale C^-0.5.
class AttentionBlock : public nn::Module {
 public:
  explicit AttentionBlock(std::int64_t channels) {
    norm_ = register_module("norm", group_norm(channels));
    q_ = register_module("q", conv(channels, channels, 1));
    k_ = register_module("k", conv(channels, channels, 1));
    v_ = register_module("v", conv(channels, channels, 1));
    proj_out_ = register_module("proj_out", conv(channels, channels, 1));
  }
  at::Tensor forward(const at::Tensor& x) {
    const at::Tensor h = norm_->forward(x);
    const auto tokens = [](const at::Tensor& image) { return image.flatten(2).transpose(1, 2).unsqueeze(1); };  // [B, 1, H W, C]
    const at::Tensor out = at::scaled_dot_product_attention(tokens(q_->forward(h)), tokens(k_->forward(h)), tokens(v_->forward(h)));
    return x + proj_out_->forward(out.squeeze(1).transpose(1, 2).reshape(x.sizes()));
  }

 private:
  nn::GroupNorm norm_{nullptr};
  nn::Conv2d q_{nullptr}, k_{nullptr}, v_{nullptr}, proj_out_{nullptr};
};

/// Holds modules under names of the official state dict.
template <class T>
class Named : public nn::Module {
 public:
  Named(const std::string& name, std::shared_ptr<T> module) : held(register_module(name, std::move(module))) {}
  std::shared_ptr<T> held;
};

/// One resolution: residual blocks, attention behind each where the level has it, and a change of resolution where there is a further level.
class Level : public nn::Module {
 public:
  enum class Resize { none, down, up };
  Level(std::int64_t in, std::int64_t out, std::int64_t num_blocks, bool attention, Resize resize) : resize_(resize) {
    const auto block_list = register_module("block", nn::ModuleList());
    const auto attention_list = register_module("attn", nn::ModuleList());
    for (std::int64_t i = 0; i < num_blocks; ++i) {
      blocks_.push_back(std::make_shared<ResnetBlock>(i == 0 ? in : out, out));
      block_list->push_back(blocks_.back());
      if (!attention) continue;
      attentions_.push_back(std::make_shared<AttentionBlock>(out));
      attention_list->push_back(attentions_.back());
    }
    if (resize == Resize::none) return;
    const auto change = resize == Resize::down ? nn::Conv2d(nn::Conv2dOptions(out, out, 3).stride(2)) : conv(out, out, 3);
    conv_ = change;
    register_module(resize == Resize::down ? "downsample" : "upsample", std::make_shared<Named<nn::Conv2dImpl>>("conv", change.ptr()));
  }
  at::Tensor forward(at::Tensor x) {
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
      x = blocks_[i]->forward(x);
      if (!attentions_.empty()) x = attentions_[i]->forward(x);
    }
    if (resize_ == Resize::none) return x;
    // down: one zero at the right and the bottom only, then no padding
    x = resize_ == Resize::down ? at::constant_pad_nd(x, {0, 1, 0, 1}) : at::upsample_nearest2d(x, {2 * x.size(2), 2 * x.size(3)});
    return conv_->forward(x);
  }

 private:
  Resize resize_;
  std::vector<std::shared_ptr<ResnetBlock>> blocks_;
  std::vector<std::shared_ptr<AttentionBlock>> attentions_;
  nn::Conv2d conv_{nullptr};
};

class Middle : public nn::Module {
 public:
  explicit Middle(std::int64_t channels) {
    block_1_ = register_module("block_1", std::make_shared<ResnetBlock>(channels, channels));
    attn_1_ = register_module("attn_1", std::make_shared<AttentionBlock>(channels));
    block_2_ = register_module("block_2", std::make_shared<ResnetBlock>(channels, channels));
  }
  at::Tensor forward(const at::Tensor& x) { return block_2_->forward(attn_1_->forward(block_1_->forward(x))); }

 private:
  std::shared_ptr<ResnetBlock> block_1_, block_2_;
  std::shared_ptr<AttentionBlock> attn_1_;
};

bool has_attention(const AutoencoderOptions& o, std::int64_t level) {
  return static_cast<std::size_t>(level) < o.attention.size() && o.attention[static_cast<std::size_t>(level)];
}

std::int64_t width(const AutoencoderOptions& o, std::int64_t level) { return o.ch * o.ch_mult[static_cast<std::size_t>(level)]; }

class Encoder : public nn::Module {
 public:
  explicit Encoder(const AutoencoderOptions& o) {
    conv_in_ = register_module("conv_in", conv(o.in_channels, o.ch, 3));
    const auto list = register_module("down", nn::ModuleList());
    std::int64_t in = o.ch;
    for (std::int64_t i = 0; i < o.levels(); ++i) {
      const auto resize = i + 1 < o.levels() ? Level::Resize::down : Level::Resize::none;
      levels_.push_back(std::make_shared<Level>(in, width(o, i), o.num_res_blocks, has_attention(o, i), resize));
      list->push_back(levels_.back());
      in = width(o, i);
    }
    mid_ = register_module("mid", std::make_shared<Middle>(in));
    norm_out_ = register_module("norm_out", group_norm(in));
    conv_out_ = register_module("conv_out", conv(in, 2 * o.z_channels, 3));
  }
  at::Tensor forward(const at::Tensor& image) {
    at::Tensor h = conv_in_->forward(image);
    for (const auto& level : levels_) h = level->forward(h);
    return conv_out_->forward(at::silu(norm_out_->forward(mid_->forward(h))));
  }

 private:
  nn::Conv2d conv_in_{nullptr}, conv_out_{nullptr};
  std::vector<std::shared_ptr<Level>> levels_;
  std::shared_ptr<Middle> mid_;
  nn::GroupNorm norm_out_{nullptr};
};

/// Levels are numbered by resolution: up.0 is the largest image and runs last.
class Decoder : public nn::Module {
 public:
  explicit Decoder(const AutoencoderOptions& o) {
    std::int64_t in = width(o, o.levels() - 1);
    conv_in_ = register_module("conv_in", conv(o.z_channels, in, 3));
    mid_ = register_module("mid", std::make_shared<Middle>(in));
    for (std::int64_t i = o.levels() - 1; i >= 0; --i) {
      const auto resize = i > 0 ? Level::Resize::up : Level::Resize::none;
      levels_.insert(levels_.begin(), std::make_shared<Level>(in, width(o, i), o.num_res_blocks + 1, has_attention(o, i), resize));
      in = width(o, i);
    }
    const auto list = register_module("up", nn::ModuleList());
    for (const auto& level : levels_) list->push_back(level);
    norm_out_ = register_module("norm_out", group_norm(in));
    conv_out_ = register_module("conv_out", conv(in, o.out_channels, 3));
  }
  at::Tensor forward(const at::Tensor& z) {
    at::Tensor h = mid_->forward(conv_in_->forward(z));
    for (auto level = levels_.rbegin(); level != levels_.rend(); ++level) h = (*level)->forward(h);
    return conv_out_->forward(at::silu(norm_out_->forward(h)));
  }

 private:
  nn::Conv2d conv_in_{nullptr}, conv_out_{nullptr};
  std::shared_ptr<Middle> mid_;
  std::vector<std::shared_ptr<Level>> levels_;  // by resolution, largest first
  nn::GroupNorm norm_out_{nullptr};
};

void check_options(const AutoencoderOptions& o) {
  if (o.in_channels < 1 || o.out_channels < 1 || o.z_channels < 1 || o.embed_dim < 1 || o.ch < 1 || o.num_res_blocks < 1 || o.ch_mult.empty())
    throw Error("autoencoder: channels, widths, levels and residual blocks must be positive");
  for (std::int64_t i = 0; i < o.levels(); ++i)
    if (width(o, i) % 32 != 0 || width(o, i) < 1 || o.ch % 32 != 0)
      throw Error(fmt::format("autoencoder: level {} is {} channels wide (first width {}): its 32 norm groups need a multiple of 32", i, width(o, i), o.ch));
  if (!(o.scale_factor > 0) || !std::isfinite(o.scale_factor)) throw Error(fmt::format("autoencoder: scale factor {}: must be positive", o.scale_factor));
}

void check_shape(const at::Tensor& x, std::int64_t channels, std::int64_t multiple, const char* what) {
  if (x.dim() != 4 || x.size(1) != channels || x.size(2) < 1 || x.size(3) < 1 || x.size(2) % multiple != 0 || x.size(3) % multiple != 0)
    throw Error(fmt::format("the autoencoder got {} of shape [{}]: it wants [B, {}, H, W], sides multiples of {}", what, fmt::join(x.sizes(), ", "),
                            channels, multiple));
}

}  // namespace

AutoencoderKL::AutoencoderKL(const AutoencoderOptions& options) : options_(options) {
  check_options(options);
  encoder_ = register_module("encoder", std::make_shared<Encoder>(options));
  decoder_ = register_module("decoder", std::make_shared<Decoder>(options));
  quant_conv_ = register_module("quant_conv", conv(2 * options.z_channels, 2 * options.embed_dim, 1));
  post_quant_conv_ = register_module("post_quant_conv", conv(options.embed_dim, options.z_channels, 1));
}

at::Tensor AutoencoderKL::moments(const at::Tensor& images) {
  check_shape(images, options_.in_channels, options_.downscale(), "images");
  return quant_conv_->forward(encoder_->as<Encoder>()->forward(images));
}

at::Tensor AutoencoderKL::sample(const at::Tensor& moments, const at::Tensor& noise) const {
  check_shape(moments, 2 * options_.embed_dim, 1, "moments");
  const std::vector<at::Tensor> parts = moments.chunk(2, 1);
  if (!noise.defined()) return options_.scale_factor * parts[0];
  return options_.scale_factor * (parts[0] + at::exp(0.5 * at::clamp(parts[1], -30.0, 20.0)) * noise);
}

at::Tensor AutoencoderKL::decode(const at::Tensor& z) {
  check_shape(z, options_.embed_dim, 1, "latents");
  return decoder_->as<Decoder>()->forward(post_quant_conv_->forward((1.0 / options_.scale_factor) * z));
}

void AutoencoderKL::initialise(std::uint64_t seed) { initialise_modules(*this, seed); }

at::Tensor latent_noise(std::uint64_t seed, std::uint64_t index, std::int64_t channels, std::int64_t height, std::int64_t width) {
  at::Tensor noise = torch::empty({1, channels, height, width}, at::kFloat);
  RandomStream(seed, RandomPurpose::latent, index).fill_normal({noise.data_ptr<float>(), static_cast<std::size_t>(noise.numel())});
  return noise;
}

}  // namespace uvit
