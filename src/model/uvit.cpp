#include <torch/torch.h>

#include "model/uvit.h"

#include <fmt/format.h>

#include <vector>

#include "core/error.h"
#include "model/block.h"

namespace uvit {
namespace {

/// The patch convolution (kernel = stride = patch), run as a product on patches: the same sum, and faster than a convolution on the CPU.
class PatchEmbed : public torch::nn::Module {
 public:
  explicit PatchEmbed(const UViTOptions& options) : patch_size_(options.patch_size) {
    const auto conv = torch::nn::Conv2dOptions(options.channels, options.embed_dim, options.patch_size).stride(options.patch_size);
    proj_ = register_module("proj", torch::nn::Conv2d(conv));
  }
  /// [B, C, H, W] -> [B, N, embed_dim]
  at::Tensor forward(const at::Tensor& x) const { return at::linear(patchify(x, patch_size_), proj_->weight.flatten(1), proj_->bias); }

 private:
  std::int64_t patch_size_;
  torch::nn::Conv2d proj_{nullptr};
};

std::int64_t num_patches(const UViTOptions& o) { return (o.height / o.patch_size) * (o.width / o.patch_size); }
/// Label, time and context tokens, which come before the patches.
std::int64_t num_extras(const UViTOptions& o) { return (o.label_rows > 0 ? 1 : 0) + 1 + (o.context_dim > 0 ? o.context_tokens : 0); }
std::int64_t hidden_dim(const UViTOptions& o) { return static_cast<std::int64_t>(static_cast<double>(o.embed_dim) * o.mlp_ratio); }

void check_options(const UViTOptions& o) {
  if (o.height < 1 || o.width < 1 || o.channels < 1 || o.patch_size < 1 || o.embed_dim < 1 || o.depth < 1 || hidden_dim(o) < 1) {
    throw Error("model: image sides, channels, patch_size, embed_dim, depth and mlp_ratio must be positive");
  }
  if (o.height % o.patch_size != 0 || o.width % o.patch_size != 0) {
    throw Error(fmt::format("model.patch_size {} does not divide the image of {} x {} pixels: choose one that divides both sides", o.patch_size,
                            o.height, o.width));
  }
  if ((o.context_dim > 0) != (o.context_tokens > 0)) {
    throw Error(fmt::format("model.context_dim is {} and model.context_tokens is {}: give both, or neither", o.context_dim, o.context_tokens));
  }
  if (static_cast<std::int64_t>(o.plan.kinds.size()) != 2 * (o.depth / 2) + 1) {
    throw Error(fmt::format("the attention plan has {} blocks where depth {} has {}", o.plan.kinds.size(), o.depth, 2 * (o.depth / 2) + 1));
  }
}

std::string shape_of(const at::Tensor& tensor) { return fmt::format("[{}]", fmt::join(tensor.sizes(), ", ")); }

void check_labels(const UViTOptions& o, const at::Tensor& y, std::int64_t batch) {
  if (y.defined() != (o.label_rows > 0)) {
    throw Error(y.defined() ? "labels were given to a model without a label token" : "the model has a label token: it needs labels");
  }
  if (!y.defined()) return;
  if (y.dim() != 1 || y.size(0) != batch || y.scalar_type() != at::kLong) {
    throw Error(fmt::format("labels have shape {} and dtype {}: the model wants [{}] of int64", shape_of(y), c10::toString(y.scalar_type()), batch));
  }
  // On a GPU reading them back would stall the stream; there the embedding's own check has to do.
  if (y.is_cpu() && batch > 0 && (y.min().item<std::int64_t>() < 0 || y.max().item<std::int64_t>() >= o.label_rows)) {
    throw Error(fmt::format("a label lies outside 0 ... {}", o.label_rows - 1));
  }
}

void check_inputs(const UViTOptions& o, const at::Tensor& x, const at::Tensor& t, const at::Tensor& y, const at::Tensor& context) {
  if (!x.defined() || x.dim() != 4 || x.size(1) != o.channels || x.size(2) != o.height || x.size(3) != o.width || !x.is_floating_point()) {
    throw Error(fmt::format("the image batch has shape {}: the model wants [B, {}, {}, {}] of a floating dtype", x.defined() ? shape_of(x) : "none",
                            o.channels, o.height, o.width));
  }
  const std::int64_t batch = x.size(0);
  if (!t.defined() || t.dim() != 1 || t.size(0) != batch) {
    throw Error(fmt::format("the times have shape {}: the model wants [{}], one an image", t.defined() ? shape_of(t) : "none", batch));
  }
  check_labels(o, y, batch);
  if (context.defined() != (o.context_dim > 0)) {
    throw Error(context.defined() ? "context tokens were given to a model without them" : "the model has context tokens: it needs a context");
  }
  if (context.defined() && context.sizes() != at::IntArrayRef({batch, o.context_tokens, o.context_dim})) {
    throw Error(fmt::format("the context has shape {}: the model wants [{}, {}, {}]", shape_of(context), batch, o.context_tokens, o.context_dim));
  }
}

}  // namespace

/// The modules, held by name. They are registered in UViT in the order of the official state dict.
struct UViT::Impl {
  at::Tensor timestep_frequencies;  // [C / 2], always float32: no parameter, so that to(dtype) leaves it
  at::Tensor pos_embed;  // [1, L, C]
  std::shared_ptr<PatchEmbed> patch_embed;
  torch::nn::Sequential time_embed{nullptr};
  torch::nn::Embedding label_emb{nullptr};
  torch::nn::Linear context_embed{nullptr};
  std::vector<std::shared_ptr<Block>> in_blocks, out_blocks;
  std::shared_ptr<Block> mid_block;
  torch::nn::LayerNorm norm{nullptr};
  torch::nn::Linear decoder_pred{nullptr};
  torch::nn::Conv2d final_layer{nullptr};
};

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
  return o;
}

