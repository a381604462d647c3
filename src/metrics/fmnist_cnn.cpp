#include <torch/torch.h>

#include "metrics/fmnist_cnn.h"

#include <fmt/format.h>

#include "checkpoint/tensor_convert.h"
#include "core/error.h"
#include "core/hash.h"
#include "io/safetensors.h"

namespace uvit {
namespace {

constexpr double kMean = 0.2860, kStd = 0.3530;  // of the training images in [0, 1]

torch::nn::Conv2d conv3x3(std::int64_t in, std::int64_t out) { return torch::nn::Conv2d(torch::nn::Conv2dOptions(in, out, 3).padding(1)); }

class FmnistCnnNetwork : public FeatureNetwork {
 public:
  explicit FmnistCnnNetwork(const std::string& path) : hash_(sha256_of_file(path)) {
    load_parameters(*network_, read_safetensors(path), path);
    network_->eval();
  }
  at::Tensor features(const at::Tensor& images) override {
    const torch::NoGradGuard no_grad;
    return network_->features(fmnist_cnn_input(images));
  }
  at::Tensor logits(const at::Tensor& images) override {
    const torch::NoGradGuard no_grad;
    return network_->forward(fmnist_cnn_input(images));
  }
  std::string weights_hash() const override { return hash_; }

 private:
  FmnistCnn network_;
  std::string hash_;
};

}  // namespace

FmnistCnnImpl::FmnistCnnImpl()
    : conv1(register_module("conv1", conv3x3(1, kWidths[0]))),
      conv2(register_module("conv2", conv3x3(kWidths[0], kWidths[1]))),
      conv3(register_module("conv3", conv3x3(kWidths[1], kWidths[2]))),
      fc1(register_module("fc1", torch::nn::Linear(kWidths[2] * 3 * 3, kFeatures))),
      fc2(register_module("fc2", torch::nn::Linear(kFeatures, kClasses))) {}

torch::Tensor FmnistCnnImpl::features(torch::Tensor x) {
  x = torch::max_pool2d(torch::relu(conv1(x)), 2);  // [N, 32, 14, 14]
  x = torch::max_pool2d(torch::relu(conv2(x)), 2);  // [N, 64, 7, 7]
  x = torch::max_pool2d(torch::relu(conv3(x)), 2);  // [N, 128, 3, 3]
  return torch::relu(fc1(x.flatten(1)));
}

torch::Tensor fmnist_cnn_input(const torch::Tensor& images) {
  const bool known = images.dim() == 4 && (images.size(1) == 1 || images.size(1) == 3 || images.size(1) == 4);
  if (!known || images.scalar_type() != at::kByte) {
    throw Error(fmt::format("fmnist-cnn takes uint8 images [N, 1 or 3 or 4, H, W], not {} {}", c10::toString(images.scalar_type()),
                            format_shape(images.sizes().vec())));
  }
  torch::Tensor x = images.to(torch::kFloat32);
  if (x.size(1) > 1) x = 0.299 * x.narrow(1, 0, 1) + 0.587 * x.narrow(1, 1, 1) + 0.114 * x.narrow(1, 2, 1);
  if (x.size(2) != 28 || x.size(3) != 28) x = at::_upsample_bilinear2d_aa(x, {28, 28}, /*align_corners=*/false);
  return (x / 255.0 - kMean) / kStd;
}

std::unique_ptr<FeatureNetwork> load_fmnist_cnn() { return std::make_unique<FmnistCnnNetwork>(asset_path("fmnist_cnn.safetensors")); }

}  // namespace uvit
