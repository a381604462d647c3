#include <torch/torch.h>

#include "model/uvit.h"

#include <fmt/format.h>

#include <vector>

#include "core/error.h"
#include "model/block.h"
#include "model/recompute.h"

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
  at::Tensor register_tokens;  // [1, R, C]
  std::vector<std::shared_ptr<Block>> in_blocks, out_blocks;
  std::shared_ptr<Block> mid_block;
  std::shared_ptr<Norm> norm;
  std::shared_ptr<Modulation> modulation;  // of the prediction
  torch::nn::Sequential projector{nullptr};
  torch::nn::Linear decoder_pred{nullptr};
  torch::nn::Conv2d final_layer{nullptr};
};

namespace {

constexpr std::int64_t kAdaLnTimeWidth = 256, kProjectorWidth = 2048;  // DiT's and REPA's

std::int64_t time_width(const UViTOptions& o) { return o.adaln_zero ? kAdaLnTimeWidth : o.embed_dim; }

std::shared_ptr<Block> make_block(const UViTOptions& o, std::int64_t index, const std::string& kind, bool skip) {
  BlockOptions block;
  block.attention = {.embed_dim = o.embed_dim,
                     .num_heads = o.num_heads,
                     .qkv_bias = o.qkv_bias,
                     .block_index = index,
                     .kind = kind,
                     .backend = o.attention_backend,
                     .qk_norm = o.qk_norm,
                     .rope_rows = o.rope ? o.height / o.patch_size : 0,
                     .rope_columns = o.rope ? o.width / o.patch_size : 0};
  block.hidden_dim = o.hidden_dim();
  block.skip = skip;
  block.mlp = o.mlp;
  block.norm = o.norm;
  block.modulated = o.adaln_zero;
  return std::make_shared<Block>(block);
}

torch::nn::Sequential make_time_embed(const UViTOptions& o) {
  const std::int64_t dim = o.embed_dim, hidden = o.adaln_zero ? dim : 4 * dim;
  return torch::nn::Sequential(torch::nn::Linear(time_width(o), hidden), torch::nn::SiLU(), torch::nn::Linear(hidden, dim));
}

torch::nn::Linear make_prediction(const UViTOptions& o) {
  const std::int64_t values = o.patch_size * o.patch_size * o.channels;
  if (o.adaln_zero) return torch::nn::Linear(std::shared_ptr<torch::nn::LinearImpl>(std::make_shared<ZeroLinear>(o.embed_dim, values)));
  return torch::nn::Linear(o.embed_dim, values);
}

}  // namespace

UViT::UViT(const UViTOptions& options) : options_(options), impl_(std::make_unique<Impl>()) {
  check_options(options);
  const std::int64_t dim = options.embed_dim, side = options.depth / 2;
  Impl& m = *impl_;
  m.timestep_frequencies = timestep_frequencies(time_width(options));
  m.pos_embed = register_parameter("pos_embed", torch::zeros({1, options.num_extras() + options.num_patches(), dim}));
  if (options.register_tokens > 0) m.register_tokens = register_parameter("register_tokens", torch::zeros({1, options.register_tokens, dim}));
  m.patch_embed = register_module("patch_embed", std::make_shared<PatchEmbed>(options));
  if (options.mlp_time_embed || options.adaln_zero) m.time_embed = register_module("time_embed", make_time_embed(options));
  if (options.label_rows > 0) m.label_emb = register_module("label_emb", torch::nn::Embedding(options.label_rows, dim));
  if (options.context_dim > 0) m.context_embed = register_module("context_embed", torch::nn::Linear(options.context_dim, dim));

  const auto in_list = register_module("in_blocks", torch::nn::ModuleList());
  for (std::int64_t i = 0; i < side; ++i) {
    m.in_blocks.push_back(make_block(options, i, options.plan.in(i), false));
    in_list->push_back(m.in_blocks.back());
  }
  m.mid_block = register_module("mid_block", make_block(options, side, options.plan.mid(), false));
  const auto out_list = register_module("out_blocks", torch::nn::ModuleList());
  for (std::int64_t i = 0; i < side; ++i) {
    m.out_blocks.push_back(make_block(options, side + 1 + i, options.plan.out(i), options.skip));
    out_list->push_back(m.out_blocks.back());
  }
  m.norm = register_module("norm", make_norm(options.norm, dim, !options.adaln_zero));
  if (options.adaln_zero) m.modulation = register_module("adaLN_modulation", std::make_shared<Modulation>(dim, 2));
  m.decoder_pred = register_module("decoder_pred", make_prediction(options));
  if (options.conv) {
    m.final_layer = register_module("final_layer", torch::nn::Conv2d(torch::nn::Conv2dOptions(options.channels, options.channels, 3).padding(1)));
  }
  if (options.align_dim > 0) {
    using torch::nn::Linear;
    using torch::nn::SiLU;
    torch::nn::Sequential mlp(Linear(dim, kProjectorWidth), SiLU(), Linear(kProjectorWidth, kProjectorWidth), SiLU(),
                              Linear(kProjectorWidth, options.align_dim));
    m.projector = register_module("projector", mlp);
  }
}

