#include <torch/torch.h>

#include "train/alignment.h"

#include <fmt/format.h>

#include <cmath>

#include "core/error.h"
#include "io/host_tensor.h"
#include "metrics/script_module.h"

namespace uvit {

struct AlignmentEncoder::Module {
  torch::jit::Module script;
};

AlignmentEncoder::AlignmentEncoder(const Config& config, at::Device device)
    : file_(config.train.align_encoder),
      size_(config.train.align_size),
      dim_(config.model.align_dim),
      rows_(config.data.height() / config.model.patch_size),
      columns_(config.data.width() / config.model.patch_size),
      module_(std::make_unique<Module>(Module{load_script_module(file_, device)})) {
  features(at::full({1, config.data.channels, config.data.height(), config.data.width()}, -1.0, at::TensorOptions(device).dtype(at::kFloat)));
}

AlignmentEncoder::~AlignmentEncoder() = default;

at::Tensor AlignmentEncoder::features(const at::Tensor& x0) const {
  const torch::NoGradGuard no_grad;
  at::Tensor images = (x0.to(at::kFloat) + 1) / 2;
  if (images.size(2) != size_ || images.size(3) != size_)  // as REPA brings images to its encoder
    images = at::upsample_bicubic2d(images, {size_, size_}, /*align_corners=*/false).clamp_(0, 1);
  const c10::IValue value = run_script_module(module_->script, images, file_);
  if (!value.isTensor()) throw Error(fmt::format("train.align_encoder {} returns {}, not one tensor of tokens [B, N, D]", file_, value.tagKind()));
  const at::Tensor tokens = value.toTensor().to(at::kFloat);
  if (tokens.dim() != 3 || tokens.size(0) != x0.size(0) || tokens.size(2) != dim_)
    throw Error(fmt::format("train.align_encoder {} gives {} for {} images: it must be [B, N, D] with D = model.align_dim = {}", file_,
                            format_shape(tokens.sizes().vec()), x0.size(0), dim_));
  const std::int64_t n = tokens.size(1), side = std::lround(std::sqrt(static_cast<double>(n)));
  if (n == rows_ * columns_) return tokens;
  if (side * side != n || n == 0)
    throw Error(fmt::format("train.align_encoder {} gives {} tokens: neither the {} x {} patches nor a square grid", file_, n, rows_, columns_));
  const at::Tensor grid = tokens.transpose(1, 2).reshape({x0.size(0), dim_, side, side});
  return at::upsample_bilinear2d(grid, {rows_, columns_}, /*align_corners=*/false).flatten(2).transpose(1, 2);
}

std::unique_ptr<AlignmentEncoder> make_alignment_encoder(const Config& config, bool latents, at::Device device) {
  const std::string& file = config.train.align_encoder;
  if ((config.model.align_dim > 0) != !file.empty())
    throw Error(fmt::format("model.align_dim = {} and train.align_encoder = \"{}\": give both, or neither", config.model.align_dim, file));
  if (file.empty()) return nullptr;
  if (latents) throw Error(fmt::format("train.align_encoder sees pixels, and the images of {} are latents: train without it, or on pixels", config.data.path));
  return std::make_unique<AlignmentEncoder>(config, device);
}

at::Tensor alignment_loss(const at::Tensor& projected, const at::Tensor& features) {
  return -at::cosine_similarity(projected.to(at::kFloat), features, 2, 1e-8).mean(1);
}

}  // namespace uvit