UViT::UViT(const UViTOptions& options) : options_(options), impl_(std::make_unique<Impl>()) {
  check_options(options);
  const std::int64_t dim = options.embed_dim, side = options.depth / 2;
  Impl& m = *impl_;
  m.timestep_frequencies = timestep_frequencies(dim);
  m.pos_embed = register_parameter("pos_embed", torch::zeros({1, num_extras(options) + num_patches(options), dim}));
  m.patch_embed = register_module("patch_embed", std::make_shared<PatchEmbed>(options));
  if (options.mlp_time_embed) {
    torch::nn::Sequential mlp(torch::nn::Linear(dim, 4 * dim), torch::nn::SiLU(), torch::nn::Linear(4 * dim, dim));
    m.time_embed = register_module("time_embed", mlp);
  }
  if (options.label_rows > 0) m.label_emb = register_module("label_emb", torch::nn::Embedding(options.label_rows, dim));
  if (options.context_dim > 0) m.context_embed = register_module("context_embed", torch::nn::Linear(options.context_dim, dim));

  const auto make_block = [&](std::int64_t index, const std::string& kind, bool skip) {
    const AttentionOptions attention{dim, options.num_heads, options.qkv_bias, index, kind, options.attention_backend};
    return std::make_shared<Block>(attention, hidden_dim(options), skip);
  };
  const auto in_list = register_module("in_blocks", torch::nn::ModuleList());
  for (std::int64_t i = 0; i < side; ++i) {
    m.in_blocks.push_back(make_block(i, options.plan.in(i), false));
    in_list->push_back(m.in_blocks.back());
  }
  m.mid_block = register_module("mid_block", make_block(side, options.plan.mid(), false));
  const auto out_list = register_module("out_blocks", torch::nn::ModuleList());
  for (std::int64_t i = 0; i < side; ++i) {
    m.out_blocks.push_back(make_block(side + 1 + i, options.plan.out(i), options.skip));
    out_list->push_back(m.out_blocks.back());
  }
  m.norm = register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({dim})));
  m.decoder_pred = register_module("decoder_pred", torch::nn::Linear(dim, options.patch_size * options.patch_size * options.channels));
  if (options.conv) {
    m.final_layer = register_module("final_layer", torch::nn::Conv2d(torch::nn::Conv2dOptions(options.channels, options.channels, 3).padding(1)));
  }
}

