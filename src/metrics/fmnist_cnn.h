#pragma once
#include <torch/torch.h>

#include <memory>

#include "metrics/feature_network.h"

namespace uvit {

/// The classifier behind "fmnist-cnn": three 3x3 convolutions, each with ReLU and a 2x2 max-pool, a hidden layer of 64, ten classes.
/// tools/train_fmnist_cnn.cpp trains it with batch norms and folds them into these weights.
struct FmnistCnnImpl : torch::nn::Module {
  static constexpr std::int64_t kWidths[3] = {32, 64, 128};
  static constexpr std::int64_t kFeatures = 64, kClasses = 10;

  FmnistCnnImpl();
  /// @param x normalised float32 [N, 1, 28, 28] @return [N, 64], >= 0
  torch::Tensor features(torch::Tensor x);
  /// @return class scores [N, 10]
  torch::Tensor forward(torch::Tensor x) { return fc2(features(x)); }

  torch::nn::Conv2d conv1, conv2, conv3;
  torch::nn::Linear fc1, fc2;
};
TORCH_MODULE(FmnistCnn);

/// uint8 [N, C, H, W] -> float32 [N, 1, 28, 28]: grey (C = 3 or 4: ITU-R 601 luma, alpha dropped), resized, (x / 255 - mean) / std of the training
/// images. Throws Error for another dtype or number of channels.
torch::Tensor fmnist_cnn_input(const torch::Tensor& images);

/// The network with the weights of assets/fmnist_cnn.safetensors. Throws Error when the file is missing or damaged, and for any option.
std::unique_ptr<FeatureNetwork> load_fmnist_cnn(const std::string& file, const NetworkOptions& options);

}  // namespace uvit
