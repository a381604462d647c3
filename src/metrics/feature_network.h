#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace uvit {

/// A feature network that is loaded: images in, features (and, where it classifies, logits) out.
class FeatureNetwork {
 public:
  virtual ~FeatureNetwork() = default;
  /// @param images uint8 [N, C, H, W]: preprocessing (channels, resize, scaling) is the network's own. @return [N, D] float32
  virtual at::Tensor features(const at::Tensor& images) = 0;
  /// Class scores [N, K]; undefined where the network is no classifier.
  virtual at::Tensor logits(const at::Tensor& images) {
    (void)images;
    return {};
  }
  /// SHA-256 of the file of weights.
  virtual std::string weights_hash() const = 0;
};

/// A row of the table of feature networks.
struct FeatureNetworkRow {
  std::string name;  ///< for instance "fmnist-cnn"; the score is named FD[fmnist-cnn]@N
  std::string description;
  std::int64_t channels;    ///< that an image file is read with: 1 grey, 3 RGB
  std::int64_t input_size;  ///< pixels
  std::string preprocess;   ///< what happens to an image, for the recipe
  std::unique_ptr<FeatureNetwork> (*load)();
};

std::span<const FeatureNetworkRow> feature_network_table();
/// Throws Error with the nearest name where there is no such row.
const FeatureNetworkRow& find_feature_network(const std::string& name);

/// Where assets/<file> is: in $UVIT_ASSETS, else beside the source, else beside the program. Throws Error where the file is not there.
std::string asset_path(const std::string& file);

}  // namespace uvit
