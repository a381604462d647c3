#include <torch/torch.h>

#include <fmt/format.h>

#include "core/error.h"
#include "model/feed_forward.h"
#include "model/uvit.h"

namespace uvit {

UViTOptions make_uvit_options(const Config& config) {
  const ModelConfig& m = config.model;
  UViTOptions o;
  o.height = config.data.height();
  o.width = config.data.width();
  o.channels = config.data.channels;
  o.patch_size = m.patch_size;
  o.embed_dim = m.embed_dim;
  o.depth = m.depth;
  o.num_heads = m.num_heads;
  o.mlp_ratio = m.mlp_ratio;
  o.qkv_bias = m.qkv_bias;
  o.mlp_time_embed = m.mlp_time_embed;
  o.conv = m.conv;
  o.skip = m.skip;
  // With label dropout one more row: the null class.
  if (config.data.num_classes > 0) o.label_rows = config.data.num_classes + (config.diffusion.label_dropout > 0 ? 1 : 0);
  o.context_dim = m.context_dim;
  o.context_tokens = m.context_tokens;
  o.plan = make_plan(m);
  o.attention_backend = m.attention_backend;
  o.qk_norm = m.qk_norm;
  o.rope = m.rope;
  o.mlp = m.mlp;
  o.norm = m.norm;
  o.register_tokens = m.register_tokens;
  o.adaln_zero = m.conditioning == "adaln_zero";
  o.align_dim = m.align_dim;
  o.align_block = m.align_block;
  return o;
}

void check_options(const UViTOptions& o) {
  if (o.height < 1 || o.width < 1 || o.channels < 1 || o.patch_size < 1 || o.embed_dim < 1 || o.depth < 1 || o.hidden_dim() < 1) {
    throw Error("model: image sides, channels, patch_size, embed_dim, depth and mlp_ratio must be positive");
  }
  if (o.height % o.patch_size != 0 || o.width % o.patch_size != 0) {
    throw Error(fmt::format("model.patch_size {} does not divide the image of {} x {} pixels: choose one that divides both sides", o.patch_size,
                            o.height, o.width));
  }
  if ((o.context_dim > 0) != (o.context_tokens > 0)) {
    throw Error(fmt::format("model.context_dim is {} and model.context_tokens is {}: give both, or neither", o.context_dim, o.context_tokens));
  }
  const auto blocks = static_cast<std::int64_t>(o.plan.kinds.size());
  if (blocks != 2 * (o.depth / 2) + 1) {
    throw Error(fmt::format("the attention plan has {} blocks where depth {} has {}", blocks, o.depth, 2 * (o.depth / 2) + 1));
  }
  if (o.adaln_zero && o.mlp_time_embed) {
    throw Error("model.conditioning = \"adaln_zero\" has a time MLP of its own: set model.mlp_time_embed = false");
  }
  if (o.align_dim > 0 && o.align_block >= blocks) {
    throw Error(fmt::format("model.align_block = {}: the network has the blocks 0 ... {}", o.align_block, blocks - 1));
  }
}

double UViT::flops_per_image() const {
  const UViTOptions& o = options_;
  const double dim = static_cast<double>(o.embed_dim), hidden = static_cast<double>(o.hidden_dim()), patches = static_cast<double>(o.num_patches());
  const double tokens = static_cast<double>(o.num_tokens()), channels = static_cast<double>(o.channels);
  const double patch_values = static_cast<double>(o.patch_size * o.patch_size) * channels, side = static_cast<double>(o.depth / 2);
  const double mlp = o.mlp == "swiglu" ? 3 * dim * static_cast<double>(swiglu_width(o.hidden_dim())) : 2 * dim * hidden;
  double products = patches * patch_values * dim;
  if (o.mlp_time_embed) products += 8 * dim * dim;
  products += static_cast<double>(o.context_tokens * o.context_dim) * dim;
  const double block = tokens * (4 * dim * dim + mlp) + 2 * tokens * tokens * dim;
  products += (2 * side + 1) * block;
  if (o.adaln_zero) products += 256 * dim + dim * dim + (2 * side + 1) * 6 * dim * dim + 2 * dim * dim;  // the time MLP, the modulations
  for (const std::string& kind : o.plan.kinds) {
    if (kind == "dipole") products += tokens * dim * dim + tokens * tokens * dim;  // the second value projection and its product
  }
  if (o.skip) products += side * tokens * 2 * dim * dim;
  products += tokens * dim * patch_values;
  if (o.conv) products += static_cast<double>(o.height * o.width) * channels * channels * 9;
  return 2 * products;
}

}  // namespace uvit