UViT::~UViT() = default;

/// The sequence [label, time, context, patches] + pos_embed, [B, L, C].
at::Tensor UViT::embed(const at::Tensor& x, const at::Tensor& t, const at::Tensor& y, const at::Tensor& context) const {
  Impl& m = *impl_;
  const at::ScalarType dtype = m.pos_embed.scalar_type();
  // Kept where the times are: a copy from the CPU in every pass would stall a GPU, and cannot be part of a CUDA graph.
  if (m.timestep_frequencies.device() != t.device()) m.timestep_frequencies = m.timestep_frequencies.to(t.device());
  at::Tensor time = timestep_embedding(t, m.timestep_frequencies, options_.embed_dim).to(dtype);
  if (m.time_embed) time = m.time_embed->forward(time);
  std::vector<at::Tensor> tokens;
  if (m.label_emb) tokens.push_back(m.label_emb->forward(y).unsqueeze(1));
  tokens.push_back(time.unsqueeze(1));
  if (m.context_embed) tokens.push_back(m.context_embed->forward(context.to(dtype)));
  tokens.push_back(m.patch_embed->forward(x.to(dtype)));
  return at::cat(tokens, 1) + m.pos_embed;
}

at::Tensor UViT::forward(const at::Tensor& x, const at::Tensor& t, const at::Tensor& y, const at::Tensor& context) {
  check_inputs(options_, x, t, y, context);
  Impl& m = *impl_;
  at::Tensor h = embed(x, t, y, context);
  std::vector<at::Tensor> skips;
  for (const auto& block : m.in_blocks) {
    h = block->forward(h);
    if (options_.skip) skips.push_back(h);
  }
  h = m.mid_block->forward(h);
  for (const auto& block : m.out_blocks) {
    at::Tensor skip;
    if (options_.skip) {
      skip = std::move(skips.back());
      skips.pop_back();
    }
    h = block->forward(h, skip);
  }
  h = m.decoder_pred->forward(layer_norm(m.norm, h));
  h = unpatchify(h.narrow(1, num_extras(options_), num_patches(options_)), options_.channels, options_.height, options_.width, options_.patch_size);
  if (m.final_layer) h = m.final_layer->forward(h);
  return h.to(x.scalar_type());
}

void UViT::set_timestep_frequencies(const at::Tensor& frequencies) {
  if (frequencies.sizes() != at::IntArrayRef({options_.embed_dim / 2})) {
    throw Error(fmt::format("timestep frequencies have shape {}: the model wants [{}]", shape_of(frequencies), options_.embed_dim / 2));
  }
  impl_->timestep_frequencies = frequencies.to(at::kFloat);
}

std::int64_t UViT::num_parameters() const {
  std::int64_t count = 0;
  for (const at::Tensor& parameter : parameters()) count += parameter.numel();
  return count;
}

double UViT::flops_per_image() const {
  const UViTOptions& o = options_;
  const double dim = static_cast<double>(o.embed_dim), hidden = static_cast<double>(hidden_dim(o)), patches = static_cast<double>(num_patches(o));
  const double tokens = patches + static_cast<double>(num_extras(o)), channels = static_cast<double>(o.channels);
  const double patch_values = static_cast<double>(o.patch_size * o.patch_size) * channels, side = static_cast<double>(o.depth / 2);
  double products = patches * patch_values * dim;
  if (o.mlp_time_embed) products += 8 * dim * dim;
  products += static_cast<double>(o.context_tokens * o.context_dim) * dim;
  const double block = tokens * (4 * dim * dim + 2 * dim * hidden) + 2 * tokens * tokens * dim;
  products += (2 * side + 1) * block;
  for (const std::string& kind : o.plan.kinds) {
    if (kind == "dipole") products += tokens * dim * dim + tokens * tokens * dim;  // the second value projection and its product
  }
  if (o.skip) products += side * tokens * 2 * dim * dim;
  products += tokens * dim * patch_values;
  if (o.conv) products += static_cast<double>(o.height * o.width) * channels * channels * 9;
  return 2 * products;
}

}  // namespace uvit