UViT::~UViT() = default;

at::Tensor UViT::embed_time(const at::Tensor& t) const {
  Impl& m = *impl_;
  // Kept where the times are: a copy from the CPU in every pass would stall a GPU, and cannot be part of a CUDA graph.
  if (m.timestep_frequencies.device() != t.device()) m.timestep_frequencies = m.timestep_frequencies.to(t.device());
  const at::Tensor time = timestep_embedding(t, m.timestep_frequencies, time_width(options_)).to(m.pos_embed.scalar_type());
  return m.time_embed ? m.time_embed->forward(time) : time;
}

/// The sequence [registers, label, time, context, patches], where all but the registers have a position, [B, L, C]. adaLN-zero: no label, no time.
at::Tensor UViT::embed(const at::Tensor& x, const at::Tensor& t, const at::Tensor& y, const at::Tensor& context) const {
  Impl& m = *impl_;
  const at::ScalarType dtype = m.pos_embed.scalar_type();
  std::vector<at::Tensor> tokens;
  if (!options_.adaln_zero) {
    const at::Tensor time = embed_time(t);
    if (m.label_emb) tokens.push_back(m.label_emb->forward(y).unsqueeze(1));
    tokens.push_back(time.unsqueeze(1));
  }
  if (m.context_embed) tokens.push_back(m.context_embed->forward(context.to(dtype)));
  tokens.push_back(m.patch_embed->forward(x.to(dtype)));
  const at::Tensor placed = at::cat(tokens, 1) + m.pos_embed;
  return m.register_tokens.defined() ? at::cat({m.register_tokens.expand({x.size(0), -1, -1}), placed}, 1) : placed;
}

/// What modulates the blocks, [B, C]: time + label; undefined without adaLN-zero.
at::Tensor UViT::condition(const at::Tensor& t, const at::Tensor& y) const {
  if (!options_.adaln_zero) return {};
  const at::Tensor time = embed_time(t);
  return impl_->label_emb ? time + impl_->label_emb->forward(y) : time;
}

at::Tensor UViT::forward(const at::Tensor& x, const at::Tensor& t, const at::Tensor& y, const at::Tensor& context, at::Tensor* aligned) {
  check_inputs(options_, x, t, y, context);
  Impl& m = *impl_;
  const std::int64_t patches = options_.num_patches(), first_patch = options_.num_tokens() - patches;
  const at::Tensor given = condition(t, y);
  at::Tensor h = embed(x, t, y, context);
  std::int64_t blocks_done = 0;
  const auto run = [&](Block& block, const at::Tensor& skip) {
    const bool again = recompute_every_ > 0 && blocks_done % recompute_every_ == 0;
    const auto body = [&block](const std::vector<at::Tensor>& in) { return block.forward(in[0], in[1], in[2]); };
    // A view, so that backward sums what the block sends to its input before it adds what the skip sends: in the order of a block that is run again.
    h = again ? recompute(body, {h, skip, given}) : block.forward(h.view_as(h), skip, given);
    if (aligned && m.projector && blocks_done == options_.align_block) *aligned = m.projector->forward(h.narrow(1, first_patch, patches));
    ++blocks_done;
  };
  std::vector<at::Tensor> skips;
  for (const auto& block : m.in_blocks) {
    run(*block, {});
    if (options_.skip) skips.push_back(h);
  }
  run(*m.mid_block, {});
  for (const auto& block : m.out_blocks) {
    at::Tensor skip;
    if (options_.skip) {
      skip = std::move(skips.back());
      skips.pop_back();
    }
    run(*block, skip);
  }
  h = m.norm->forward(h);
  if (m.modulation) {
    const std::vector<at::Tensor> parts = m.modulation->forward(given);
    h = BranchModulation{parts[0], parts[1], {}}.before(h);
  }
  h = m.decoder_pred->forward(h);
  h = unpatchify(h.narrow(1, first_patch, patches), options_.channels, options_.height, options_.width, options_.patch_size);
  if (m.final_layer) h = m.final_layer->forward(h);
  return h.to(x.scalar_type());
}

void UViT::set_timestep_frequencies(const at::Tensor& frequencies) {
  if (frequencies.sizes() != at::IntArrayRef({time_width(options_) / 2})) {
    throw Error(fmt::format("timestep frequencies have shape {}: the model wants [{}]", shape_of(frequencies), time_width(options_) / 2));
  }
  impl_->timestep_frequencies = frequencies.to(at::kFloat);
}

std::int64_t UViT::num_parameters() const {
  std::int64_t count = 0;
  for (const at::Tensor& parameter : parameters()) count += parameter.numel();
  return count;
}

}  // namespace uvit
