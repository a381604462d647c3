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
  std::string name() const override { return "fmnist-cnn"; }
  std::int64_t channels() const override { return 1; }
  std::vector<FeatureOutput> outputs() const override {
    return {{"hidden", OutputKind::features, FmnistCnnImpl::kFeatures}, {"logits", OutputKind::logits, FmnistCnnImpl::kClasses}};
  }
  at::Tensor prepare(const at::Tensor& images) const override { return fmnist_cnn_input(images); }
  NamedFeatures run(const at::Tensor& prepared, const std::vector<std::string>& wanted) override {
    const torch::NoGradGuard no_grad;
    const at::Tensor hidden = network_->features(prepared);
    NamedFeatures result;
    for (const std::string& each : wanted) result[each] = output(each).kind == OutputKind::logits ? network_->fc2(hidden) : hidden;
    return result;
  }
  std::string weights_hash() const override { return hash_; }
  std::string preprocess() const override { return "grey, bilinear with antialiasing to 28 x 28, (x / 255 - 0.2860) / 0.3530"; }

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
  torch::Tensor x = float_image(images, 1, "fmnist-cnn");
  if (x.size(2) != 28 || x.size(3) != 28) x = at::_upsample_bilinear2d_aa(x, {28, 28}, /*align_corners=*/false);
  return (x / 255.0 - kMean) / kStd;
}

std::unique_ptr<FeatureNetwork> load_fmnist_cnn(const std::string& file, const NetworkOptions& options) {
  if (!file.empty() || !options.weights.empty() || !options.resize.empty() || options.precision != "fp32" || options.device != "cpu") {
    throw Error("fmnist-cnn has weights, resize and precision of its own, and runs on the CPU: leave those options away");
  }
  return std::make_unique<FmnistCnnNetwork>(asset_path("fmnist_cnn.safetensors"));
}

}  // namespace uvit
